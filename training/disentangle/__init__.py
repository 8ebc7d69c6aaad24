"""Who answers whom in an interleaved channel.

`Disentangler` knows messages and their order and gives each the earlier message it answers. How it decides: `columns`
reads messages into numbers, `pairs` compares each with those before it, `scorer` makes a first guess, `threads` tells
what follows from it, and `scorer` decides. `train` makes the scorer again, `measure` scores it on annotated logs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.messages import Message
from training.disentangle.columns import AHEAD, Ints, read
from training.disentangle.pairs import Talk
from training.disentangle.scorer import Scorer
from training.disentangle.threads import Guess
from training.disentangle.words import Buckets

__all__ = ["Disentangler"]

BLOCK = 4096
"""Messages decided at once."""
BEHIND = 700
"""Messages before a block that are read again for context: enough for REACH and for who talks with whom."""
BEYOND = 2 * AHEAD
"""Messages after a block that are read before it is decided: what follows a message tells whom it answered."""


class Disentangler:
    """Links the messages of one channel, oldest first. Where the platform names the answer (`reply_to`), that stands;
    a message that answers one out of sight answers nobody here."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._buckets = Buckets()

    @classmethod
    def load(cls, path: Path | None = None) -> "Disentangler":
        """With the scorer at `path`, or the bundled one. Raises TrainingError when it cannot be read."""
        return cls(Scorer.load(path))

    def links(self, messages: Sequence[Message]) -> list[int | None]:
        """For each message the index of the one it answers; None where it starts a conversation or is no talk."""
        return [
            None if answer is None else block.start + answer
            for block in self._blocks(messages)
            for answer in block.answers
        ]

    def stream(self, messages: Iterable[Message]) -> Iterator[tuple[Message, Message | None]]:
        """The same as `links`, message by message, in flat memory: at most BEHIND + BLOCK + BEYOND are held, and the
        first comes out once so many were read."""
        for block in self._blocks(messages):
            for index, answer in enumerate(block.answers, block.begin):
                yield block.held[index], None if answer is None else block.held[answer]

    def _blocks(self, messages: Iterable[Message]) -> Iterator["_Block"]:
        held: list[Message] = []
        start = begin = 0
        for message in messages:
            held.append(message)
            if len(held) - begin == BLOCK + BEYOND:
                yield _Block(held, start, begin, self._decide(held, begin, begin + BLOCK))
                begin += BLOCK
                cut = max(begin - BEHIND, 0)
                held = held[cut:]
                start, begin = start + cut, begin - cut
        yield _Block(held, start, begin, self._decide(held, begin, len(held)))

    def _decide(self, held: list[Message], begin: int, end: int) -> list[int | None]:
        """For each of `held[begin:end]` the index in `held` of what it answers."""
        answers: list[int | None] = [None] * (end - begin)
        columns = read(held, buckets=self._buckets, common=self._scorer.common)
        rows = np.flatnonzero((columns.line >= begin) & (columns.line < end))
        if not len(rows):
            return answers
        talk = Talk.of(columns, self._scorer.telling)
        guess = _with_known(self._scorer.guess(talk), columns.known)
        chance = self._scorer.decide(talk, guess, int(rows[0]))
        for row, slot in zip(rows.tolist(), chance.argmax(axis=1).tolist(), strict=False):
            line, answer = int(columns.line[row]), int(columns.known[row])
            if answer < 0 and slot > 0 and held[line].reply_to is None:
                answer = int(guess.option[row, slot - 1])
            if answer >= 0:
                answers[line - begin] = int(columns.line[answer])
        return answers


@dataclass(frozen=True, slots=True)
class _Block:
    """Messages decided together, with those before and after that were read for it."""

    held: list[Message]
    start: int
    """Index of `held[0]` in all messages."""
    begin: int
    """Index in `held` of the first one decided."""
    answers: list[int | None]
    """Indices in `held`, from `begin` on."""


def _with_known(guess: Guess, known: Ints) -> Guess:
    """The guess, certain where the platform says who answers whom."""
    rows = np.flatnonzero(known >= 0)
    if not len(rows):
        return guess
    option, chance = guess.option.copy(), guess.chance.copy()
    option[rows], chance[rows] = -1, 0.0
    option[rows, 0], chance[rows, 1] = known[rows], 1.0
    return Guess(option, chance)
