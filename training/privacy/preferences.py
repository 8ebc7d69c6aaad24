"""What members preferred: of two answers of the bot to one question, the one they liked and the one they did not.

Knows the memory's interface and what consent means; no tensors. A question counts only where its author had consented
before asking it, and only people who consented appear in the context; everything is masked as in an import.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from core.dialogue import Dialogue, Speaker, Turn, merge, one_line
from core.memory import Memory
from core.messages import Message
from training.data.names import Names, resolve
from training.data.pii import has_words, scrub
from training.data.projection import person
from training.privacy.consent import PeopleKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Two answers to one conversation."""

    before: Dialogue
    """Ends with the question."""
    liked: str
    other: str
    """Disliked, or replaced when somebody asked again."""
    people: tuple[str, ...]
    """Keyed hashes of the people whose words are in `before`."""


def preferences(memory: Memory, key: PeopleKey) -> list[Preference]:
    """Every liked answer with every other one to the same question, oldest first."""
    since = memory.consented_since()
    found: list[Preference] = []
    for judged in memory.judged_questions():
        if not _agreed(judged.question, since):
            continue
        seen = [message for message in judged.before if message.from_bot or _agreed(message, since)]
        before, people = _masked([*seen, judged.question])
        if not before or before[-1].speaker is not Speaker.PERSON1:
            continue
        found += [
            Preference(before=before, liked=liked, other=other, people=tuple(sorted(map(key.of, people))))
            for liked in map(scrub, judged.liked)
            for other in map(scrub, judged.others)
            if has_words(liked) and one_line(other) and one_line(liked) != one_line(other)
        ]
    return found


def _agreed(message: Message, since: Mapping[str, datetime]) -> bool:
    said_yes = since.get(person(message))
    return said_yes is not None and message.sent_at >= said_yes


def _masked(messages: Sequence[Message]) -> tuple[Dialogue, set[str]]:
    """The conversation without private data and names, and the people whose words it contains."""
    names = Names({person(message): [message.author_name] for message in messages if not message.from_bot})
    sides = {person(message): Speaker.PERSON2 if message.from_bot else Speaker.PERSON1 for message in messages}
    turns: list[Turn] = []
    people: set[str] = set()
    for message in messages:
        text = resolve(names.mark(scrub(message.text)), sides)
        if not one_line(text):
            continue
        turns.append(Turn(sides[person(message)], text))
        if not message.from_bot:
            people.add(person(message))
    return merge(turns), people
