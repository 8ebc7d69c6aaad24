"""Where one conversation ends and the next begins, read off the silences themselves.

Knows durations, no messages. People answer within minutes and come back after hours, so the logarithms of silences have
two hills; the valley between them is the gap. Where there is no valley, Otsu's threshold (1979), which parts a
distribution into the two most different halves, stands in.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

SHORTEST, LONGEST = timedelta(minutes=10), timedelta(hours=6)
"""Bounds of what is believed: shorter is a pause for thought, longer is another day."""
DEFAULT = timedelta(hours=1)
"""With too few silences to tell."""
ENOUGH = 200
STEPS = 4
"""Bins an octave."""
BINS = STEPS * 22
"""One second to 48 days."""
DEPTH = 0.9
"""A valley's floor is below this share of the lower of its two hills."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    length: timedelta
    how: str
    """`valley`, `threshold`, `default` or `given`."""


def bin_of(microseconds: int) -> int:
    """The bin of a silence; what is under a second or over 48 days is in the outermost."""
    seconds = microseconds / 1_000_000
    return 0 if seconds <= 1 else min(BINS - 1, int(STEPS * math.log2(seconds)))


def choose(histogram: Sequence[int]) -> Gap:
    """The gap for silences counted by `bin_of`."""
    if sum(histogram) < ENOUGH:
        return Gap(length=DEFAULT, how="default")
    smooth = _smooth(histogram)
    low, high = (bin_of(int(bound.total_seconds() * 1_000_000)) for bound in (SHORTEST, LONGEST))
    floor = min(range(low, high + 1), key=lambda at: (smooth[at], at))
    if smooth[floor] < DEPTH * min(max(smooth[:floor], default=0), max(smooth[floor + 1 :], default=0)):
        return Gap(length=_bounded(floor), how="valley")
    return Gap(length=_bounded(_otsu(histogram)), how="threshold")


def _smooth(histogram: Sequence[int]) -> list[float]:
    """Triangular, five bins wide."""
    weights = (1, 2, 3, 2, 1)
    padded = [0, 0, *histogram, 0, 0]
    return [sum(w * padded[at + k] for k, w in enumerate(weights)) / sum(weights) for at in range(len(histogram))]


def _otsu(histogram: Sequence[int]) -> int:
    total = sum(histogram)
    everything = sum(at * count for at, count in enumerate(histogram))
    below = weighted = 0
    best, place = -1.0, 0
    for at, count in enumerate(histogram):
        below += count
        weighted += at * count
        if 0 < below < total:
            apart = weighted / below - (everything - weighted) / (total - below)
            between = below * (total - below) * apart * apart
            if between > best:
                best, place = between, at
    return place


def _bounded(at: int) -> timedelta:
    """The middle of a bin, to the minute."""
    minutes = round(2 ** ((at + 0.5) / STEPS) / 60)
    return min(max(timedelta(minutes=minutes), SHORTEST), LONGEST)


def add(histograms: Iterable[Sequence[int]]) -> list[int]:
    total = [0] * BINS
    for histogram in histograms:
        for at, count in enumerate(histogram):
            total[at] += count
    return total
