"""Features of a message and a possible antecedent, as numbers.

Knows columns, not links: features of earlier links are in `threads`. Everything is vectorised over P pairs and laid out
feature by feature, (F, P), so that each feature is one contiguous row and the scorer's first layer one product.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.disentangle.columns import AHEAD, FAR, Columns, Floats, Ints
from training.data.disentangle.names import MAX_TARGETS, Address
from training.data.disentangle.words import overlaps

REACH = 100
"""Messages looked back: 99 % of the training links, and what Kummerfeld et al. (ACL 2019) look at."""

CONTEXT = 24
"""Columns of `context`."""
PAIR = 55
"""Rows of `between`."""
NEAR = 15
"""So many of the latest messages may be answered by anybody; those before only where the two share people. That leaves
27 of 100 pairs and 99.6 % of the training links within REACH."""


def _log(values: NDArray[np.generic], cap: float = 200.0) -> Floats:
    return np.log1p(np.clip(values.astype(np.float32), 0, cap))


def context(columns: Columns) -> Floats:
    """(N, CONTEXT): features of each message among those around it."""
    count = len(columns)
    row = np.arange(count, dtype=np.int32)
    before, after, called = columns.before, columns.after, columns.called_at
    safe = np.maximum(before, 0)
    has_before = before >= 0
    has_after = after - row <= AHEAD
    has_called = called >= 0
    answered = columns.answered_at - row <= AHEAD
    following = np.where(has_after, after, row)
    minute = columns.minute
    span = minute - minute[np.maximum(row - 30, 0)] if count else minute
    pace = np.log((np.minimum(row, 30) + 1.0) / (span + 1.0))
    question = columns.shape[:, _QUESTION] if count else minute
    named = columns.address == Address.NAMED
    previous_same = np.zeros(count, bool)
    previous_same[1:] = columns.author[1:] == columns.author[:-1]
    features = (
        has_before,
        _log(row - before) * has_before,
        _log(minute - minute[safe]) * has_before if count else minute,
        (minute - minute[safe] < 1) & has_before if count else has_before,
        has_before & (row - before == 1),
        has_before & (row - before == 2),
        question[safe] * has_before if count else minute,
        named[safe] & has_before if count else has_before,
        (columns.address[safe] == Address.NOBODY) & has_before if count else has_before,
        has_called,
        _log(row - called) * has_called,
        has_called & (called > before),
        _log(minute - minute[np.maximum(called, 0)]) * has_called if count else minute,
        has_after,
        _log(after - row, AHEAD) * has_after,
        has_after & (after - row == 1),
        named[following] & has_after if count else has_after,
        answered,
        _log(columns.answered_at - row, AHEAD) * answered,
        pace,
        columns.target_at >= 0,
        _log(row - columns.target_at) * (columns.target_at >= 0),
        previous_same,
        columns.targets[:, 0] == columns.last_called,
    )
    return np.stack([np.asarray(feature, np.float32) for feature in features], axis=1)


_QUESTION = -17
"""Column of `Columns.shape` that says whether there is a question mark."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Who named whom, and when: sorted so that the last time before a given message is one binary search."""

    key: NDArray[np.int64]
    people: int
    rows: int

    @classmethod
    def of(cls, columns: Columns) -> "Calls":
        people = int(columns.author.max(initial=0)) + 1
        rows = len(columns) + 1
        row, slot = np.nonzero(columns.targets >= 0)
        pair = columns.author[row].astype(np.int64) * people + columns.targets[row, slot]
        return cls(np.sort(pair * rows + row), people, rows)

    def last(self, caller: Ints, callee: Ints, before: Ints) -> Ints:
        """(P,): the last row before `before` in which `caller` named `callee`; -FAR for none."""
        base = (caller.astype(np.int64) * self.people + callee) * self.rows
        if not len(self.key):
            return np.full(len(base), -FAR, np.int32)
        at = np.searchsorted(self.key, base + before) - 1
        found = self.key[np.maximum(at, 0)] - base
        return np.where((at >= 0) & (found >= 0), found, -FAR).astype(np.int32)

    def next(self, caller: Ints, callee: Ints, after: Ints) -> Ints:
        """(P,): the first row after `after` in which `caller` names `callee`; FAR for none."""
        base = (caller.astype(np.int64) * self.people + callee) * self.rows
        if not len(self.key):
            return np.full(len(base), FAR, np.int32)
        at = np.searchsorted(self.key, base + after, side="right")
        found = self.key[np.minimum(at, len(self.key) - 1)] - base
        return np.where((at < len(self.key)) & (found < self.rows), found, FAR).astype(np.int32)


