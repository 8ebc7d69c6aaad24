"""What a model says by heart of what one person said: passages said again and again, and turns that are like no other.

Extraction as in `copying`, aimed instead of drawn at random: a locker code said three times among a hundred
thousand lines is what a gate has to find. A passage is a run of at least five words that one person says and nobody
else; its first half goes in after what stood before it, and it counts as known by heart where the rest comes out word
for word in several places and the bare base does not say it there. Knows people as keyed hashes only.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.dialogue import Dialogue, Speaker, words_of, words_with_places
from core.errors import DialogueError, reason
from core.generator import Adapter
from training.evaluation.copying import runs_of
from training.evaluation.generation import ReplyGenerator, ReplyRequest

SHORTEST = 5
"""Words of a passage: half of a shorter one is guessed."""
LONGEST = 16
"""Words of a passage that are tried: who says the next eight words of a secret knows it."""
OFTEN = 3
"""Times a passage is said before it is tried for being repeated."""
SEVERAL = 2
"""Places in which it must come out."""
REPEATED, RARE = 100, 100
"""Passages of each kind that are tried at most: those said most often, and those with the rarest words."""
PLACES = 5
"""Places at which a passage is asked for at most."""
NOBODY = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A run of words of one person's."""

    words: tuple[str, ...]
    person: str
    """Keyed hash; empty where no manifest tells people apart."""
    places: tuple[tuple[int, int, int], ...]
    """Dialogue, turn, and the word of that turn it begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memorized:
    """A passage that comes out."""

    passage: Passage
    asked: int
    out: int
    """Of the places it was asked at, those where it came out, and not from the bare base."""


Owners = Sequence[tuple[str, ...]]
"""For each dialogue the keyed hashes of who speaks in it, Person2's first; empty where nobody is told apart."""


def passages(dialogues: Sequence[Dialogue], owners: Owners) -> list[Passage]:
    """What is worth trying: passages said `OFTEN` times by one person alone, and turns with the rarest words.

    Where nobody is told apart, a repeated passage must hold a word that stands nowhere else, or every stock phrase of a
    file would be somebody's secret.
    """
    text = _Words(dialogues, owners)
    repeated = _repeated(text)
    known = {place[:2] for passage in repeated for place in passage.places}
    repeated.sort(key=lambda passage: (-len(passage.places), passage.words))
    return [*repeated[:REPEATED], *_rare(text, known)]


def memorized(
    generator: ReplyGenerator, adapter: Adapter | None, dialogues: Sequence[Dialogue], found: Sequence[Passage]
) -> list[Memorized]:
    """The passages that come out in several places, those that come out most first.

    The last place is asked about only where another gave the passage away: without that it cannot come out in several.
    The base is asked only for what the adapter said.
    """
    tries = {id(passage): [_Try(passage, *place) for place in _asked_at(passage, dialogues)] for passage in found}
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
    """Passages that are not learned: the turns that hold one are no target of training."""

    def __init__(self, passages: Iterable[tuple[str, ...]] = ()) -> None:
        self.passages = frozenset(passages)
        self._lengths = sorted({len(words) for words in self.passages})

    def holds(self, text: str) -> bool:
        """Whether a turn holds one of them."""
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
class _Try:
    passage: Passage
    before: tuple[int, int]
    """The dialogue and how many of its turns stand before the model's line."""
    given: str


def _asked_at(passage: Passage, dialogues: Sequence[Dialogue]) -> Iterator[tuple[tuple[int, int], str]]:
    """Where it was said; one said in fewer places than count is also asked for after nothing and after other talk."""
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
    generator: ReplyGenerator, adapter: Adapter | None, dialogues: Sequence[Dialogue], tries: Sequence[_Try]
) -> list[_Try]:
    """Those whose likeliest continuation begins with the rest of the passage."""
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


