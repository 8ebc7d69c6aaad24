"""Which earlier exchanges with a member are related to what they say now: those that share rare words with it, the more
recent the better.

Pure: texts and times in, a choice out. Knows no database and no model.
"""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from core.dialogue import words_of
from core.memory import Exchange

MOST = 2
"""Exchanges recalled at once."""

SETTLED = timedelta(days=3)
"""Exchanges younger than this are not recalled: as far as they matter, they are in the context."""

HALF_LIFE = timedelta(days=90)
"""Age at which a shared word counts half."""

MIN_SHARED = 2
"""Shared words that are rare enough, each of at least `MIN_WORD_NATS` nats."""
MIN_WORD_NATS = 1.0
MIN_NATS = 4.0
"""Nats of all shared words together, before the exchange's age is counted."""


def recalled(text: str, old: Sequence[Exchange], *, now: datetime, most: int = MOST) -> list[Exchange]:
    """The earlier exchanges whose question is related to `text`, at most `most`, oldest first.

    A word counts ln((N + 1) / (n + 1)) nats where n of N earlier questions hold it (the inverse document frequency of
    K. Spärck Jones, Journal of Documentation 28, 1972). A question with the very same words is left out.
    """
    asked = set(words_of(text))
    shared = [(each, asked & words) for each in old if (words := set(words_of(each.said))) != asked]
    frequency = Counter(word for _, words in shared for word in words)
    nats = {word: math.log((len(shared) + 1) / (times + 1)) for word, times in frequency.items()}
    found: list[tuple[float, Exchange]] = []
    for each, words in shared:
        rare = [nats[word] for word in words if nats[word] >= MIN_WORD_NATS]
        age = now - each.sent_at
        if len(rare) >= MIN_SHARED and sum(rare) >= MIN_NATS and age >= SETTLED:
            found.append((sum(rare) * 0.5 ** (age / HALF_LIFE), each))
    found.sort(key=lambda one: (-one[0], -one[1].row))
    return sorted((each for _, each in found[:most]), key=lambda each: each.row)
