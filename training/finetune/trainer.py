"""The Hugging Face trainer with an exact evaluation on held-out replies and checksums for its checkpoints.

Its own evaluation averages batches; ours sums nats over every held-out reply and divides by its bytes.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState

from training.evaluation.likelihood import byte_counts, sum_by_dialogue
from training.finetune import checkpoints, forecast
from training.finetune.base import device, inner, wants_bf16
from training.finetune.config import FinetuneConfig
from training.finetune.corpus import Corpus
from training.finetune.dataset import IGNORE, Batch, Row, Rows, collate, encode_rows
from training.finetune.encoder import Encoder, Targets
from training.finetune.outcome import Progress
from training.finetune.packed import SIZES
from training.finetune.preferences import PreferenceLoss
from training.finetune.tracking import LogTo

CURVE_POINTS = 200
"""The most points of the loss curve that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutRows:
    """What is never trained on, ready to be scored."""

    rows: Rows
    dialogues: int
    bytes: int
    """UTF-8 bytes of its replies."""
    end: int
    """The end-of-text token."""


class ReplyTrainer(Trainer):
    """Trainer over packed rows, evaluated by held-out reply bits per byte."""

    def __init__(
        self,
        *,
        held: HeldOutRows,
        steps_in_epoch: int,
        patience: int,
        preferences: PreferenceLoss | None,
        **others: Any,
    ) -> None:
        super().__init__(eval_dataset=held.rows, **others)
        self._preferences = preferences
        self._part = (0, 0)  # the optimizer step, and how many of its micro-batches have begun
        self.add_callback(EarlyStoppingCallback(early_stopping_patience=patience))
        self.held = held
        self.steps_in_epoch = steps_in_epoch
        self.patience = patience

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Held-out loss (nats a token) and bits per byte; each process takes its share of the rows."""
        model = inner(self.accelerator.unwrap_model(self.model))
        share = self.held.rows.part(self.args.process_index, self.args.world_size)
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

    def compute_loss(self, model: Any, inputs: Any, *others: Any, **named: Any) -> Any:
        """The loss of replies, and beside it that of preferences, where there are some."""
        loss: Any = super().compute_loss(model, inputs, *others, **named)
        if self._preferences is None:
            return loss
        step, part = self._part if self._part[0] == self.state.global_step else (self.state.global_step, 0)
        self._part = (step, part + 1)
        return loss + self._preferences.loss(
            inner(self.accelerator.unwrap_model(model)),
            step=step,
            part=part,
            parts=self.args.gradient_accumulation_steps,
        )

    def go_on(self, checkpoint: Path | None) -> float:
        """Train to the end, from a checkpoint where there is one; gives the seconds of it in all processes of the run.

        Where the checkpoint is of a run that had stopped early (and was killed later, during the evaluation), nothing
        is trained any more: the trainer alone would forget that it had stopped.
        """
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)) if checkpoint else TrainerState()
        saved: Any = state.stateful_callbacks or {}
        looks = saved.get(EarlyStoppingCallback.__name__)
        if looks and looks["attributes"]["early_stopping_patience_counter"] >= self.patience:
            self.state = state
            self._load_best_model()
            return float(saved[_Stopwatch.__name__]["args"]["before"]) if _Stopwatch.__name__ in saved else 0.0
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return next(one.seconds for one in self.callback_handler.callbacks if isinstance(one, _Stopwatch))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The trainer's own checkpoint, then its checksums, by the first process once all have written."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.write_checksums(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")


def make_trainer(
    peft: PeftModel,
    encoder: Encoder,
    rows: Rows,
    held: Corpus,
    *,
    run: Path,
    settings: FinetuneConfig,
    log_to: LogTo,
    preferences: PreferenceLoss | None,
    on_progress: Callable[[Progress], None] | None,
) -> ReplyTrainer:
    bf16 = wants_bf16(settings.precision)
    batch = max(1, min(settings.device_tokens or settings.batch_tokens, settings.batch_tokens) // settings.block)
    held_rows = encode_rows(held.dialogues, encoder, block=settings.block, seed=0)
    arguments = TrainingArguments(
        output_dir=str(run),
        per_device_train_batch_size=batch,
        num_train_epochs=settings.epochs,
        learning_rate=settings.rate(inner(peft).config.hidden_size),
        lr_scheduler_type="cosine",
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        bf16=bf16,
        use_cpu=device().type == "cpu",
        seed=settings.seed,
        gradient_checkpointing=settings.gradient_checkpointing or None,
        gradient_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        remove_unused_columns=False,  # rows are tuples and have no columns
        dataloader_pin_memory=False,
        eval_strategy="steps",
        save_strategy="steps",
        save_total_limit=checkpoints.KEPT,
        load_best_model_at_end=True,
        metric_for_best_model="bits_per_byte",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        disable_tqdm=True,
        report_to=log_to,
        run_name=run.name,
        log_level="error",
    )
    steps_in_epoch = math.ceil(len(rows) / batch / arguments.world_size)
    accumulate = max(1, round(settings.batch_tokens / (batch * settings.block * arguments.world_size)))
    accumulate = min(accumulate, steps_in_epoch)
    steps_in_epoch = math.ceil(steps_in_epoch / accumulate)
    total = max(1, math.ceil(steps_in_epoch * settings.epochs))
    arguments.gradient_accumulation_steps = accumulate
    arguments.warmup_steps = math.ceil(settings.warm_up * total)
    arguments.eval_steps = arguments.save_steps = max(1, steps_in_epoch // settings.evaluations)
    arguments.logging_steps = max(1, total // CURVE_POINTS)
    trainer = ReplyTrainer(
        model=peft,
        args=arguments,
        train_dataset=rows,
        data_collator=partial(_filled, end=encoder.end),
        held=HeldOutRows(
            rows=held_rows,
            dialogues=len(held.dialogues),
            bytes=int(byte_counts(held.dialogues, Targets.REPLIES).sum()),
            end=encoder.end,
        ),
        steps_in_epoch=steps_in_epoch,
        patience=settings.patience,
        preferences=preferences,
        callbacks=[
            _Stopwatch(),
            _Checkpoints(60 * settings.checkpoint_minutes),
            *(
                [_Reporter(on_progress, step_tokens=rows.tokens / steps_in_epoch, held_tokens=held_rows.tokens)]
                if on_progress
                else []
            ),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _filled(rows: Sequence[Row], *, end: int) -> Batch:
    """Rows as a batch whose width is a multiple of SIZES, so that few shapes occur."""
    batch = collate(rows, end=end)
    more = -batch["input_ids"].shape[1] % SIZES
    filling = {"input_ids": end, "labels": IGNORE}
    wider = {name: torch.nn.functional.pad(batch[name], (0, more), value=value) for name, value in filling.items()}
    places = torch.arange(more).expand(len(rows), more)
    return {**wider, "position_ids": torch.cat([batch["position_ids"], places], dim=1)}


class _Stopwatch(TrainerCallback, ExportableState):
    """Seconds of training, those of the processes before this one included: a checkpoint holds them."""

    def __init__(self, before: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock() - before

    @property
    def seconds(self) -> float:
        return self._clock() - self._began

    def state(self) -> dict[str, Any]:
        """What the trainer writes into a checkpoint, and makes another one of where it goes on from there."""
        return {"args": {"before": self.seconds}, "attributes": {}}


class _Checkpoints(TrainerCallback):
    """Requests a checkpoint when the last one is old. Timing decides when; it does not change what is computed."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last = clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if self._clock() - self._last >= self._seconds:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._last = self._clock()


