"""How much of what a model says is somebody's own words: runs shared with the training text, and extraction.

Extraction (after Carlini et al. 2023, arXiv:2202.07646): the first half of something Person2 said in training goes in,
and it counts when the second half comes out word for word. Works on lower-case words, so that a changed comma hides
nothing. Knows no platform and no names: people are numbered by whoever calls.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.dialogue import Dialogue, Speaker, words_of
from core.generator import Adapter
from training.evaluation.generation import ReplyGenerator, ReplyRequest

COPY_WORDS = 8
"""A reply of fewer words is nobody's property."""
EXTRACT_WORDS = 12
"""Only turns of at least so many words are tried, so that half of one cannot be guessed."""
PART = 1 << 20
"""Words of the training text that are looked at together: some 40 MB."""
LONGEST_RUN = 64
"""Runs are followed up to this many words."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing (2⁶⁴ / golden ratio)
_SPREAD = np.uint64(0xD6E8FEB86659FD93)  # another odd number, so that neighbouring words lie far apart


class TrainingText:
    """Every turn of the training dialogues as one line of numbered words, with a stop between turns."""

    def __init__(self, dialogues: Iterable[Dialogue]) -> None:
        self._numbers: dict[str, int] = {}
        line = array("I")
        for turns in dialogues:
            for turn in turns:
                line.extend(self._numbers.setdefault(word, len(self._numbers) + 1) for word in words_of(turn.text))
                line.append(0)
        self._line = np.frombuffer(line, dtype=np.uint32)

    def longest_runs(self, replies: Sequence[str], *, part: int = PART) -> NDArray[np.int64]:
        """For each reply the most words in a row that also stand in a row in one training turn, (replies,).

        `part` words of the text are looked at together, and what a run that begins in them needs behind them.
        """
        numbered = [self._number(reply) for reply in replies]
        longest = np.zeros(len(replies), dtype=np.int64)
        for start in range(0, len(self._line), part):
            line = self._line[start : start + part + LONGEST_RUN - 1].astype(np.uint64)
            longest = np.maximum(longest, self._longest_in(line, numbered))
        return longest

    def _longest_in(self, line: NDArray[np.uint64], numbered: Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
        longest = np.zeros(len(numbered), dtype=np.int64)
        text = np.zeros(len(line), dtype=np.uint64)
        hashes = [np.zeros(len(reply), dtype=np.uint64) for reply in numbered]
        alive = [index for index, reply in enumerate(numbered) if len(reply)]
        for length in range(1, LONGEST_RUN + 1):
            text = _extend(text, line, length)
            for index in alive:
                hashes[index] = _extend(hashes[index], numbered[index], length)
            wanted = np.unique(np.concatenate([hashes[index] for index in alive])) if alive else text[:0]
            if not len(wanted) or not len(text):
                break
            # The few are looked for among the many by sorting the few.
            place = np.minimum(np.searchsorted(wanted, text), len(wanted) - 1)
            shared = np.unique(text[wanted[place] == text])
            alive = [index for index in alive if np.isin(hashes[index], shared).any()]
            longest[alive] = length
        return longest

    def _number(self, text: str) -> NDArray[np.uint64]:
        unknown = len(self._numbers) + 1
        words = words_of(text)
        return np.array([self._numbers.get(word, unknown + at) for at, word in enumerate(words)], dtype=np.uint64)


def _extend(hashes: NDArray[np.uint64], line: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """Hashes of the runs of `length` words from those one shorter: one entry fewer each time."""
    count = max(0, len(line) - length + 1)
    last = line[length - 1 :][:count]
    # A stop between turns gets a value of its own place, so that no run crosses it.
    stop = np.arange(count, dtype=np.uint64) + np.uint64(1 << 40)
    return (hashes[:count] * _FACTOR) ^ ((np.where(last == 0, stop, last) + np.uint64(1)) * _SPREAD)


def runs_of(line: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """Hashes of all runs of `length` words of a line of numbered words, 0 between turns; none crosses a 0 twice alike.

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
    """One try to make a model give away a turn it was trained on."""

    dialogue: int
    given: str
    """The half that went in."""
    said: str
    second: str
    """What followed in training."""

    @property
    def out(self) -> bool:
        """The second half came out, word for word."""
        wanted = words_of(self.second)
        return words_of(self.said)[: len(wanted)] == wanted


def extract(
    generator: ReplyGenerator, adapter: Adapter | None, dialogues: Sequence[Dialogue], *, tries: int, seed: int
) -> list[Extraction]:
    """Try `tries` long turns of Person2's, drawn at random: context and first half in, greedily continued."""
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
