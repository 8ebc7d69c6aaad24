"""LoRA training: dialogue files and a base in, an adapter and its held-out figures out.

Knows peft and the Hugging Face trainer; knows neither the shelf's rules for promotion nor how anything is printed.
A run lives in one folder and may be killed at any moment: `resume=True` goes on from its newest whole checkpoint.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from accelerate import PartialState
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from core.errors import DialogueError, TrainingError
from training import checkpoints
from training.base import Precision, add_adapter, base_fingerprint, device, inner, load_base, quiet, wants_bf16
from training.dataset import Corpus, Encoder, FileFault, Rows, Targets, collate, divide, encode_rows
from training.likelihood import byte_counts, likelihood
from training.lora import fold
from training.provenance import people_behind, people_of
from training.runs import PLAN
from training.trainer import HeldOut, ReplyTrainer

LORA_MODULES = ("c_attn", "c_proj", "c_fc")
"""Every linear layer inside GPT-2's blocks (LoRA, Hu et al. 2021, arXiv:2106.09685; all of them as QLoRA advises,
Dettmers et al. 2023, arXiv:2305.14314)."""
CURVE_POINTS = 200
"""Most points of the loss curve that are kept."""
ADAPTER = "adapter"

LogTo: TypeAlias = Literal["none", "tensorboard", "wandb"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every knob of a run."""

    rank: int = 16
    """Rank of the LoRA matrices: how much an adapter can hold."""
    alpha: float = 32.0
    """LoRA's scale; the update counts alpha / rank times."""
    dropout: float = 0.0
    """Dropout in front of the LoRA matrices. Off: early stopping guards against learning by heart, and without it a
    step takes half the time (see `training.lora`)."""
    learning_rate: float = 1e-3
    """Highest learning rate, after the warm-up and before the cosine goes down to 0."""
    warm_up: float = 0.05
    """Share of all steps in which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """AdamW's decay of the LoRA matrices."""
    clip: float = 1.0
    """Longest gradient; longer ones are shortened to it."""
    epochs: float = 3.0
    """Times each dialogue is seen."""
    data_share: float = 1.0
    """Part of the training dialogues that is used, spread evenly over them; for learning curves."""
    block: int = 512
    """Tokens in a packed row, at most the base's context."""
    batch_tokens: int = 4_096
    """Tokens in an optimizer step, over all devices."""
    device_tokens: int = 4_096
    """Tokens on a device at one time; what a step needs beyond it is accumulated."""
    evaluations: int = 4
    """Looks at the held-out loss in an epoch."""
    patience: int = 4
    """Looks without betterment before training stops."""
    checkpoint_minutes: float = 5.0
    """A checkpoint at least this often, beside the one at each look at the held-out loss."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""
    precision: Precision = "auto"
    """`bf16` products, `fp32`, or `auto`: bf16 where the processor has it."""
    seed: int = 17
    """Same seed, data, settings and machine: same adapter."""

    def __post_init__(self) -> None:
        for name in ("rank", "block", "batch_tokens", "device_tokens", "evaluations", "patience"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be at least 1; it is {getattr(self, name)}.")
        for name in ("alpha", "learning_rate", "epochs", "checkpoint_minutes"):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingError(f"{name} must be above 0; it is {getattr(self, name)}.")
        if not 0 < self.data_share <= 1:
            raise TrainingError(f"data_share must be above 0 and at most 1; it is {self.data_share}.")
        if not 0 <= self.dropout < 1 or not 0 <= self.warm_up < 1:
            raise TrainingError("dropout and warm_up are shares, from 0 up to but not including 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands, told after each step."""

    step: int
    steps: int
    loss: float | None
    """Of the newest logged steps, in nats a target token."""
    held_out: float | None
    """Bits per byte of held-out replies at the newest look."""
    tokens_per_second: float
    """Tokens in rows, since this process began to train."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point of a training curve."""

    step: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run gave."""

    adapter: Path
    """peft's files."""
    leads: bool
    """False in all processes of an `accelerate launch` but the first: one is enough to fill the shelf and to speak."""
    name: str
    base: str
    """As it was given."""
    base_fingerprint: str
    people: tuple[str, ...]
    """Keyed hashes of those whose words were learned, from the manifests beside the files and from the card of the
    adapter that training went on from."""
    before: float
    """reply_bits_per_byte of the held-out dialogues before: the base's, or the adapter's that training went on from."""
    after: float
    """And with the new adapter."""
    perplexity_before: float
    perplexity_after: float
    """Per token of a held-out reply."""
    train_dialogues: int
    held_out_dialogues: int
    duplicates: int
    """Training dialogues left out because they stand word for word among the held-out ones."""
    rows: int
    fill: float
    """Share of the rows that is tokens and not filling."""
    tokens: int
    """In an epoch."""
    targets: int
    """Tokens of Person2's in an epoch."""
    steps: int
    """Optimizer steps done in all."""
    best_step: int
    """The step whose adapter was kept; 0 where none was better than the beginning, which is kept then."""
    seconds: float
    """Of training in this process, held-out looks included."""
    tokens_per_second: float
    targets_per_second: float
    stopped_early: bool
    resumed_from: int | None
    """The step a resumed run went on from."""
    data_sha256: str
    faults: tuple[FileFault, ...]
    loss: tuple[Point, ...]
    """Training loss, nats a target token."""
    held_out: tuple[Point, ...]
    """Held-out reply bits per byte at each look."""
    settings: Settings

    @property
    def improved(self) -> bool:
        """Whether the adapter foresees held-out replies better than what training began with."""
        return self.best_step > 0


