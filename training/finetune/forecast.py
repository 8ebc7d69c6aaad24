"""What a training will take, said after its first steps: minutes of learning and of judging, and memory.

Knows arithmetic and the operating system's count of memory; trains nothing.
"""

import sys
from dataclasses import dataclass

import torch

STEPS = 3
"""Optimizer steps after which it is said: the first one compiles kernels and is slower than all others."""
READING = 1 / 3
"""Time of scoring a token, as a share of learning it: forward without backward."""
SHORTEST_JUDGING = 60.0
"""Seconds that judging may take however short the learning was."""


def judging_seconds(learning: float) -> float:
    """Most seconds that judging takes after so many of learning: half of them, and a minute at least."""
    return max(SHORTEST_JUDGING, learning / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Said once, early in a run."""

    learning: float
    """Seconds from the first step to the last, looks at the held-out loss included."""
    judging: float = 0.0
    """Seconds at most; 0 where judging is left out."""
    memory: int | None = None
    """Bytes held at most so far, which the next steps hardly exceed; None where the system does not say."""

    def __str__(self) -> str:
        parts = [f"{_minutes(self.learning)} of training"]
        if self.judging:
            parts.append(f"at most {_minutes(self.judging)} of evaluation")
        if self.memory is not None:
            parts.append(f"{self.memory / 1e9:.1f} GB of memory")
        return f"Forecast: {', '.join(parts)}."


def learning_seconds(*, step: float, steps: int, looks: int, step_tokens: float, held_tokens: int) -> float:
    """Seconds of a training of `steps` that take `step` seconds each, with `looks` at the held-out tokens."""
    return steps * step + looks * READING * step * held_tokens / max(1.0, step_tokens)


def peak_memory() -> int | None:
    """Bytes that this process held at most: the GPU's where there is one. None on Windows."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _minutes(seconds: float) -> str:
    return "under a minute" if seconds < 55 else f"{round(seconds / 60)} min"
