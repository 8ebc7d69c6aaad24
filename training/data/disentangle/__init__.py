"""Who answers whom in an interleaved channel.

`Disentangler` knows messages and their order, and says for each which earlier message it answers. `columns` turns
messages into numbers, `pairs` compares each with those before it, `scorer` makes a first guess, `threads` derives
features of whole threads from that, and `scorer` decides. `models/disentangler/` says how the scorer was made.
"""

from collections.abc import Sequence
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
"""Messages before a block that are read again for context: enough for REACH and for who talks to whom."""
BEYOND = 2 * AHEAD
"""Messages after a block that are read before it is decided: what follows a message tells whom it answered."""

MONOLOGUE = 0.25
"""Outside IRC, the weight of a link to one's own message. It finds nearly three in a hundred more of the reply links of
the PyScript Discord, and fewer in none of its channels with twenty links; dialogues join a person's lines anyway."""


class Disentangler:
    """Links the messages of one channel, oldest first. Reply links of the platform (`reply_to`) are kept; a message
    that replies to one out of sight answers nobody here."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._buckets = Buckets()

    @classmethod
    def load(cls, path: Path | None = None) -> "Disentangler":
        """With the scorer at `path`, or the bundled one. Raises TrainingError when it cannot be read."""
        return cls(Scorer.load(path))

    def links(self, messages: Sequence[Message]) -> list[int | None]:
        """For each message the index of the one it answers; None where it starts a conversation or is not talk."""
        answers: list[int | None] = []
        while len(answers) < len(messages):
            begin, start = len(answers), max(len(answers) - BEHIND, 0)
            is_last = len(messages) - begin < BLOCK + BEYOND
            held = messages[start:] if is_last else messages[start : begin + BLOCK + BEYOND]
            end = len(messages) if is_last else begin + BLOCK
            found = self._decide(held, begin - start, end - start)
            answers += [None if answer is None else start + answer for answer in found]
        return answers

    def _decide(self, held: Sequence[Message], begin: int, end: int) -> list[int | None]:
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


def _in_paragraphs(guess: Guess, columns: Columns) -> Guess:
    """The guess for platforms on which people write several messages in a row as one: a link to one's own message is
    then rarer than the scorer learned on #ubuntu."""
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