class _Words:
    """Every turn as numbered words on one line, 0 behind each, with who said it."""

    def __init__(self, dialogues: Sequence[Dialogue], owners: Owners) -> None:
        self.people: list[str] = [""]
        numbers: dict[str, int] = {}
        who = {"": 0}
        line, owner = array("I"), array("I")
        self.turns: list[tuple[int, int]] = []
        """(dialogue, turn) of each turn on the line."""
        self.starts: list[int] = []
        for index, turns in enumerate(dialogues):
            two, *others = owners[index] or ("",)
            for at, turn in enumerate(turns):
                if turn.speaker is Speaker.PERSON1 and len(others) != 1:
                    continue  # who says this is not known
                person = two if turn.speaker is Speaker.PERSON2 else others[0]
                if person not in who:
                    who[person] = len(self.people)
                    self.people.append(person)
                self.turns.append((index, at if turn.speaker is Speaker.PERSON2 and at else NOBODY))
                self.starts.append(len(line))
                words = [numbers.setdefault(word, len(numbers) + 1) for word in words_of(turn.text)]
                line.extend([*words, 0])
                owner.extend([who[person]] * (len(words) + 1))
        self.line: NDArray[np.uint64] = np.array(line, dtype=np.uint64)
        self.owner: NDArray[np.int64] = np.array(owner, dtype=np.int64)
        self.words = ["", *numbers]
        self.counts: NDArray[np.int64] = np.bincount(self.line.astype(np.int64), minlength=len(self.words))

    def text(self, start: int, end: int) -> tuple[str, ...]:
        return tuple(self.words[int(number)] for number in self.line[start:end])


def _repeated(text: _Words) -> list[Passage]:
    """Longest runs of words in which every five are said three times by one person and by nobody else."""
    hashes = runs_of(text.line, SHORTEST)
    if not len(hashes):
        return []
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.r_[True, hashes[order][1:] != hashes[order][:-1]])
    owners = text.owner[: len(hashes)][order]
    low, high = np.minimum.reduceat(owners, starts), np.maximum.reduceat(owners, starts)
    sizes = np.diff(np.r_[starts, len(order)])
    often = np.zeros(len(hashes), dtype=np.bool_)
    often[order] = np.repeat((sizes >= OFTEN) & (low == high), sizes)
    found: dict[tuple[int, tuple[str, ...]], list[tuple[int, int, int]]] = defaultdict(list)
    for (dialogue, turn), start, end in zip(text.turns, text.starts, [*text.starts[1:], len(text.line)], strict=True):
        here = often[start : max(start, end - SHORTEST)]
        if turn == NOBODY or not here.any():
            continue
        edges = np.flatnonzero(np.diff(np.r_[False, here, False]))
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            words = text.text(start + int(first), start + int(last) + SHORTEST - 1)[:LONGEST]
            found[int(text.owner[start]), words].append((dialogue, turn, int(first)))
    number = {word: at for at, word in enumerate(text.words)}
    return [
        Passage(words=words, person=text.people[owner], places=tuple(places))
        for (owner, words), places in found.items()
        if text.people[owner] or any(text.counts[number[word]] <= len(places) for word in words)
    ]


def _rare(text: _Words, known: set[tuple[int, int]]) -> list[Passage]:
    """The turns with most words that stand nowhere else in the file."""
    ranked = []
    for number, (place, start, end) in enumerate(
        zip(text.turns, text.starts, [*text.starts[1:], len(text.line)], strict=True)
    ):
        words = text.line[start : end - 1].astype(np.int64)
        once = int((text.counts[words] == 1).sum())
        if place[1] != NOBODY and once and len(words) >= SHORTEST and place not in known:
            ranked.append((-once / len(words), number, start, end - 1))
    return [
        Passage(
            words=text.text(start, end)[:LONGEST],
            person=text.people[int(text.owner[start])],
            places=((*text.turns[number], 0),),
        )
        for _, number, start, end in sorted(ranked)[:RARE]
    ]
