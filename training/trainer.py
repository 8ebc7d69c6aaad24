"""The Hugging Face trainer, looking at held-out replies exactly and sealing its checkpoints.

Its own evaluation averages batches; ours sums nats over every held-out reply and divides by its bytes.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from training import checkpoints
from training.base import inner
from training.dataset import Rows
from training.likelihood import sum_by_dialogue


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What is never trained on, ready to be scored."""

    rows: Rows
    dialogues: int
    bytes: int
    """UTF-8 bytes of its replies."""
    end: int
    """The end-of-text token."""


class ReplyTrainer(Trainer):
    """Trainer over packed rows with held-out reply bits per byte for its measure."""

    def __init__(self, *, held: HeldOut, steps_in_epoch: int, **others: Any) -> None:
        super().__init__(eval_dataset=held.rows, **others)
        self.held = held
        self.steps_in_epoch = steps_in_epoch

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Held-out loss (nats a token) and bits per byte; each process takes its share of the rows."""
        model = inner(self.accelerator.unwrap_model(self.model))
        share = Rows(self.held.rows.rows[self.args.process_index :: self.args.world_size], block=self.held.rows.block)
        with torch.no_grad():
            nats, tokens = sum_by_dialogue(
                model, share, dialogues=self.held.dialogues, end=self.held.end, bf16=self.args.bf16
            )
        sums = torch.tensor([nats.sum(), tokens.sum()], dtype=torch.float64, device=self.args.device)
        total, count = self.accelerator.reduce(sums, reduction="sum").tolist()
        metrics = {
            f"{metric_key_prefix}_loss": total / max(1.0, count),
            f"{metric_key_prefix}_bits_per_byte": total / math.log(2) / max(1, self.held.bytes),
        }
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The trainer's own checkpoint, then its seal, by the first process once all have written."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.seal(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")
