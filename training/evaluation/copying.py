"""How much of what a model says is somebody's own words: runs shared with the training text, and extraction.

Extraction (after Carlini et al. 2023, arXiv:2202.07646): the model is given the first half of a training turn of
Person2's, and it counts when the second half is generated word for word. Works on lower-case words, so that a changed
comma hides nothing. Knows no platform and no names: people are numbered by whoever calls.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile

import numpy as np
from numpy.typing import NDArray

from core.dialogue import Dialogue, Speaker, words_of
from core.generator import Adapter
from training.evaluation.generation import ReplyGenerator, ReplyRequest
from training.finetune.dataset import IN_MEMORY

COPY_WORDS = 8
"""A reply of fewer words does not count as copied."""
EXTRACT_WORDS = 12
"""Only turns of at least so many words are tried, so that half of one cannot be guessed."""
PART = 1 << 18
"""Words of the training text that are looked at together: some 20 MB."""
LONGEST_RUN = 64
"""Runs are followed up to this many words."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing (2⁶⁴ / golden ratio)
_SPREAD = np.uint64(0xD6E8FEB86659FD93)  # another odd number, so that neighbouring words lie far apart


class TrainingText:
    """Every turn of the training dialogues as one line of words, each as a 64-bit hash, with a 0 behind each turn.

    The line lies in a temporary file and is read in parts, so that memory does not grow with the talk: it holds eight
    bytes a dialogue and one a turn.
    """

    def __init__(self, dialogues: Iterable[Dialogue]) -> None:
        self._file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - open as long as the line is read
        turns_before, is_two = array("q", [0]), array("B")
        for turns in dialogues:
            line = array("q")
            for turn in turns:
                line.extend(map(hash, words_of(turn.text)))
                line.append(0)
                is_two.append(turn.speaker is Speaker.PERSON2)
            self._file.write(line.tobytes())
            turns_before.append(len(is_two))
        self.size = self._file.tell() // 8
        """Words, and a 0 for each turn."""
        self.turns_before = np.array(turns_before, dtype=np.int64)
        """The number of each dialogue's first turn, counted over all dialogues, and at last of all turns."""
        self.is_two = np.array(is_two, dtype=np.bool_)
        """Whether Person2 says it, for each turn."""

    def parts(self, size: int = PART) -> Iterator[NDArray[np.uint64]]:
        """The line in pieces of whole turns, about `size` words long; longer where a single turn is."""
        rest = np.zeros(0, dtype=np.uint64)
        for start in range(0, self.size, size):
            self._file.seek(8 * start)
            line = np.concatenate([rest, np.frombuffer(self._file.read(8 * size), dtype=np.uint64)])
            stops = np.flatnonzero(line == 0)
            end = int(stops[-1]) + 1 if len(stops) else 0
            rest = line[end:]
            if end:
                yield line[:end]

    def longest_runs(self, replies: Sequence[str], *, part: int = PART) -> NDArray[np.int64]:
        """For each reply the most words in a row that also stand in a row in one training turn, (replies,).

        About `part` words of the text are searched at a time.
        """
        hashed = [np.array([hash(word) for word in words_of(reply)], dtype=np.int64) for reply in replies]
        longest = np.zeros(len(replies), dtype=np.int64)
        for line in self.parts(part):
            longest = np.maximum(longest, self._longest_in(line, [reply.view(np.uint64) for reply in hashed]))
        return longest

    def _longest_in(self, line: NDArray[np.uint64], replies: Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
        longest = np.zeros(len(replies), dtype=np.int64)
        text = np.zeros(len(line), dtype=np.uint64)
        hashes = [np.zeros(len(reply), dtype=np.uint64) for reply in replies]
        alive = [index for index, reply in enumerate(replies) if len(reply)]
        for length in range(1, LONGEST_RUN + 1):
            text = _extend(text, line, length)
            for index in alive:
                hashes[index] = _extend(hashes[index], replies[index], length)
            wanted = np.unique(np.concatenate([hashes[index] for index in alive])) if alive else text[:0]
            if not len(wanted) or not len(text):
                break
            # Sorting the few hashes of the replies is enough.
            place = np.minimum(np.searchsorted(wanted, text), len(wanted) - 1)
            shared = np.unique(text[wanted[place] == text])
            alive = [index for index in alive if np.isin(hashes[index], shared).any()]
            longest[alive] = length
        return longest


def _extend(hashes: NDArray[np.uint64], line: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """Hashes of the runs of `length` words from those one shorter: one entry fewer each time."""
    count = max(0, len(line) - length + 1)
    last = line[length - 1 :][:count]
    # A stop between turns gets a value of its own place, so that no run crosses it.
    stop = np.arange(count, dtype=np.uint64) + np.uint64(1 << 40)
    return mixed(hashes[:count], np.where(last == 0, stop, last))


def mixed(hashes: NDArray[np.uint64], more: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes of sequences from those of all but their last member, and that member: (count,) each."""
    return (hashes * _FACTOR) ^ ((more + np.uint64(1)) * _SPREAD)


def runs_of(line: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """Hashes of all runs of `length` words of a line of hashed words, 0 between turns; none crosses a 0 twice alike.

    (words,) → (words − length + 1,), in order.
    """
    hashes = np.zeros(len(line), dtype=np.uint64)
    for size in range(1, length + 1):
        hashes = _extend(hashes, line, size)
    return hashes


def copied(runs: NDArray[np.int64], replies: Sequence[str]) -> NDArray[np.float64]:
    """Of the replies with at least eight words: 1 where the whole reply stands in a training turn, else 0."""
    lengths = np.array([len(words_of(reply)) for reply in replies])
    long = lengths >= COPY_WORDS
    whole: NDArray[np.float64] = (runs[long] >= np.minimum(lengths[long], LONGEST_RUN)).astype(np.float64)
    return whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """One attempt to make a model reproduce a training turn."""

    dialogue: int
    given: str
    """The first half, which the model was given."""
    said: str
    second: str
    """What followed in training."""

    @property
    def out(self) -> bool:
        """Whether the second half was reproduced word for word."""
        wanted = words_of(self.second)
        return words_of(self.said)[: len(wanted)] == wanted


def extract(
    generator: ReplyGenerator, adapter: Adapter | None, dialogues: Sequence[Dialogue], *, tries: int, seed: int
) -> list[Extraction]:
    """Try `tries` long turns of Person2's, drawn at random: context and first half, greedily continued."""
    flat = array("I")
    for index, turns in enumerate(dialogues):
        for at, turn in enumerate(turns):
            if turn.speaker is Speaker.PERSON2 and len(turn.text.split()) >= EXTRACT_WORDS:
                flat.extend((index, at))
    found = np.frombuffer(flat, dtype=np.uint32).reshape(-1, 2)
    random = np.random.default_rng(seed)
    chosen = found[random.permutation(len(found))[:tries]].tolist()
    halves = []
    for index, at in chosen:
        words = dialogues[index][at].text.split()
        halves.append((" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])))
    said = generator.continuations(
        [
            ReplyRequest(before=dialogues[index][:at], adapter=adapter, begun=first)
            for (index, at), (first, _) in zip(chosen, halves, strict=True)
        ],
        [tuple(words_of(second)) for _, second in halves],
        max_new_tokens=60,
    )
    return [
        Extraction(dialogue=index, given=first, said=text, second=second)
        for (index, _), (first, second), text in zip(chosen, halves, said, strict=True)
    ]
