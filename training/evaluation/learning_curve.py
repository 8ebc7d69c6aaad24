"""Is there enough data? The same training on a quarter, a half and all of it, judged on the same held-out replies.

Where the curve still falls steeply at its end, more dialogues would help; where it is flat, they would not. Says so in
a sentence. Costs three quarters of a run more than the run itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.finetune.config import FinetuneConfig
from training.finetune.outcome import Outcome, Progress
from training.finetune.run import finetune

PARTS = (0.25, 0.5, 1.0)
STEEP = 0.01
"""More data is worth collecting if doubling it lowers the bits by at least this share."""
FLAT = 0.003


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """The score with a part of the data."""

    dialogues: int
    bits_per_byte: float
    """Of held-out replies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The curve, and what it says."""

    points: tuple[CurvePoint, ...]
    sentence: str
    outcome: Outcome
    """Of the run on all of the data: the adapter to use."""


def learning_curve(
    files: Sequence[Path],
    *,
    run: Path,
    settings: FinetuneConfig = FinetuneConfig(),
    on_progress: Callable[[Progress], None] | None = None,
    **others: Any,
) -> Advice:
    """Train on each part; the run on all of the data is in `run`, as if it were the only one.

    Takes what `finetune` takes, and raises what it raises.
    """
    points = []
    for part in PARTS:
        folder = run if part == 1.0 else run / f"part-{part:g}"
        outcome = finetune(
            files, run=folder, settings=replace(settings, data_share=part), on_progress=on_progress, **others
        )
        points.append(CurvePoint(dialogues=outcome.train_dialogues, bits_per_byte=outcome.after))
    return Advice(points=tuple(points), sentence=advise(points, outcome.before), outcome=outcome)


def advise(points: Sequence[CurvePoint], before: float) -> str:
    """The curve in a sentence. `before` is the score of the base."""
    half, everything = points[-2], points[-1]
    if everything.bits_per_byte >= before:
        return (
            f"All {everything.dialogues:,} dialogues together did not lower the held-out bits per byte "
            f"({before:.3f} before, {everything.bits_per_byte:.3f} after), so there is too little data, or the "
            "held-out dialogues are of a different kind."
        )
    fall = 1 - everything.bits_per_byte / half.bits_per_byte
    change = (
        f"going from {half.dialogues:,} to {everything.dialogues:,} dialogues lowered the held-out bits per byte by"
    )
    if fall >= STEEP:
        return (
            f"More dialogues would still help: {change} {fall:.1%}, and twice as many should give nearly as much again."
        )
    if fall >= FLAT:
        return f"There is nearly enough: {change} only {fall:.1%}, so twice as many would help a little."
    return f"There is enough: {change} {max(fall, 0.0):.1%}, so more of the same kind would hardly change anything."
