"""Which old exchanges with a member come to mind with what they say now: rare words in common, the more recent first.

Pure: texts and times in, a choice out. Knows no database and no model.
"""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from core.dialogue import words_of
from core.memory import Exchange

MOST = 2
"""Exchanges that come to mind at once."""

SETTLED = timedelta(days=3)
"""What was said more recently than this is not recalled: as far as it matters, it stands in the window."""

HALF_LIFE = timedelta(days=90)
"""After so long a word in common counts half."""

LEAST_SHARED = 2
"""Words in common that tell something, each of at least `TELLING` nats."""
TELLING = 1.0
LEAST_NATS = 4.0
"""What all words in common tell together, before their age is counted."""


def recalled(text: str, old: Sequence[Exchange], *, now: datetime, most: int = MOST) -> list[Exchange]:
    """The old exchanges whose question `text` recalls, at most so many, oldest first.

    A word tells ln((N + 1) / (n + 1)) nats where n of N old questions hold it (the inverse document frequency of
    K. Spärck Jones, Journal of Documentation 28, 1972). A question of the same words is no news.
    """
    asked = set(words_of(text))
    shared = [(each, asked & words) for each in old if (words := set(words_of(each.said))) != asked]
    said_by = Counter(word for _, words in shared for word in words)
    tells = {word: math.log((len(shared) + 1) / (times + 1)) for word, times in said_by.items()}
    found: list[tuple[float, Exchange]] = []
    for each, words in shared:
        telling = [tells[word] for word in words if tells[word] >= TELLING]
        age = now - each.sent_at
        if len(telling) >= LEAST_SHARED and sum(telling) >= LEAST_NATS and age >= SETTLED:
            found.append((sum(telling) * 0.5 ** (age / HALF_LIFE), each))
    found.sort(key=lambda one: (-one[0], -one[1].row))
    return sorted((each for _, each in found[:most]), key=lambda each: each.row)
