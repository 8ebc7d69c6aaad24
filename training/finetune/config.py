"""The settings of a training run, with their defaults. Knows numbers only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from core.adapters.validation import MAX_RANK
from core.errors import TrainingError
from core.generator.families import FAMILIES
from training.finetune.base import Precision

MAX_SEED = 2**32 - 1
"""NumPy's limit (numpy.random.seed)."""
RATE, RATE_WIDTH = 4e-3, 256
"""The best learning rate of the sweep in `benchmarks/README.md`, and the width of the base it was measured on."""

ACTIVATIONS = 1_000_000_000
"""Bytes of activations that a step keeps for its backward pass; on a CPU smaller micro-batches cost no time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """The settings of a run."""

    rank: int = 16
    """Rank of the LoRA matrices: the capacity of an adapter."""
    alpha: float = 32.0
    """LoRA's scale: updates are multiplied by alpha / rank."""
    dropout: float = 0.0
    """Dropout in front of the LoRA matrices. Off: early stopping guards against overfitting, and without dropout a step
    takes half the time (see `training.finetune.lora`)."""
    learning_rate: float | None = None
    """Peak learning rate, after the warm-up and before the cosine decay to 0; None: see `rate`."""
    warm_up: float = 0.05
    """Share of all steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """AdamW's decay of the LoRA matrices."""
    clip: float = 1.0
    """Maximum norm of the gradient."""
    epochs: float = 3.0
    """Times each dialogue is seen."""
    data_share: float = 1.0
    """Share of the training dialogues that is used, spread evenly over them; for learning curves."""
    block: int = 512
    """Tokens in a packed row, at most the base's context."""
    batch_tokens: int = 4_096
    """Tokens in an optimizer step, over all devices."""
    device_tokens: int | None = None
    """Tokens per device at a time; gradients are accumulated up to a step. None: see `tokens_at_once`."""
    evaluations: int = 4
    """Evaluations of the held-out loss per epoch."""
    patience: int = 4
    """Evaluations without improvement before training stops."""
    checkpoint_minutes: float = 5.0
    """Write a checkpoint at least this often, besides the one at each evaluation."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""
    precision: Precision = "auto"
    """`bf16`, `fp32`, or `auto`: bf16 where the hardware supports it natively."""
    seed: int = 17
    """Same seed, data, settings and machine: same adapter."""

    def __post_init__(self) -> None:
        for name in ("rank", "block", "batch_tokens", "device_tokens", "evaluations", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise TrainingError(f"{name} must be at least 1; it is {getattr(self, name)}.")
        for name in ("alpha", "learning_rate", "epochs", "checkpoint_minutes"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise TrainingError(f"{name} must be above 0; it is {getattr(self, name)}.")
        if self.rank > MAX_RANK:
            raise TrainingError(f"rank is at most {MAX_RANK:,}, wider than any base; it is {self.rank:,}.")
        if not 0 <= self.seed <= MAX_SEED:
            raise TrainingError(f"seed is a whole number from 0 to {MAX_SEED:,}; it is {self.seed:,}.")
        if self.precision not in get_args(Precision):
            raise TrainingError(f"precision is one of {', '.join(get_args(Precision))}, not {self.precision!r}.")
        if not 0 < self.data_share <= 1:
            raise TrainingError(f"data_share must be above 0 and at most 1; it is {self.data_share}.")
        if not 0 <= self.dropout < 1 or not 0 <= self.warm_up < 1:
            raise TrainingError("dropout and warm_up are shares, from 0 up to but not including 1.")

    def rate(self, width: int) -> float:
        """The peak learning rate for a base `width` wide: the one that is set, else the measured one in inverse
        proportion to the width (Yang et al. 2022, arXiv:2203.03466: Adam's best rate goes as 1 / width)."""
        return self.learning_rate if self.learning_rate is not None else RATE * RATE_WIDTH / width

    def tokens_at_once(self, config: Mapping[str, Any]) -> int:
        """Tokens per device at a time: the number that is set, else as many as keep activations within ACTIVATIONS.

        What a layer keeps per token for the backward pass, counted and measured (SmolLM2: 26 kB): norms and attention
        about 20 bytes per unit of width, the feed-forward network 8 bytes per unit of its own width.
        """
        if self.device_tokens is not None:
            return self.device_tokens
        family = FAMILIES[config["model_type"]]
        width = int(family.read(config, "hidden_size"))
        kept = 20 * width + 8 * int(family.read(config, "intermediate_size", 4 * width))
        fitting = ACTIVATIONS // (int(family.read(config, "num_hidden_layers")) * kept)
        return min(self.batch_tokens, max(self.block, fitting // self.block * self.block))
