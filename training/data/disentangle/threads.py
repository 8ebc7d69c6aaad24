"""Features that follow from a first guess at all links: threads, their people, and who has been answered.

Knows the guess (a few likely antecedents a message, with probabilities) and the columns; everything is counted up to
the message in question, except a few features that look AHEAD. Vectorised over P pairs like `pairs`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.disentangle.columns import AHEAD, Columns, Floats, Ints

THREAD = 38
"""Rows of `Threads.between`."""


@dataclass(frozen=True, slots=True)
class Guess:
    """The likely antecedents of every message."""

    option: Ints
    """(N, T): rows, most likely first; -1 where there are fewer."""
    chance: Floats
    """(N, T + 1): probability of each, that of "answers nobody" in column 0."""

    def best(self) -> Ints:
        """(N,): the likeliest antecedent, the row itself for none."""
        count = len(self.option)
        row = np.arange(count, dtype=np.int32)
        at = self.chance.argmax(axis=1)
        return np.where(at == 0, row, self.option[row, np.maximum(at - 1, 0)]).astype(np.int32)


class _GroupedRows:
    """Rows grouped by a number; finds how many of a group come before a given row, and the last of them."""

    def __init__(self, group: NDArray[np.int64], row: Ints, rows: int) -> None:
        self._rows = rows + 1
        self._key = np.sort(group * self._rows + row)

    def count(self, group: NDArray[np.int64], before: Ints) -> Ints:
        """(P,): rows under `group` that come before `before`."""
        base = group * self._rows
        low = np.searchsorted(self._key, base)
        return (np.searchsorted(self._key, base + before) - low).astype(np.int32)

    def last(self, group: NDArray[np.int64], before: Ints) -> Ints:
        """(P,): the last row under `group` that comes before `before`; -1 for none."""
        base = group * self._rows
        if not len(self._key):
            return np.full(len(group), -1, np.int32)
        at = np.searchsorted(self._key, base + before) - 1
        found = self._key[np.maximum(at, 0)] - base
        return np.where((at >= 0) & (found >= 0), found, -1).astype(np.int32)


def roots(best: Ints) -> Ints:
    """(N,): the first message of each message's thread."""
    root = best.tolist()
    for row, parent in enumerate(root):
        root[row] = row if parent == row else root[parent]
    return np.array(root, np.int32)


def decode(guess: Guess, first_row: int, *, loyalty: float) -> list[int]:
    """For each row from `first_row` on the row it answers, itself for none; decided in order.

    A link is worth its own probability and `loyalty` times that of all links into the same thread: where several
    messages of one thread are likely, the thread is surer than any of them, and may outweigh "answers nobody".
    """
    root = list(range(first_row))
    for row, parent in enumerate(guess.best()[:first_row].tolist()):
        root[row] = root[parent] if parent < row else row
    answers: list[int] = []
    options, chances = guess.option[first_row:].tolist(), guess.chance[first_row:].tolist()
    for row, (option, chance) in enumerate(zip(options, chances, strict=True), first_row):
        threads = [root[parent] if parent >= 0 else -1 for parent in option]
        mass: dict[int, float] = {}
        for thread, share in zip(threads, chance[1:], strict=True):
            mass[thread] = mass.get(thread, 0.0) + share
        answer, worth = row, chance[0] * (1 + loyalty)
        for parent, thread, share in zip(option, threads, chance[1:], strict=True):
            if parent >= 0 and share + loyalty * mass[thread] > worth:
                answer, worth = parent, share + loyalty * mass[thread]
        root.append(row if answer == row else root[answer])
        answers.append(answer)
    return answers


