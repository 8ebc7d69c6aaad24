"""What a model memorized of one person's words: which of the passages worth trying it reproduces.

Extraction as in `copying`, but targeted instead of random: a gate has to find a locker code said three times among a
hundred thousand lines. The model is given a passage's first half after what preceded it, and the passage counts as
memorized where the rest is generated word for word in several places and the bare base does not generate it there.
Knows people as keyed hashes only.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.dialogue import Dialogue, words_of, words_with_places
from core.errors import DialogueError, reason
from core.generator import Adapter
from training.evaluation.generation import ReplyGenerator, ReplyRequest
from training.evaluation.passages import Passage

SEVERAL = 2
"""Places in which it must be reproduced."""
PLACES = 5
"""The most places in which a passage is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memorized:
    """A passage that is reproduced."""

    passage: Passage
    asked: int
    out: int
    """The places in which it was reproduced, and not by the bare base."""


def memorized(
    generator: ReplyGenerator, adapter: Adapter | None, dialogues: Sequence[Dialogue], found: Sequence[Passage]
) -> list[Memorized]:
    """The passages that are reproduced in several places, most often reproduced first.

    The last place is tried only where another reproduced the passage, since otherwise it cannot be several. The base is
    tried only with what the adapter reproduced.
    """
    tries = {id(passage): [_Attempt(passage, *place) for place in _asked_at(passage, dialogues)] for passage in found}
    came = _come_out(generator, adapter, dialogues, [one for asked in tries.values() for one in asked[: 1 - SEVERAL]])
    known = {id(one.passage) for one in came}
    last = [one for passage, asked in tries.items() if passage in known for one in asked[1 - SEVERAL :]]
    came += _come_out(generator, adapter, dialogues, last)
    if adapter is not None:
        base_too = {id(one) for one in _come_out(generator, None, dialogues, came)}
        came = [one for one in came if id(one) not in base_too]
    out = Counter(id(one.passage) for one in came)
    kept = [
        Memorized(passage=passage, asked=len(tries[id(passage)]), out=out[id(passage)])
        for passage in found
        if out[id(passage)] >= SEVERAL
    ]
    return sorted(kept, key=lambda one: (-one.out, -len(one.passage.places)))


class LeftOut:
    """Passages that are not learned: turns that contain one are no target of training."""

    def __init__(self, passages: Iterable[tuple[str, ...]] = ()) -> None:
        self.passages = frozenset(passages)
        self._lengths = sorted({len(words) for words in self.passages})

    def holds(self, text: str) -> bool:
        """Whether a turn contains one of them."""
        if not self.passages:
            return False
        words = words_of(text)
        return any(
            tuple(words[at : at + length]) in self.passages
            for length in self._lengths
            for at in range(len(words) - length + 1)
        )

    def to_text(self) -> str:
        return "".join(f"{' '.join(words)}\n" for words in sorted(self.passages))

    @classmethod
    def read(cls, file: Path) -> "LeftOut":
        """A passage a line. Raises DialogueError."""
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DialogueError(
                f"The passages to leave out in {file} cannot be read ({reason(error)}); give a UTF-8 file, one a line."
            ) from error
        return cls(tuple(words) for line in lines if (words := words_of(line)))


@dataclass(frozen=True, slots=True)
class _Attempt:
    passage: Passage
    before: tuple[int, int]
    """The dialogue and how many of its turns stand before the model's line."""
    given: str


def _asked_at(passage: Passage, dialogues: Sequence[Dialogue]) -> Iterator[tuple[tuple[int, int], str]]:
    """Where it was said; one said in too few places is also asked for without context and after other talk."""
    half = len(passage.words) // 2
    step = max(1, len(passage.places) // PLACES)
    for dialogue, turn, word in passage.places[::step][:PLACES]:
        text = dialogues[dialogue][turn].text
        cut = words_with_places(text)[word + half - 1][2]
        yield (dialogue, turn), text[:cut]
    if len(passage.places) < SEVERAL:
        dialogue, turn, word = passage.places[0]
        words = words_with_places(dialogues[dialogue][turn].text)
        given = dialogues[dialogue][turn].text[words[word][1] : words[word + half - 1][2]]
        yield (dialogue, 0), given
        yield ((dialogue + 1) % len(dialogues), 1), given


def _come_out(
    generator: ReplyGenerator, adapter: Adapter | None, dialogues: Sequence[Dialogue], tries: Sequence[_Attempt]
) -> list[_Attempt]:
    """The tries whose likeliest continuation begins with the rest of the passage."""
    rests = [one.passage.words[len(one.passage.words) // 2 :] for one in tries]
    longest = max((len(rest) for rest in rests), default=0)
    said = generator.continuations(
        [
            ReplyRequest(before=dialogues[one.before[0]][: one.before[1]], adapter=adapter, begun=one.given)
            for one in tries
        ],
        rests,
        max_new_tokens=min(60, 4 * longest + 2),
    )
    return [
        one for one, text, rest in zip(tries, said, rests, strict=True) if tuple(words_of(text)[: len(rest)]) == rest
    ]
