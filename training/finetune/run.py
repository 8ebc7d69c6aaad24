"""One training run, from files to an adapter: read, train, keep the best, save."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import set_seed

from core.errors import DialogueError, TrainingError
from core.generator.families import FAMILIES
from core.generator.transformers.loader import quiet
from training.evaluation.likelihood import likelihood
from training.evaluation.memorization import LeftOut
from training.evaluation.other_bases import better_base
from training.finetune import checkpoints
from training.finetune.base import add_adapter, base_fingerprint, device, inner, load_base, move, wants_bf16
from training.finetune.config import FinetuneConfig
from training.finetune.corpus import divide
from training.finetune.dataset import encode_rows
from training.finetune.encoder import Encoder, Targets
from training.finetune.lora import fold
from training.finetune.model import MaskedLossModel
from training.finetune.outcome import Outcome, Point, Progress
from training.finetune.packed import fuse
from training.finetune.preferences import PreferenceLoss, digest
from training.finetune.preferences import divide as divide_pairs
from training.finetune.run_folder import open_run
from training.finetune.tracking import LogTo, check_log_to, tracked
from training.finetune.trainer import make_trainer
from training.privacy.preferences import Preference
from training.privacy.provenance import people_behind, people_of

ADAPTER = "adapter"


def finetune(
    files: Sequence[Path],
    *,
    run: Path,
    base: str,
    base_name: str | None = None,
    held_out: Sequence[Path] = (),
    name: str | None = None,
    adapter: Path | None = None,
    settings: FinetuneConfig = FinetuneConfig(),
    left_out: LeftOut = LeftOut(),
    preferences: Sequence[Preference] = (),
    resume: bool = False,
    log_to: LogTo = "none",
    other_bases: Mapping[str, str] = MappingProxyType({}),
    on_progress: Callable[[Progress], None] | None = None,
    on_advice: Callable[[str], None] = lambda sentence: None,
) -> Outcome:
    """Train an adapter for `base` on `files`; it is in `run/adapter` when this returns.

    `base_name` is what the card calls the base, where `base` is a path that exists on this machine only. Turns that
    contain a passage of `left_out` are context but not targets. The older of `preferences` are learned beside the
    dialogues, and the newest are held out; too few raise TrainingError. Without `held_out` files the newest dialogues,
    one in twenty, are held out. With `adapter` training continues from that one, keeping its rank and scale. The result
    is never worse on them than the start: where no evaluation was better, the start is kept. Before training from the
    bare base begins, `on_advice` is told if one of `other_bases` (name → folder) predicts the held-out talk better.
    Raises DialogueError, ModelError, AdapterError and TrainingError, each with one sentence.
    """
    check_log_to(log_to)
    train, held, duplicates = divide(files, held_out)
    pairs, held_pairs = divide_pairs(preferences) if preferences else ((), ())
    people = tuple(
        sorted({*people_of(files), *people_behind(adapter), *(who for one in preferences for who in one.people)})
    )
    model, tokenizer = load_base(base, halve=wants_bf16(settings.precision))
    encoder = Encoder(tokenizer)
    settings = replace(
        settings,
        block=min(settings.block, model.context_length),
        learning_rate=settings.rate(model.config.hidden_size),
    )
    settings = replace(settings, device_tokens=settings.tokens_at_once(model.config.to_dict()))
    learned = train.share(settings.data_share)
    rows = encode_rows(learned, Encoder(tokenizer, left_out=left_out.holds), block=settings.block, seed=settings.seed)
    if not rows.targets:
        raise DialogueError("Person2 says nothing in these dialogues, so there is nothing to learn; add its turns.")
    plan: dict[str, Any] = {"data": train.sha256, "held_out": held.sha256, "base": base, "adapter": str(adapter or "")}
    if left_out.passages:
        plan |= {"left_out": sha256(left_out.to_text().encode()).hexdigest()}
    if preferences:
        plan |= {"preferences": digest(preferences)}
    # Whose words the run's checkpoints and report may contain; forgetting looks here.
    plan |= {"people": sorted({*people, *people_of(held_out)})}
    processes = PartialState(cpu=device().type == "cpu")
    with processes.main_process_first():
        plan |= {"settings": asdict(settings)}
        checkpoint = open_run(run, plan, resume=resume, leads=processes.is_main_process)
    if preferences and processes.num_processes > 1:
        raise TrainingError("--preferences needs one process; leave accelerate out.")
    if other_bases and adapter is None and checkpoint is None and processes.num_processes == 1:
        move(model)
        if advice := better_base(base_name or base, model, encoder, held.dialogues, other_bases):
            on_advice(advice)

    set_seed(settings.seed)
    with quiet():
        peft = with_lora(model, settings, base) if adapter is None else add_adapter(model, adapter, trainable=True)
    if processes.is_main_process:
        checkpoints.check_room(run, sum(weight.numel() for _, weight in _learning(peft)))
    peft.to(device())
    fold(peft)
    fuse(peft)
    before = likelihood(inner(peft), encoder, held.dialogues, targets=Targets.REPLIES)
    if not before.tokens.sum():
        raise DialogueError(
            "Person2 says nothing in the held-out dialogues, so nothing can be evaluated; choose others."
        )
    beginning = {part: weight.detach().clone() for part, weight in _learning(peft)}

    def loss_of(some: Sequence[Preference]) -> PreferenceLoss | None:
        bf16 = wants_bf16(settings.precision)
        return (
            PreferenceLoss(some, inner(peft), encoder, block=settings.block, seed=settings.seed, bf16=bf16)
            if some
            else None
        )

    learned_pairs, judged_pairs = loss_of(pairs), loss_of(held_pairs)
    with quiet():
        trainer = make_trainer(
            peft,
            encoder,
            rows,
            held,
            run=run,
            settings=settings,
            log_to=log_to,
            preferences=learned_pairs,
            on_progress=on_progress,
        )
    began = time.perf_counter()
    with quiet(), tracked(log_to, run):
        seconds = trainer.go_on(checkpoint)
    here = time.perf_counter() - began
    after = likelihood(inner(peft), encoder, held.dialogues, targets=Targets.REPLIES)
    best_step = trainer.state.best_global_step or trainer.state.global_step
    if not after.bits_per_byte < before.bits_per_byte:  # so that NaN does not count as better
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
        tokens_per_second=rows.tokens * epochs / here,
        targets_per_second=rows.targets * epochs / here,
        stopped_early=state.global_step < state.max_steps,
        resumed_from=first if checkpoint else None,
        data_sha256=train.sha256,
        faults=train.faults,
        loss=_curve(state.log_history, "loss"),
        held_out=_curve(state.log_history, "eval_bits_per_byte"),
        settings=settings,
        preferred=judged_pairs.score(inner(peft), learned=len(pairs)) if judged_pairs else None,
    )


def _learning(peft: PeftModel) -> list[tuple[str, torch.nn.Parameter]]:
    """The trained parameters: the LoRA matrices."""
    return [(name, weight) for name, weight in peft.named_parameters() if weight.requires_grad]


def with_lora(model: MaskedLossModel, settings: FinetuneConfig, base: str) -> PeftModel:
    family = FAMILIES[model.config.model_type]
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type,unused-ignore] # peft says int and takes any number
        lora_dropout=settings.dropout,
        target_modules=list(family.targets),
        fan_in_fan_out=family.transposed,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )
    peft = get_peft_model(model, config)
    if not isinstance(peft, PeftModel):
        raise TypeError("peft gave a model of another kind")
    return peft


def _save(peft: PeftModel, folder: Path, *, base: str) -> None:
    """Write peft's own files atomically: a kill leaves the old folder or the new one.

    They name the base as the card does, not by its path on this machine; peft's empty model card is removed.
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
