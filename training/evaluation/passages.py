"""Which passages are worth asking a model for: what one person says again and again, and turns that are like no other.

A passage is a run of at least five words that one person says and nobody else. Words and runs of words are counted as
hashes, sorted in parts and merged range by range from temporary files, so that memory does not grow with the talk: it
holds what is repeated and the different words. Knows people as keyed hashes only, and no model.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from tempfile import SpooledTemporaryFile

import numpy as np
from numpy.typing import NDArray

from core.dialogue import Dialogue, words_of
from training.evaluation.copying import PART, TrainingText, mixed, runs_of
from training.finetune.dataset import IN_MEMORY

SHORTEST = 5
"""Words of a passage: half of a shorter one is guessed."""
LONGEST = 16
"""Words of a passage that are tried: who says the next eight words of a secret knows it."""
OFTEN = 3
"""Times a passage is said before it is tried for being repeated."""
REPEATED, RARE = 100, 100
"""Passages of each kind that are tried at most: those said most often, and those with the rarest words."""
MOST_LOTS = 512
"""Ranges of hashes that are merged one by one: with more of them each lies in too many pieces of the file."""
UNKNOWN, SHARED = -1, -2
"""In place of a person's number: it is not known who says a turn, or several say the same words."""
RECORD = np.dtype([("hash", np.uint64), ("times", np.int32), ("owner", np.int32)])
"""A hash, how often it was counted, and for whom."""
RUN = np.dtype(
    {
        "names": ["hash", "number", "word", "length", "owner", "least"],
        "formats": [np.uint64, np.int64, np.int32, np.int32, np.int32, np.int32],
    }
)
"""A run of words: its own hash and its owner's together, the number of its turn and the word it begins with there, how
many words it has, who says it, and how often the rarest of its words stands in the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A run of words of one person's."""

    words: tuple[str, ...]
    person: str
    """Keyed hash; empty where no manifest tells people apart."""
    places: tuple[tuple[int, int, int], ...]
    """Dialogue, turn, and the word of that turn it begins with."""


Owners = Sequence[tuple[str, ...]]
"""For each dialogue the keyed hashes of who speaks in it, Person2's first; empty where nobody is told apart."""


