"""How long to train, and how fast to learn at each moment: pure arithmetic, no clock.

The rate is a function of progress, 0 to 1. With a budget of steps or tokens progress is exact and a run can be repeated
to the bit; with a budget of time it follows the time spent, so the cool-down begins at the same share on any machine.
"""

import math
from dataclasses import dataclass
from enum import StrEnum


class ScheduleKind(StrEnum):
    TRAPEZOID = "trapezoid"
    """Warm up, hold, cool down in a straight line (Hägele et al. 2024, arXiv:2405.18392): may end earlier or later than
    planned, because only the cool-down depends on the end."""

    COSINE = "cosine"
    """Warm up, then half a cosine down to 0 (Loshchilov & Hutter 2017, arXiv:1608.03983)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When to stop: after so many steps, or so many seconds of training (pauses between sessions do not count)."""

    steps: int | None = None
    seconds: float | None = None

    def progress(self, *, step: int, seconds: float) -> float:
        """0 at the start, 1 when the budget is spent."""
        if self.steps is not None:
            return min(1.0, step / max(1, self.steps))
        return min(1.0, seconds / max(1e-9, self.seconds or 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    shape: ScheduleKind = ScheduleKind.TRAPEZOID
    warmup_steps: int = 100
    cool_fraction: float = 0.3
    """The last part of the budget: the rate falls, and the cool-down corpora, if any, are read."""

    def cooling(self, progress: float) -> bool:
        return progress >= 1.0 - self.cool_fraction

    def factor(self, *, step: int, progress: float) -> float:
        """What the peak rate is multiplied by at this step (counted from 0)."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.shape is ScheduleKind.COSINE:
            return warm * 0.5 * (1.0 + math.cos(math.pi * progress))
        return warm * min(1.0, (1.0 - progress) / max(1e-9, self.cool_fraction))
