"""Words as numbers: which words a message has, how informative each is, and which messages share informative words.

Knows no people and no time. A word is known by a hash, so that the scorer ships a table of numbers and no vocabulary.
"""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BUCKETS = 1 << 14
"""Hash buckets of words. The training logs have about 9,000 words that occur three times or more."""
MAX_WORDS = 48
"""Words read of one message; the rest of a pasted page says nothing about whom it answers."""
MAX_CHARACTERS = 600
"""Characters read of one message, so that a message of a million characters costs no more than a long one."""

_WORD = re.compile(r"[^\W_]+(?:['./+_-][^\W_]+)*|[?!]+|[:;=]-?[)(dp]")
_CACHE = 200_000
"""Words whose bucket is cached; the cache is emptied when full, so memory stays flat on endless talk."""


def split(lowered: str) -> list[str]:
    """The words of a message already in lower case and cut to MAX_CHARACTERS, in order."""
    return _WORD.findall(lowered)[:MAX_WORDS]


class Buckets(dict[str, int]):
    """word → bucket, computed once."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _CACHE:
            self.clear()
        plain = word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word
        bucket = self[word] = zlib.crc32(plain.encode("utf-8", "replace")) % BUCKETS
        return bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class Bags:
    """The distinct words of every message, rows one after another."""

    start: NDArray[np.int64]
    """(N + 1,): message i has the words `bucket[start[i]:start[i + 1]]`."""
    bucket: NDArray[np.int32]
    """(W,)"""

    @classmethod
    def of(cls, rows: Iterable[list[int]]) -> "Bags":
        start = [0]
        flat: list[int] = []
        for row in rows:
            flat.extend(dict.fromkeys(row))
            start.append(len(flat))
        return cls(start=np.array(start, np.int64), bucket=np.array(flat, np.int32))

    @property
    def owner(self) -> NDArray[np.int32]:
        """(W,): the message of each word."""
        return np.repeat(np.arange(len(self.start) - 1, dtype=np.int32), np.diff(self.start))


def overlaps(
    bags: Bags, telling: NDArray[np.float32], *, reach: int, repeats: int = 8, least: float = 2.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Per message and distance: how much two messages share, as sums and maxima of `telling` (BUCKETS,).

    Both are (N, reach): column d - 1 compares message i with message i - d. Words with a weight under `least` are left
    out, and of a word said often only its `repeats` latest uses are compared: common words carry no information.
    """
    count = len(bags.start) - 1
    total = np.zeros(count * reach, np.float32)
    most = np.zeros(count * reach, np.float32)
    keep = telling[bags.bucket] >= least
    bucket, owner = bags.bucket[keep], bags.owner[keep]
    order = np.lexsort((owner, bucket))
    bucket, owner = bucket[order], owner[order]
    for step in range(1, repeats + 1):
        if step >= len(bucket):
            break
        distance = owner[step:] - owner[:-step]
        near = (bucket[step:] == bucket[:-step]) & (distance <= reach) & (distance > 0)
        if not near.any():
            break
        cell = owner[step:][near].astype(np.int64) * reach + distance[near] - 1
        weight = telling[bucket[step:][near]]
        total += np.bincount(cell, weights=weight, minlength=len(total)).astype(np.float32)
        np.maximum.at(most, cell, weight)
    return total.reshape(count, reach), most.reshape(count, reach)