class _Reporter(TrainerCallback):
    """Reports progress to the caller, and once a forecast."""

    def __init__(self, tell: Callable[[Progress], None], *, step_tokens: float, held_tokens: int) -> None:
        self._tell = tell
        self._step_tokens, self._held_tokens = step_tokens, held_tokens
        self._loss: float | None = None
        self._held_out: float | None = None
        self._began = self._step_began = 0.0
        self._first = 0
        self._spent: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._began, self._first = time.perf_counter(), state.global_step

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._step_began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if len(self._spent) < forecast.STEPS:
            self._spent.append(time.perf_counter() - self._step_began)
        if state.is_world_process_zero:
            self._report(args, state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **others: Any) -> None:
        self._loss = (logs or {}).get("loss", self._loss)
        self._held_out = (logs or {}).get("eval_bits_per_byte", self._held_out)

    def _report(self, args: Any, state: Any) -> None:
        seconds = max(1e-9, time.perf_counter() - self._began)
        done = state.global_step - self._first
        self._tell(
            Progress(
                step=state.global_step,
                steps=state.max_steps,
                loss=self._loss,
                held_out=self._held_out,
                tokens_per_second=done * self._step_tokens / seconds,
                forecast=self._forecast(args, state) if done == forecast.STEPS else None,
            )
        )

    def _forecast(self, args: Any, state: Any) -> forecast.Forecast:
        steps = state.max_steps - self._first
        learning = forecast.learning_seconds(
            step=sum(self._spent[1:]) / len(self._spent[1:]),
            steps=steps,
            evaluations=2
            + steps // max(1, int(args.eval_steps or steps)),  # one before the first step, one after the last
            step_tokens=self._step_tokens,
            held_tokens=self._held_tokens,
        )
        return forecast.Forecast(learning=learning, memory=forecast.peak_memory())