def finetune(
    files: Sequence[Path],
    *,
    run: Path,
    base: str,
    base_name: str | None = None,
    held_out: Sequence[Path] = (),
    name: str | None = None,
    adapter: Path | None = None,
    settings: Settings = Settings(),
    resume: bool = False,
    log_to: LogTo = "none",
    on_progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Train an adapter for `base` on `files`; it lies in `run/adapter` when this returns.

    `base_name` is what the card calls the base, where `base` is a path on this machine only.
    Without `held_out` files the newest dialogues, one in twenty, are held out. With `adapter` training goes on from
    that one, keeping its rank and scale. The adapter is never worse on them than what it began with: where no look
    found it better, it is what it began with. Raises DialogueError, ModelError, AdapterError and TrainingError, each
    with one sentence.
    """
    _check_log_to(log_to)
    train, held, duplicates = divide(files, held_out)
    people = tuple(sorted({*people_of(files), *people_behind(adapter)}))
    model, tokenizer = load_base(base)
    encoder = Encoder(tokenizer)
    settings = replace(settings, block=min(settings.block, model.config.n_positions))
    learned = train.share(settings.data_share)
    rows = encode_rows(learned, encoder, block=settings.block, seed=settings.seed)
    if not rows.targets:
        raise DialogueError("Person2 says nothing in these dialogues, so there is nothing to learn; add its turns.")
    plan: dict[str, Any] = {"data": train.sha256, "held_out": held.sha256, "base": base, "adapter": str(adapter or "")}
    # Whose words the run's checkpoints and report may hold: those who are forgotten are looked for here.
    plan |= {"people": sorted({*people, *people_of(held_out)})}
    processes = PartialState(cpu=device().type == "cpu")
    with processes.main_process_first():
        plan |= {"settings": asdict(settings)}
        checkpoint = _open_run(run, plan, resume=resume, leads=processes.is_main_process)

    set_seed(settings.seed)
    with quiet():
        peft = with_lora(model, settings, base) if adapter is None else add_adapter(model, adapter, trainable=True)
    peft.to(device())
    fold(peft)
    before = likelihood(inner(peft), encoder, held.dialogues, targets=Targets.REPLIES)
    if not before.tokens.sum():
        raise DialogueError("Person2 says nothing in the held-out dialogues, so nothing can be judged; choose others.")
    beginning = {part: weight.detach().clone() for part, weight in _learning(peft)}

    with quiet():
        trainer = _trainer(
            peft, encoder, rows, held, run=run, settings=settings, log_to=log_to, on_progress=on_progress
        )
    began = time.perf_counter()
    with quiet(), _logged(log_to, run):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - began
    after = likelihood(inner(peft), encoder, held.dialogues, targets=Targets.REPLIES)
    best_step = trainer.state.best_global_step or trainer.state.global_step
    if not after.bits_per_byte < before.bits_per_byte:  # the other way round NaN would count as better
        with torch.no_grad():
            for part, weight in _learning(peft):
                weight.copy_(beginning[part])
        after, best_step = before, 0
    folder = run / ADAPTER
    if trainer.is_world_process_zero():
        _save(peft, folder, base=base_name or base)
    trainer.accelerator.wait_for_everyone()

    state = trainer.state
    first = checkpoints.step_of(checkpoint) if checkpoint else 0
    epochs = (state.global_step - first) / max(1, trainer.steps_in_epoch)
    return Outcome(
        adapter=folder,
        leads=trainer.is_world_process_zero(),
        name=name or run.name,
        base=base_name or base,
        base_fingerprint=base_fingerprint(inner(peft)),
        people=people,
        before=before.bits_per_byte,
        after=after.bits_per_byte,
        perplexity_before=before.perplexity,
        perplexity_after=after.perplexity,
        train_dialogues=len(learned),
        held_out_dialogues=len(held.dialogues),
        duplicates=duplicates,
        rows=len(rows),
        fill=rows.fill,
        tokens=rows.tokens,
        targets=rows.targets,
        steps=state.global_step,
        best_step=best_step,
        seconds=seconds,
        tokens_per_second=rows.tokens * epochs / seconds,
        targets_per_second=rows.targets * epochs / seconds,
        stopped_early=state.global_step < state.max_steps,
        resumed_from=first if checkpoint else None,
        data_sha256=train.sha256,
        faults=train.faults,
        loss=_curve(state.log_history, "loss"),
        held_out=_curve(state.log_history, "eval_bits_per_byte"),
        settings=settings,
    )


def _learning(peft: PeftModel) -> list[tuple[str, torch.nn.Parameter]]:
    """What is trained: the LoRA matrices."""
    return [(name, weight) for name, weight in peft.named_parameters() if weight.requires_grad]


def with_lora(model: torch.nn.Module, settings: Settings, base: str) -> PeftModel:
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type,unused-ignore] # peft says int and takes any number
        lora_dropout=settings.dropout,
        target_modules=list(LORA_MODULES),
        fan_in_fan_out=True,  # GPT-2's Conv1D keeps its weights transposed
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )
    peft = get_peft_model(model, config)
    if not isinstance(peft, PeftModel):
        raise TypeError("peft gave a model of another kind")
    return peft


def _open_run(run: Path, plan: dict[str, Any], *, resume: bool, leads: bool) -> Path | None:
    """Make the run's folder, and find the checkpoint to go on from. The plan says what the run is made of.

    Of several processes the first one writes; the others look once it is done.
    """
    if not leads:
        return checkpoints.newest(run) if resume else None
    text = json.dumps(plan, indent=1, sort_keys=True)
    try:
        run.mkdir(parents=True, exist_ok=True)
        if resume:
            checkpoint = checkpoints.newest(run)
            known = (run / PLAN).read_text(encoding="utf-8") if (run / PLAN).exists() else ""
            if checkpoint and known != text:
                raise TrainingError(
                    f"The run in {run} was begun with {_differing(known, plan)}; give what it began with, "
                    "or start anew without --resume."
                )
        else:
            checkpoint = None
            checkpoints.clear(run)
        checkpoints.write_atomically(run / PLAN, text)
    except OSError as error:
        raise TrainingError(f"The folder {run} cannot be written ({error.strerror}); choose another one.") from error
    return checkpoint


def _differing(known: str, plan: dict[str, Any]) -> str:
    try:
        old = json.loads(known)
    except ValueError:
        return "a plan that cannot be read"
    names = [key for key in plan if key != "settings" and old.get(key) != plan[key]]
    now, then = plan["settings"], old.get("settings", {})
    names += [key for key in now if then.get(key) != now[key]]
    return "another " + " and another ".join(name.replace("_", " ") for name in names)


def _check_log_to(log_to: LogTo) -> None:
    packages = {"none": (), "tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}
    if log_to not in packages:
        raise TrainingError(f"--log-to {log_to} is unknown; choose tensorboard or wandb.")
    wanted = packages[log_to]
    if wanted and not any(find_spec(package) for package in wanted):
        raise TrainingError(f"--log-to {log_to} needs the package {log_to}; run pip install {log_to}.")


@contextmanager
def _logged(log_to: LogTo, run: Path) -> Iterator[None]:
    """Whatever a tool writes lies in the run's folder; W&B takes one run of ours for one of its own.

    WANDB_DIR and WANDB_PROJECT in the environment go before. W&B has no other way to hear of a folder.
    """
    if log_to != "wandb":
        yield
        return
    import wandb  # type: ignore[import-not-found, unused-ignore] # checked to be there; it is no dependency

    before = {name: os.environ.get(name) for name in ("WANDB_DIR", "WANDB_PROJECT")}
    os.environ.setdefault("WANDB_DIR", str(run))
    os.environ.setdefault("WANDB_PROJECT", "person2")
    try:
        yield
    finally:
        wandb.finish()
        for name, value in before.items():
            if value is None:
                del os.environ[name]


def _trainer(
    peft: PeftModel,
    encoder: Encoder,
    rows: Rows,
    held: Corpus,
    *,
    run: Path,
    settings: Settings,
    log_to: LogTo,
    on_progress: Callable[[Progress], None] | None,
) -> ReplyTrainer:
    bf16 = wants_bf16(settings.precision)
    batch = max(1, min(settings.device_tokens, settings.batch_tokens) // settings.block)
    held_rows = encode_rows(held.dialogues, encoder, block=settings.block, seed=0)
    arguments = TrainingArguments(
        output_dir=str(run),
        per_device_train_batch_size=batch,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
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
        data_collator=partial(collate, end=encoder.end),
        held=HeldOut(
            rows=held_rows,
            dialogues=len(held.dialogues),
            bytes=int(byte_counts(held.dialogues, Targets.REPLIES).sum()),
            end=encoder.end,
        ),
        steps_in_epoch=steps_in_epoch,
        callbacks=[
            EarlyStoppingCallback(early_stopping_patience=settings.patience),
            _Checkpoints(60 * settings.checkpoint_minutes),
            *([_Reporter(on_progress, rows.tokens / steps_in_epoch)] if on_progress else []),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class _Checkpoints(TrainerCallback):
    """Asks for a checkpoint when the last one is old. When is up to the clock; what is computed does not change."""

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
    """Tells the caller where the run stands."""

    def __init__(self, tell: Callable[[Progress], None], step_tokens: float) -> None:
        self._tell = tell
        self._step_tokens = step_tokens
        self._loss: float | None = None
        self._held_out: float | None = None
        self._began = 0.0
        self._first = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._began, self._first = time.perf_counter(), state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.is_world_process_zero:
            self._report(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **others: Any) -> None:
        self._loss = (logs or {}).get("loss", self._loss)
        self._held_out = (logs or {}).get("eval_bits_per_byte", self._held_out)

    def _report(self, state: Any) -> None:
        seconds = max(1e-9, time.perf_counter() - self._began)
        self._tell(
            Progress(
                step=state.global_step,
                steps=state.max_steps,
                loss=self._loss,
                held_out=self._held_out,
                tokens_per_second=(state.global_step - self._first) * self._step_tokens / seconds,
            )
        )


def _save(peft: PeftModel, folder: Path, *, base: str) -> None:
    """peft's own files, all at once: a kill leaves the old folder or the new one.

    They name the base as the card does, not by its path on this machine; peft's unfilled model card is left out.
    """
    draft = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    for config in peft.peft_config.values():
        config.base_model_name_or_path = base
    peft.save_pretrained(str(draft))
    (draft / "README.md").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def _curve(history: list[dict[str, float]], key: str) -> tuple[Point, ...]:
    return tuple(Point(step=int(entry["step"]), value=float(entry[key])) for entry in history if key in entry)
