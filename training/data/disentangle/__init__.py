"""Who answers whom in an interleaved channel.

`Disentangler` knows messages and their order and gives each the earlier message it answers. How it decides: `columns`
reads messages into numbers, `pairs` compares each with those before it, `scorer` makes a first guess, `threads` tells
what follows from it, and `scorer` decides. How the scorer was made and measured lies in `models/disentangler/`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.messages import Message
from training.data.disentangle.columns import AHEAD, Columns, Ints, read
from training.data.disentangle.pairs import REACH, ConversationFeatures
from training.data.disentangle.scorer import Scorer
from training.data.disentangle.threads import Guess, decode
from training.data.disentangle.words import Buckets

__all__ = ["Disentangler"]

BLOCK = 4096
"""Messages decided at once."""
BEHIND = 700
"""Messages before a block that are read again for context: enough for REACH and for who talks with whom."""
BEYOND = 2 * AHEAD
"""Messages after a block that are read before it is decided: what follows a message tells whom it answered."""

MONOLOGUE = 0.25
"""Outside IRC, what a link to one's own message counts. Of the reply links of the PyScript Discord, nearly three in a
hundred more are found with it, and in no channel of twenty links fewer; dialogues join a person's lines anyway."""


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

    def _blocks(self, messages: Iterable[Message]) -> Iterator["_DecidedBlock"]:
        held: list[Message] = []
        start = begin = 0
        for message in messages:
            held.append(message)
            if len(held) - begin == BLOCK + BEYOND:
                yield _DecidedBlock(held, start, begin, self._decide(held, begin, begin + BLOCK))
                begin += BLOCK
                cut = max(begin - BEHIND, 0)
                held = held[cut:]
                start, begin = start + cut, begin - cut
        yield _DecidedBlock(held, start, begin, self._decide(held, begin, len(held)))

    def _decide(self, held: list[Message], begin: int, end: int) -> list[int | None]:
        """For each of `held[begin:end]` the index in `held` of what it answers."""
        answers: list[int | None] = [None] * (end - begin)
        columns = read(held, buckets=self._buckets, common=self._scorer.common)
        rows = np.flatnonzero((columns.line >= begin) & (columns.line < end))
        if not len(rows):
            return answers
        talk = ConversationFeatures.of(columns, self._scorer.telling)
        rows_back = np.arange(len(columns), dtype=np.int32) - columns.known
        in_reach = np.where(rows_back <= REACH, columns.known, np.int32(-1))  # the second pass compares no further back
        guess = _with_known(self._scorer.guess(talk), in_reach)
        first = int(rows[0])
        guess = self._scorer.decide(talk, guess, first)
        if held[int(columns.line[first])].conversation.platform != "irc":
            guess = _in_paragraphs(guess, columns)
        guess = _with_known(guess, columns.known)
        for row, answer in enumerate(decode(guess, first, loyalty=self._scorer.loyalty)[: len(rows)], first):
            line = int(columns.line[row])
            if answer < row and (columns.known[row] >= 0 or held[line].reply_to is None):
                answers[line - begin] = int(columns.line[answer])
        return answers


@dataclass(frozen=True, slots=True)
class _DecidedBlock:
    """Messages decided together, with those before and after that were read for it."""

    held: list[Message]
    start: int
    """Index of `held[0]` in all messages."""
    begin: int
    """Index in `held` of the first one decided."""
    answers: list[int | None]
    """Indices in `held`, from `begin` on."""


def _in_paragraphs(guess: Guess, columns: Columns) -> Guess:
    """The guess for places where people write several messages on end as one: going on from oneself is then less often
    an answer than #ubuntu has taught."""
    own = (guess.option >= 0) & (columns.author[guess.option] == columns.author[:, None])
    chance = guess.chance.copy()
    chance[:, 1:] *= np.where(own, np.float32(MONOLOGUE), np.float32(1))
    return Guess(guess.option, chance)


def _with_known(guess: Guess, known: Ints) -> Guess:
    """The guess, certain where the platform says who answers whom."""
    rows = np.flatnonzero(known >= 0)
    if not len(rows):
        return guess
    option, chance = guess.option.copy(), guess.chance.copy()
    option[rows], chance[rows] = -1, 0.0
    option[rows, 0], chance[rows, 1] = known[rows], 1.0
    return Guess(option, chance)