@dataclass(frozen=True, slots=True)
class ConversationFeatures:
    """Columns with what is computed once for all pairs."""

    columns: Columns
    calls: Calls
    shared: Floats
    """(N, REACH): summed weight of the words shared with the message so many rows before."""
    rarest: Floats
    """(N, REACH): the weightiest of them."""
    weight: Floats
    """(N,): summed weight of all words."""
    message: Floats
    """(N, SHAPES + CONTEXT)"""

    @classmethod
    def of(cls, columns: Columns, telling: Floats) -> "ConversationFeatures":
        shared, rarest = overlaps(columns.bags, telling, reach=REACH)
        start = columns.bags.start
        running = np.concatenate([[0.0], np.cumsum(telling[columns.bags.bucket], dtype=np.float64)])
        weight = (running[start[1:]] - running[start[:-1]]).astype(np.float32)
        message = np.concatenate([columns.shape, context(columns)], axis=1)
        return cls(columns, Calls.of(columns), shared, rarest, weight, message)


def candidates(columns: Columns, rows: Ints) -> tuple[Ints, Ints]:
    """The pairs worth a look, as (P,) rows and (P,) earlier rows, in the order of `rows`, the nearest last."""
    steps: Ints = np.arange(REACH, 0, -1, dtype=np.int32)
    reached = rows[:, None] - steps
    option = np.maximum(reached, 0)
    asker, speaker = columns.author[rows][:, None], columns.author[option]
    related = speaker == asker
    for slot in range(MAX_TARGETS):
        target = columns.targets[rows, slot][:, None]
        named = columns.targets[:, slot][option]
        related |= target == speaker
        related |= named == asker
        if slot == 0:
            related |= (target == named) & (target >= 0)
    related[:, REACH - NEAR :] = True
    related &= reached >= 0
    at, column = np.nonzero(related)
    return rows[at], option[at, column]


def between(talk: ConversationFeatures, query: Ints, option: Ints) -> Floats:
    """(PAIR, P): message `query[p]` beside its possible antecedent `option[p]`, an earlier row within REACH."""
    columns = talk.columns
    distance = query - option
    asker, speaker = columns.author[query], columns.author[option]
    minute = columns.minute[query] - columns.minute[option]
    query_targets, option_targets = columns.targets[query], columns.targets[option]
    names = (query_targets == speaker[:, None]).any(axis=1)
    names_first = query_targets[:, 0] == speaker
    named = (option_targets == asker[:, None]).any(axis=1)
    named_first = option_targets[:, 0] == asker
    query_calls, option_calls = query_targets[:, 0] >= 0, option_targets[:, 0] >= 0
    same = asker == speaker
    shares = query_calls & option_calls & (query_targets[:, 0] == option_targets[:, 0])
    own, called = columns.before[query], columns.called_at[query]
    is_own, is_call = own == option, called == option
    next_of_speaker = columns.after[option]
    last_of_speaker = next_of_speaker >= query
    second = columns.after[np.minimum(next_of_speaker, len(columns) - 1)]
    asker_quiet = own <= option
    calls = talk.calls
    to_last = calls.last(asker, speaker, query)
    from_last = calls.last(speaker, asker, query)
    to_next = calls.next(asker, speaker, query) - query
    from_next = calls.next(speaker, asker, query) - query
    answered = columns.answered_at[option]
    shared = talk.shared[query, distance - 1]
    rarest = talk.rarest[query, distance - 1]
    norm = np.sqrt(talk.weight[query] * talk.weight[option]) + 1.0
    known = columns.last_called[query]
    out = np.empty((PAIR, len(query)), np.float32)
    features = (
        _log(distance, REACH),
        1.0 / distance,
        distance == 1,
        distance == 2,
        distance == 3,
        distance <= 5,
        distance / REACH,
        _log(minute, 600),
        minute < 1,
        minute < 2,
        minute < 4,
        minute < 10,
        same,
        names,
        names_first,
        named,
        named_first,
        query_calls & ~names,
        option_calls & ~named,
        ~query_calls & named,
        ~query_calls & ~option_calls,
        ~query_calls & ~option_calls & same,
        shares,
        shares & same,
        is_own,
        is_own & (distance == 1),
        is_call,
        is_call & asker_quiet,
        last_of_speaker,
        last_of_speaker & names,
        (second >= query) & ~last_of_speaker,
        asker_quiet,
        to_last >= 0,
        to_last > option,
        _log(query - to_last) * (to_last >= 0),
        from_last >= 0,
        from_last > option,
        (from_last == option) & ~named_first,
        _log(query - from_last) * (from_last >= 0),
        to_next <= AHEAD,
        from_next <= AHEAD,
        (to_next <= 10) | (from_next <= 10),
        answered < query,
        ~same & (answered >= query),
        (known == speaker) & (known >= 0),
        (known == speaker) & (known >= 0) & last_of_speaker & ~query_calls,
        columns.last_caller[query] == speaker,
        columns.last_called[option] == asker,
        (columns.last_called[option] == query_targets[:, 0]) & query_calls,
        next_of_speaker == option + 1,
        columns.before[option] == option - 1,
        shared,
        shared / norm,
        rarest,
        shared > 0,
    )
    for index, feature in enumerate(features):
        out[index] = feature
    return out
