"""A forecast after the first steps of a training: minutes of training and of evaluation, and memory.

Knows arithmetic and the operating system's count of memory; trains nothing.
"""

import sys
from dataclasses import dataclass

import torch

STEPS = 3
"""Optimizer steps after which the forecast is made: the first one compiles kernels and is the slowest."""
READING = 1 / 3
"""Time of scoring a token, as a share of learning it: forward without backward."""
SHORTEST_EVALUATION = 60.0
"""Seconds that the evaluation may take however short the training was."""


def evaluation_seconds(learning: float) -> float:
    """The most seconds that the evaluation takes after so many of training: half of them, and at least a minute."""
    return max(SHORTEST_EVALUATION, learning / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Made once, early in a run."""

    learning: float
    """Seconds from the first step to the last, evaluations of the held-out loss included."""
    evaluation: float = 0.0
    """Seconds at most; 0 where the evaluation is skipped."""
    memory: int | None = None
    """Peak bytes so far, which later steps hardly exceed; None where the system does not say."""

    def __str__(self) -> str:
        parts = [f"{_minutes(self.learning)} of training"]
        if self.evaluation:
            parts.append(f"at most {_minutes(self.evaluation)} of evaluation")
        if self.memory is not None:
            parts.append(f"{self.memory / 1e9:.1f} GB of memory")
        return f"Forecast: {', '.join(parts)}."


def learning_seconds(*, step: float, steps: int, evaluations: int, step_tokens: float, held_tokens: int) -> float:
    """Seconds of a training of `steps` that take `step` seconds each, with so many `evaluations` of the held-out
    tokens."""
    return steps * step + evaluations * READING * step * held_tokens / max(1.0, step_tokens)


def peak_memory() -> int | None:
    """Peak bytes of this process: the GPU's where there is one. None on Windows."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _minutes(seconds: float) -> str:
    return "under a minute" if seconds < 55 else f"{round(seconds / 60)} min"
