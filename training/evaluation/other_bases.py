"""Is there a better base on this machine for this talk? Measured on a few held-out dialogues before training.

Knows scoring and time; which bases there are is passed in.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from core.dialogue import Dialogue
from core.errors import Person2Error
from training.evaluation.intervals import difference
from training.evaluation.likelihood import Likelihood, likelihood
from training.finetune.base import load_base, wants_bf16
from training.finetune.encoder import Encoder, Targets
from training.finetune.model import MaskedLossModel

DIALOGUES = 60
"""The most held-out dialogues that are scored."""
FEWEST = 5
"""With fewer nothing is said."""
SECONDS = 20.0
"""Time for each base, loading it left out."""
AT_ONCE = 4
"""Dialogues between two looks at the clock."""


def better_base(
    chosen: str,
    model: MaskedLossModel,
    encoder: Encoder,
    held_out: Sequence[Dialogue],
    others: Mapping[str, str],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """A sentence about the best base of `others` (name → folder) that predicts the held-out replies significantly
    better than `chosen`; empty where none does.

    Bases that cannot be loaded are skipped. Each scores as many dialogues as there is time for.
    """
    few = held_out[:: max(1, len(held_out) // DIALOGUES)][:DIALOGUES]
    if len(few) < FEWEST or not others:
        return ""
    ours = _scored(model, encoder, few, clock)
    best, least = "", 0.0
    for name, folder in others.items():
        try:
            other, tokenizer = load_base(folder, halve=wants_bf16("auto"))
        except Person2Error:
            continue
        theirs = _scored(other, Encoder(tokenizer), few[: len(ours.nats)], clock)
        count = len(theirs.nats)
        before, after = (one.nats[:count].sum() / np.log(2) / max(1, one.size[:count].sum()) for one in (ours, theirs))

        def both(at: NDArray[np.int64], theirs: Likelihood = theirs) -> tuple[float, float]:
            size = max(1, int(theirs.size[at].sum()))
            return float(ours.nats[at].sum() / size), float(theirs.nats[at].sum() / size)

        gap = difference(both, count)
        if gap.high < 0 and gap.value < least:
            least = gap.value
            best = (
                f"The base {name}, which is on this machine, predicts these dialogues better even without training: "
                f"{after:.2f} against {chosen}'s {before:.2f} bits per byte of replies in {count} held-out dialogues. "
                f"Use --base {name} to train on it."
            )
        del other
    return best


def _scored(
    model: MaskedLossModel, encoder: Encoder, dialogues: Sequence[Dialogue], clock: Callable[[], float]
) -> Likelihood:
    """As many dialogues as there is time for."""
    began, parts = clock(), list[Likelihood]()
    for at in range(0, len(dialogues), AT_ONCE):
        if at and clock() - began > SECONDS:
            break
        few = dialogues[at : at + AT_ONCE]
        parts.append(likelihood(model, encoder, few, targets=Targets.REPLIES, bf16=wants_bf16("auto", model.device)))
    return Likelihood.joined(parts)
