"""Annotated logs as training examples: what the scorer is to choose from, and what annotators chose.

Knows logs and gold links; no torch. Used by `train` only.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.disentangler.recipe.irc import Log
from training.data.disentangle.columns import Floats, Ints, is_system, read
from training.data.disentangle.names import EDGES
from training.data.disentangle.pairs import PAIR, REACH, ConversationFeatures, between, candidates
from training.data.disentangle.scorer import OPTIONS
from training.data.disentangle.threads import THREAD, Guess, Threads
from training.data.disentangle.words import BUCKETS, MAX_CHARACTERS, Buckets, split

COMMON_WORD = 60
"""A word in so many of the 200,000 training messages, not counting logs where somebody bears it as a name, is common:
about 2,200 words."""
Halves = NDArray[np.float16]

LOOKS = 48
"""Candidates of the first pass that are learned from, the nearest; few messages have more."""


def weigh_words(logs: Iterable[Log]) -> tuple[Floats, NDArray[np.bool_]]:
    """`Scorer.telling` and `Scorer.common`."""
    buckets = Buckets()
    used, common = np.zeros(BUCKETS), np.zeros(BUCKETS)
    count = 0
    for log in logs:
        names = {message.author_name.lower() for message in log.messages}
        names |= {name.strip(EDGES) for name in names}
        for message in log.messages:
            if is_system(message):
                continue
            count += 1
            words = set(split(message.text[:MAX_CHARACTERS].lower()))
            used[list({buckets[word] for word in words})] += 1
            common[list({buckets[word] for word in words - names})] += 1
    return np.log(count / (used + 2)).astype(np.float32), common >= COMMON_WORD


@dataclass(frozen=True, slots=True)
class Examples:
    """Annotated messages of one log."""

    talk: ConversationFeatures
    row: Ints
    """(Q,)"""
    gold: Floats
    """(Q, REACH + 1): share of each distance among the gold links; distance 0 for a start. All 0 where the gold
    lies out of reach."""

    @classmethod
    def of(cls, log: Log, *, telling: Floats, common: NDArray[np.bool_], buckets: Buckets) -> "Examples":
        columns = read(log.messages, buckets=buckets, common=common)
        row_of = {line: row for row, line in enumerate(columns.line.tolist())}
        rows = [row_of[line] for line in log.gold if line in row_of]
        gold = np.zeros((len(rows), REACH + 1), np.float32)
        for index, row in enumerate(rows):
            answers = [row_of[line] for line in log.gold[int(columns.line[row])] if line in row_of]
            gold[index, [row - answer for answer in answers if row - answer <= REACH]] = 1
        gold /= np.maximum(gold.sum(axis=1, keepdims=True), 1)
        return cls(ConversationFeatures.of(columns, telling), np.array(rows, np.int32), gold)

    def first(self) -> tuple[Halves, Ints, Floats]:
        """(Q, LOOKS, PAIR) features, (Q, LOOKS) rows or -1 and (Q, LOOKS + 1) gold shares."""
        query, option = candidates(self.talk.columns, self.row)
        at = np.searchsorted(self.row, query)
        slot = np.searchsorted(query, self.row, side="right")[at] - 1 - np.arange(len(query))
        keep = slot < LOOKS
        query, option, at, slot = query[keep], option[keep], at[keep], slot[keep]
        features = np.zeros((len(self.row), LOOKS, PAIR), np.float16)
        features[at, slot] = between(self.talk, query, option).T
        rows = np.full((len(self.row), LOOKS), -1, np.int32)
        rows[at, slot] = option
        gold = np.zeros((len(self.row), LOOKS + 1), np.float32)
        gold[:, 0] = self.gold[:, 0]
        gold[at, slot + 1] = self.gold[at, query - option]
        return features, rows, gold

    def second(self, guess: Guess) -> tuple[Halves, Ints, Floats, Floats]:
        """(Q, OPTIONS, PAIR + THREAD) features, (Q, OPTIONS) rows or -1, (Q, OPTIONS + 1) gold shares, and
        (N, ·) message features."""
        threads = Threads(self.talk.columns, guess)
        option = guess.option[self.row]
        at, slot = np.nonzero(option >= 0)
        query, chosen = self.row[at], option[at, slot]
        features = np.zeros((*option.shape, PAIR + THREAD), np.float16)
        chance = guess.chance[query, slot + 1]
        features[at, slot] = np.concatenate(
            [between(self.talk, query, chosen), threads.between(query, chosen, chance, slot.astype(np.int32))]
        ).T
        gold = np.zeros((len(self.row), OPTIONS + 1), np.float32)
        gold[:, 0] = self.gold[:, 0]
        gold[at, slot + 1] = self.gold[at, query - chosen]
        return features, option, gold, np.concatenate([self.talk.message, threads.alone()], axis=1)