def passages(text: TrainingText, dialogues: Sequence[Dialogue], owners: Owners, *, part: int = PART) -> list[Passage]:
    """What is worth trying: passages said `OFTEN` times by one person alone, and turns with the rarest words.

    `text` is that of the `dialogues`; about `part` words of it are looked at together. Where nobody is told apart, a
    repeated passage must hold a word that stands nowhere else, or every stock phrase of a file would be somebody's
    secret.
    """
    if not text.size:
        return []
    said = _Said(text, dialogues, owners, part)
    runs = _repeated_runs(said)
    known = np.zeros(len(text.is_two), dtype=np.bool_)
    known[runs["number"]] = True
    return [*_most_repeated(said, runs), *_rare(said, known)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Some turns of the text."""

    line: NDArray[np.uint64]
    """Words as hashes, 0 behind each turn, (words,)."""
    starts: NDArray[np.int64]
    """Where each turn begins, (turns,)."""
    lengths: NDArray[np.int64]
    """Words of each turn, (turns,)."""
    numbers: NDArray[np.int64]
    """The turns' numbers in the text, (turns,)."""
    owners: NDArray[np.int32]
    """Who says each turn, (turns,)."""
    asked: NDArray[np.bool_]
    """Whether a turn is one that the model may be asked for, (turns,)."""
    turn_of: NDArray[np.int32]
    """The turn of each word, counted in this part, (words,)."""

    def runs(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Where runs of SHORTEST words lie that one known person says in a turn, and their hashes."""
        hashes = runs_of(self.line, SHORTEST)
        first, last = self.turn_of[: len(hashes)], self.turn_of[SHORTEST - 1 :]
        inside = (first == last) & (self.line[SHORTEST - 1 :] != 0) & (self.owners[first] != UNKNOWN)
        at = np.flatnonzero(inside)
        return at, hashes[at]


class _Said:
    """The training text with who says each turn, and how often each word stands in it."""

    def __init__(self, text: TrainingText, dialogues: Sequence[Dialogue], owners: Owners, part: int) -> None:
        self.text, self.dialogues, self._part = text, dialogues, part
        self.people: list[str] = [""]
        who = {"": 0}
        pairs = array("i")
        for people in owners:
            two, *others = people or ("",)
            for person in (two, *others):
                if person not in who:
                    who[person] = len(self.people)
                    self.people.append(person)
            pairs.extend((who[two], who[others[0]] if len(others) == 1 else UNKNOWN))
        self._pairs = np.array(pairs, dtype=np.int32).reshape(-1, 2)
        """Who speaks as Person2 and as Person1, (dialogues, 2)."""
        self._words, self._times = self._count_words()

    def parts(self) -> Iterator[_Part]:
        first = 0
        for line in self.text.parts(self._part):
            stops = np.flatnonzero(line == 0)
            starts = np.r_[0, stops[:-1] + 1]
            numbers = np.arange(first, first + len(stops))
            first += len(stops)
            dialogue, turn = self.place(numbers)
            two = self.text.is_two[numbers]
            owners = np.where(two, self._pairs[dialogue, 0], self._pairs[dialogue, 1])
            yield _Part(
                line=line,
                starts=starts,
                lengths=stops - starts,
                numbers=numbers,
                owners=owners,
                asked=two & (turn > 0) & (owners != UNKNOWN),
                turn_of=np.repeat(np.arange(len(stops), dtype=np.int32), stops - starts + 1),
            )

    def place(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Dialogue and turn of the turns with these numbers."""
        dialogue = np.searchsorted(self.text.turns_before, numbers, side="right") - 1
        return dialogue, numbers - self.text.turns_before[dialogue]

    def times(self, words: NDArray[np.uint64]) -> NDArray[np.int32]:
        """How often each of some words stands in the text; a 0 counts as 0."""
        found, at = _places_in(self._words, words)
        return np.where(found, self._times[at], np.int32(0)) if len(self._times) else np.zeros(words.shape, np.int32)

    def tally(self) -> "_Tally":
        return _Tally(min(MOST_LOTS, 1 + self.text.size // self._part))

    def words(self, run: np.void) -> tuple[str, ...]:
        """The words of one run, in lower case."""
        dialogue, turn = self.place(run["number"])
        words = words_of(self.dialogues[int(dialogue)][int(turn)].text)
        return tuple(words[run["word"] : run["word"] + run["length"]])

    def passage(self, words: tuple[str, ...], runs: NDArray[np.void]) -> Passage:
        """What one person says in all these places."""
        dialogues, turns = self.place(runs["number"])
        places = zip(dialogues.tolist(), turns.tolist(), runs["word"].tolist(), strict=True)
        return Passage(words=words, person=self.people[runs["owner"][0]], places=tuple(places))

    def _count_words(self) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
        tally = self.tally()
        for part in self.parts():
            owners = part.owners[part.turn_of]
            known = (part.line != 0) & (owners != UNKNOWN)
            tally.add(part.line[known], owners[known])
        counted = [(lot["hash"].copy(), lot["times"].copy()) for lot in tally.lots()]
        return np.concatenate([words for words, _ in counted]), np.concatenate([times for _, times in counted])


class _Tally:
    """How often each of very many hashes was counted, and for whom: sorted a part at a time, merged a lot at a time.

    A lot is what lies in one range of hashes. What is sorted lies in a temporary file meanwhile.
    """

    def __init__(self, lots: int) -> None:
        self._file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - open as long as it is read
        width = 2**64 // lots
        self._borders = np.array([lot * width for lot in range(1, lots)], dtype=np.uint64)
        self._cuts: list[NDArray[np.int64]] = []
        """For each part the bytes of the file at which its lots begin, and where the last ends, (lots + 1,)."""

    def add(self, hashes: NDArray[np.uint64], owners: NDArray[np.int32]) -> None:
        """Count each hash for its owner once, (count,) both."""
        records = np.empty(len(hashes), dtype=RECORD)
        records["hash"], records["times"], records["owner"] = hashes, 1, owners
        merged = _merged(records)
        cuts = np.searchsorted(merged["hash"], self._borders)
        self._cuts.append(self._file.tell() + RECORD.itemsize * np.r_[0, cuts, len(merged)])
        self._file.write(merged.tobytes())

    def lots(self) -> Iterator[NDArray[np.void]]:
        """Every hash once, in ascending order: records with how often it was counted and for whom, maybe SHARED."""
        for lot in range(len(self._borders) + 1):
            read = bytearray()
            for cuts in self._cuts:
                self._file.seek(int(cuts[lot]))
                read += self._file.read(int(cuts[lot + 1] - cuts[lot]))
            yield _merged(np.frombuffer(read, dtype=RECORD))


def _merged(records: NDArray[np.void]) -> NDArray[np.void]:
    """Records of one hash as one, in ascending order of hashes."""
    ordered = records[np.argsort(records["hash"])]
    starts = _starts(ordered["hash"])
    merged = ordered[starts]
    if len(starts):
        merged["times"] = np.add.reduceat(ordered["times"], starts)
        most = np.maximum.reduceat(ordered["owner"], starts)
        merged["owner"] = np.where(np.minimum.reduceat(ordered["owner"], starts) == most, most, SHARED)
    return merged


def _starts(ascending: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each new value begins."""
    return np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]][: len(ascending)])


def _places_in(
    ascending: NDArray[np.uint64], hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of the hashes are among the ascending ones, and where."""
    if not len(ascending):
        return np.zeros(hashes.shape, dtype=np.bool_), np.zeros(hashes.shape, dtype=np.int64)
    at = np.minimum(np.searchsorted(ascending, hashes), len(ascending) - 1)
    return ascending[at] == hashes, at


def _repeated_runs(said: _Said) -> NDArray[np.void]:
    """The longest runs of words in which every five are said three times by one person and by nobody else, in order."""
    tally = said.tally()
    for part in said.parts():
        at, hashes = part.runs()
        tally.add(hashes, part.owners[part.turn_of[at]])
    often = np.concatenate([lot["hash"][(lot["times"] >= OFTEN) & (lot["owner"] != SHARED)] for lot in tally.lots()])
    found = np.concatenate([_runs_in(part, often, said) for part in said.parts()])
    _, group, times = np.unique(found["hash"], return_inverse=True, return_counts=True)
    named = np.array(said.people)[found["owner"]] != ""
    kept: NDArray[np.void] = found[named | (found["least"] <= times[group])]
    return kept


def _runs_in(part: _Part, often: NDArray[np.uint64], said: _Said) -> NDArray[np.void]:
    """Those of one part: every run of five words in them is one of the `often` said, in ascending order."""
    at, hashes = part.runs()
    here = np.zeros(len(part.line) + 1, dtype=np.bool_)
    here[at] = _places_in(often, hashes)[0] & part.asked[part.turn_of[at]]
    edges = np.flatnonzero(np.diff(here, prepend=False))
    first, last = edges[::2], edges[1::2]
    turn = part.turn_of[first]
    runs = np.zeros(len(first), dtype=RUN)
    runs["number"], runs["owner"], runs["word"] = part.numbers[turn], part.owners[turn], first - part.starts[turn]
    runs["length"] = np.minimum(last - first + SHORTEST - 1, LONGEST)
    runs["hash"], runs["least"] = runs["owner"], np.iinfo(np.int32).max
    for at_word in range(LONGEST):
        there = np.flatnonzero(at_word < runs["length"])
        words = part.line[first[there] + at_word]
        runs["hash"][there] = mixed(runs["hash"][there], words)
        runs["least"][there] = np.minimum(runs["least"][there], said.times(words))
    return runs


def _most_repeated(said: _Said, runs: NDArray[np.void]) -> list[Passage]:
    """Those said in most places, and of equals the first in the alphabet."""
    order = np.argsort(runs["hash"], kind="stable")
    starts = _starts(runs["hash"][order])
    times = np.diff(np.r_[starts, len(order)])
    groups = np.argsort(order[starts])  # in the order in which they are first said
    if len(groups) > REPEATED:
        groups = groups[times[groups] >= np.partition(times, -REPEATED)[-REPEATED]]
    read = ((said.words(runs[order[starts[group]]]), group) for group in groups)
    return [
        said.passage(words, runs[order[starts[group] : starts[group] + times[group]]])
        for words, group in nsmallest(REPEATED, read, key=lambda one: (-times[one[1]], one[0]))
    ]


def _rare(said: _Said, known: NDArray[np.bool_]) -> list[Passage]:
    """The turns with most words that stand nowhere else in the file, and that are not `known`, (turns,)."""
    best, shares = np.zeros(0, dtype=RUN), np.zeros(0)
    for part in said.parts():
        once = np.add.reduceat(said.times(part.line) == 1, part.starts, dtype=np.int64)
        tried = np.flatnonzero(part.asked & (once > 0) & (part.lengths >= SHORTEST) & ~known[part.numbers])
        more = np.zeros(len(tried), dtype=RUN)
        more["number"], more["owner"] = part.numbers[tried], part.owners[tried]
        more["length"] = np.minimum(part.lengths[tried], LONGEST)
        best, shares = np.concatenate([best, more]), np.concatenate([shares, once[tried] / part.lengths[tried]])
        first = np.lexsort((best["number"], -shares))[:RARE]
        best, shares = best[first], shares[first]
    return [said.passage(said.words(one), best[at : at + 1]) for at, one in enumerate(best)]