class Threads:
    def __init__(self, columns: Columns, guess: Guess) -> None:
        count = len(columns)
        row = np.arange(count, dtype=np.int32)
        self._columns, self._guess = columns, guess
        self._best = best = guess.best()
        self._root = root = roots(best)
        self._people = people = int(columns.author.max(initial=0)) + 1
        author = columns.author.astype(np.int64)
        child = best != row
        self._thread = _GroupedRows(root.astype(np.int64), row, count)
        self._member = _GroupedRows(root.astype(np.int64) * people + author, row, count)
        self._child = _GroupedRows(best[child].astype(np.int64), row[child], count)
        self._child_of = _GroupedRows(best[child].astype(np.int64) * people + author[child], row[child], count)
        later, slot = np.nonzero((guess.option >= 0) & (row[:, None] - guess.option <= AHEAD))
        key = guess.option[later, slot].astype(np.int64) * people + author[later]
        self._answer_key, where = np.unique(key, return_inverse=True)
        self._answer = np.bincount(
            where, weights=guess.chance[later, slot + 1], minlength=len(self._answer_key)
        ).astype(np.float32)
        self._speaker = np.where(guess.option >= 0, columns.author[guess.option], -1)
        self._option_root = np.where(guess.option >= 0, root[guess.option], -1)

    def _answers(self, row: Ints, person: Ints) -> Floats:
        """(P,): how many answers to `row` are expected from `person` within AHEAD."""
        if not len(self._answer_key):
            return np.zeros(len(row), np.float32)
        key = row.astype(np.int64) * self._people + person
        at = np.minimum(np.searchsorted(self._answer_key, key), len(self._answer_key) - 1)
        return np.where(self._answer_key[at] == key, self._answer[at], 0.0).astype(np.float32)

    def _mass(self, row: Ints, values: Ints, wanted: Ints) -> Floats:
        """(P,): probability that `row` answers an option whose `values` (N, T) entry is `wanted`."""
        hit: Floats = (values[row] == wanted[:, None]) * self._guess.chance[row, 1:]
        total: Floats = hit.sum(axis=1)
        return total

    def between(self, query: Ints, option: Ints, chance: Floats, rank: Ints) -> Floats:
        """(THREAD, P): `option[p]` as an antecedent of `query[p]`, guessed before with `chance[p]` and `rank[p]`."""
        columns, guess = self._columns, self._guess
        asker, speaker = columns.author[query], columns.author[option]
        target = columns.targets[query, 0]
        root = self._root[option].astype(np.int64)
        group = option.astype(np.int64)
        last = self._thread.last(root, query)
        size = self._thread.count(root, query)
        mine = self._member.last(root * self._people + asker, query)
        theirs = np.where(target >= 0, self._member.last(root * self._people + np.maximum(target, 0), query), -1)
        children = self._child.count(group, query)
        by_me = self._child_of.count(group * self._people + asker, query)
        by_them = self._child_of.count(group * self._people + speaker, query)
        own, following = columns.before[query], columns.after[query]
        has_own = own >= 0
        own = np.maximum(own, 0)
        has_following = following - query <= AHEAD
        following = np.where(has_following, following, query)
        parent = self._best[option]
        is_start = parent == option
        replies_me = self._mass(option, self._speaker, asker)
        replies_target = np.where(target >= 0, self._mass(option, self._speaker, target), 0.0)
        none, option_none = guess.chance[query, 0], guess.chance[option, 0]
        same_thread = has_own & (self._root[own] == root)
        out = np.empty((THREAD, len(query)), np.float32)
        features = (
            np.log(chance + 1e-4),
            chance,
            rank == 0,
            np.log1p(rank),
            chance > none,
            none,
            np.log(none + 1e-4),
            option_none,
            is_start,
            last == option,
            np.log1p(query - last),
            np.log1p(size),
            mine >= 0,
            np.log1p(query - mine) * (mine >= 0),
            mine == last,
            mine > option,
            theirs >= 0,
            np.log1p(query - theirs) * (theirs >= 0),
            theirs == option,
            np.minimum(children, 3),
            np.minimum(by_me, 2),
            np.minimum(by_them, 2),
            (children - by_me - by_them) > 0,
            replies_me,
            replies_target,
            ~is_start & (columns.author[parent] == asker),
            ~is_start & (columns.author[parent] == target),
            ~is_start & (columns.author[parent] == speaker),
            columns.author[root] == asker,
            columns.author[root] == speaker,
            self._mass(query, self._option_root, self._root[option]),
            self._mass(query, self._speaker, speaker),
            same_thread,
            has_own & (self._best[own] == option),
            has_own * self._mass(own, self._speaker, speaker),
            self._answers(query, speaker),
            has_following * self._mass(following, guess.option, option),
            has_following * self._mass(following, self._option_root, self._root[option]),
        )
        for index, feature in enumerate(features):
            out[index] = feature
        return out

    def alone(self) -> Floats:
        """(N, 6): what the guess says about each message by itself."""
        chance = self._guess.chance
        row = np.arange(len(chance), dtype=np.int32)
        columns = self._columns
        following = columns.after
        has_following = following - row <= AHEAD
        following = np.where(has_following, following, row)
        ordered = np.sort(chance, axis=1)
        own = np.maximum(columns.before, 0)
        expected = np.zeros(len(row), np.float32)
        np.add.at(expected, (self._answer_key // self._people).astype(np.int64), self._answer)
        features = (
            np.log(chance[:, 0] + 1e-4),
            ordered[:, -1] - ordered[:, -2],
            (columns.before >= 0) * chance[own, 0],
            has_following * self._mass(following, self._guess.option, row),
            has_following * chance[following, 0],
            np.minimum(expected, 4),
        )
        return np.stack([np.asarray(feature, np.float32) for feature in features], axis=1)
