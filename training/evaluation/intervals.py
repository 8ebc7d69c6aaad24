"""Bootstrap intervals: how far a figure would move had other dialogues been held out.

Percentile bootstrap (Efron 1979, doi:10.1214/aos/1176344552) over whole dialogues, because replies in one dialogue are
not independent. Knows numbers only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 1_000
SHARE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A score and the interval it lies in, 19 times out of 20."""

    value: float
    low: float
    high: float
    count: int
    """Dialogues, contexts or replies it was taken over."""

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


def bootstrap(measure: Callable[[NDArray[np.int64]], float], count: int, *, seed: int = 0) -> Figure:
    """`measure` takes indices into `count` things, (count,) int64, and gives the figure over those."""
    everything = np.arange(count, dtype=np.int64)
    if not count:
        return Figure(value=float("nan"), low=float("nan"), high=float("nan"), count=0)
    random = np.random.default_rng(seed)
    draws = [measure(random.integers(0, count, count)) for _ in range(DRAWS)]
    low, high = np.quantile(draws, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Figure(value=measure(everything), low=float(low), high=float(high), count=count)


def ratio(top: NDArray[np.float64], bottom: NDArray[Any], *, scale: float = 1.0, seed: int = 0) -> Figure:
    """`scale` · Σ top / Σ bottom, drawn over the entries, (count,) each."""
    return bootstrap(lambda at: float(scale * top[at].sum() / max(1e-12, bottom[at].sum())), len(top), seed=seed)


def share(count: int, total: int, *, looks: int = 1) -> tuple[float, float]:
    """The interval of a share, 19 times out of 20 (Wilson 1927, doi:10.1080/01621459.1927.10502953): it also works for
    few observations, where the bootstrap of equal answers has no width. `looks` as in `quantile`."""
    if not total:
        return 0.0, 1.0
    z = quantile(looks)
    found = count / total
    middle = (found + z * z / (2 * total)) / (1 + z * z / total)
    reach = z / (1 + z * z / total) * math.sqrt(found * (1 - found) / total + z * z / (4 * total * total))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def paired(wins: int, losses: int, total: int, *, looks: int = 1) -> tuple[float, float]:
    """The interval of how much more often one succeeds than another at the same `total` tasks, of which the first alone
    solved `wins` and the second alone `losses` (Agresti and Min 2005, doi:10.1002/sim.1781). It has a width even where
    both always agreed. `looks` as in `quantile`."""
    total += 2
    gap = (wins - losses) / total
    reach = quantile(looks) * math.sqrt(wins + losses + 1 - total * gap * gap) / total
    return max(-1.0, gap - reach), min(1.0, gap + reach)


def quantile(looks: int) -> float:
    """Standard deviations within which a figure lies 19 times out of 20 over so many looks at growing data, each of
    which may be the last: the error is divided among them (Bonferroni)."""
    return NormalDist().inv_cdf(1 - (1 - SHARE) / 2 / looks)


def mean(values: NDArray[np.float64], *, seed: int = 0) -> Figure:
    """The mean, drawn over the entries, (count,)."""
    return bootstrap(lambda at: float(values[at].mean()), len(values), seed=seed)


def difference(measure: Callable[[NDArray[np.int64]], tuple[float, float]], count: int, *, seed: int = 0) -> Figure:
    """Second figure less the first, both over the same draws: paired, so that a hard dialogue is hard for both."""

    def less(at: NDArray[np.int64]) -> float:
        first, second = measure(at)
        return second - first

    return bootstrap(less, count, seed=seed)
