"""Near-duplicates of dialogues: two fingerprints of each, and the ones that were seen lately.

Knows the words of a dialogue, nothing of where it comes from.
"""

from collections.abc import Sequence
from zlib import crc32

from core.dialogue import Dialogue

SEEN = 150_000
"""Fingerprints in each of two generations; a copy is usually near its original, and memory stays flat."""
SKETCH = 12
"""Shingle hashes at each end that make a fingerprint: with fewer than nine in ten in common, dialogues count as
different."""
SHORT = 16
"""Up to so many word triples, only identical words count as a copy: much short talk is alike."""
_A, _B, _MASK = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, (1 << 64) - 1
"""Large odd numbers, so that the order of three words counts and their hashes spread."""
FINGERPRINTED = 300
"""Words that are compared."""


def fingerprints(turns: Dialogue) -> tuple[int, int]:
    """Two hashes; dialogues that share one are nearly the same.

    The smallest and the largest hashes of word triples (Broder 1997): of two texts with 97 triples in 100 in common two
    times in three each agrees, with 80 in 100 one time in fifteen. Order hardly counts.
    """
    words = " ".join(turn.text for turn in turns).casefold().encode("utf-8", "surrogatepass").split()[:FINGERPRINTED]
    sums = [crc32(word) for word in words]
    first, second = [one * _A & _MASK for one in sums], [two * _B & _MASK for two in sums[1:]]
    triples = zip(first, second, sums[2:], strict=False)
    hashes = sorted({one ^ two ^ three for one, two, three in triples} or {crc32(b" ".join(words))})
    if len(hashes) <= SHORT:
        return _mix(hashes), _mix(hashes)
    return _mix(hashes[:SKETCH]), _mix(hashes[-SKETCH:]) ^ 1


def _mix(values: Sequence[int]) -> int:
    mixed = 14695981039346656037  # FNV-1a, 64 bits
    for value in values:
        mixed = ((mixed ^ value) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return mixed


class RecentFingerprints:
    """Two generations of fingerprints, so that memory is bounded and nothing recent is forgotten."""

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._old: set[int] = set()

    def contain(self, fingerprints: Sequence[int]) -> bool:
        """Whether a dialogue with one of these was seen; remembers them if not."""
        if any(mark in self._new or mark in self._old for mark in fingerprints):
            return True
        self._new.update(fingerprints)
        if len(self._new) >= SEEN:
            self._old, self._new = self._new, set()
        return False
