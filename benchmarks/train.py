"""How fast is `person2 train`, against the recipe most people would write?

    python -m benchmarks.train TALK.txt HELD_OUT.txt --base models/starter

Both train LoRA of the same rank on the same dialogues for the same epochs with as many dialogues a step, the same
learning rate and schedule. Plain: the Hugging Face trainer with peft as their documentation has it, one dialogue a row,
rows padded to the longest of a batch, labels on Person2's words, all in fp32 (by default transformers 5 loads an fp16
folder as fp16, which is many times slower on a CPU and would be unfair). Ours: `training.finetune`, its look at the
held-out replies included. A third, TRL's SFTTrainer on the same examples, runs where `trl` is installed; its gradient
checkpointing, on by default, is off, because it only saves memory. They take turns (plain, ours, plain, …), because the
machine may be busy: compare the ratio, not the rates. Only training is timed. At the end: how ours compares with the
machine's matrix products, and a profile of a few steps. On the starter and two cores all of it takes less than six
minutes; use fewer dialogues for larger bases.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments, set_seed

from core.dialogue import Dialogue, write
from core.generator.families import FAMILIES
from core.generator.transformers.loader import quiet
from training.evaluation.likelihood import likelihood
from training.finetune.base import casting, inner, load_base, wants_bf16
from training.finetune.config import FinetuneConfig
from training.finetune.corpus import load
from training.finetune.dataset import IGNORE, collate, encode_rows
from training.finetune.encoder import Encoder, Targets
from training.finetune.lora import fold
from training.finetune.model import MaskedLossModel
from training.finetune.run import finetune, with_lora

DIALOGUES_A_STEP = 16


def examples(dialogues: Sequence[Dialogue], encoder: Encoder, most: int) -> list[dict[str, list[int]]]:
    """One dialogue a row, cut at the model's context, as the plain recipe does it."""
    return [
        {
            "input_ids": one.ids[:most].tolist(),
            "labels": [int(token) if wanted else IGNORE for token, wanted in zip(one.ids, one.target, strict=True)][
                :most
            ],
        }
        for one in encoder.encode(dialogues, Targets.REPLIES)
    ]


def padded(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Rows filled up to the longest of the batch, (B, T) int64 each."""
    width = max(len(row["input_ids"]) for row in rows)

    def fill(name: str, value: int) -> torch.Tensor:
        return torch.tensor([row[name] + [value] * (width - len(row[name])) for row in rows])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
    return {"input_ids": fill("input_ids", 0), "attention_mask": mask, "labels": fill("labels", IGNORE)}


def lora(model_type: str, settings: FinetuneConfig) -> LoraConfig:
    family = FAMILIES[model_type]
    return LoraConfig(
        r=settings.rank,
        lora_alpha=int(settings.alpha),
        lora_dropout=0.05,
        target_modules=list(family.targets),
        fan_in_fan_out=family.transposed,
        task_type="CAUSAL_LM",
    )


def timed(trainer: Any) -> float:
    """Seconds of training."""
    trainer.remove_callback(PrinterCallback)
    began = time.perf_counter()
    trainer.train()
    return time.perf_counter() - began


def targets_in(rows: list[dict[str, list[int]]], settings: FinetuneConfig) -> int:
    """Target tokens over all epochs."""
    return round(sum(label != IGNORE for row in rows for label in row["labels"][1:]) * settings.epochs)


def plain(base: str, dialogues: Sequence[Dialogue], settings: FinetuneConfig, folder: Path) -> tuple[float, int, Any]:
    """Seconds of training, target tokens seen, and the trained model."""
    encoder = Encoder(load_base(base)[1])
    set_seed(settings.seed)
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        rows = examples(dialogues, encoder, model.config.max_position_embeddings)
        peft = get_peft_model(model, lora(model.config.model_type, settings))
        arguments = TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=DIALOGUES_A_STEP,
            num_train_epochs=settings.epochs,
            learning_rate=settings.rate(model.config.hidden_size),
            lr_scheduler_type="cosine",
            warmup_steps=settings.warm_up,
            weight_decay=0.0,
            use_cpu=not torch.cuda.is_available(),
            seed=settings.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            log_level="error",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(model=peft, args=arguments, train_dataset=rows, data_collator=padded)
        seconds = timed(trainer)
    return seconds, targets_in(rows, settings), peft


def with_trl(
    base: str, dialogues: Sequence[Dialogue], settings: FinetuneConfig, folder: Path
) -> tuple[float, int, Any]:
    """The same examples through TRL's SFTTrainer."""
    from datasets import Dataset, disable_progress_bars  # type: ignore[import-not-found,unused-ignore] # comes with trl
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    model, tokenizer = load_base(base)
    rows = examples(dialogues, Encoder(tokenizer), model.context_length)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    set_seed(settings.seed)
    with quiet():
        arguments = SFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=DIALOGUES_A_STEP,
            num_train_epochs=settings.epochs,
            learning_rate=settings.rate(model.config.hidden_size),
            lr_scheduler_type="cosine",
            use_cpu=not torch.cuda.is_available(),
            bf16=False,
            gradient_checkpointing=False,
            warmup_steps=settings.warm_up,
            weight_decay=0.0,
            seed=settings.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            log_level="error",
            max_length=model.context_length,
        )
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora(model.config.model_type, settings),
        )
        seconds = timed(trainer)
    return seconds, targets_in(rows, settings), trainer.model


def ours(
    base: str, dialogues: Sequence[Dialogue], held: Path, settings: FinetuneConfig, folder: Path
) -> tuple[float, int, float, float]:
    """Seconds of training (less its looks at the held-out loss, of which there is one), targets, bits before, after."""
    talk = folder / "talk.txt"
    talk.write_text("".join(write(dialogues)), encoding="utf-8")
    outcome = finetune([talk], held_out=[held], run=folder / "run", base=base, settings=settings)
    return outcome.seconds, round(outcome.targets_per_second * outcome.seconds), outcome.before, outcome.after


def bits(model: Any, base: str, held: Sequence[Dialogue]) -> float:
    """Held-out reply bits per byte of a peft model, computed by our own scorer on the same weights."""
    learner, tokenizer = load_base(base)
    merged = model.merge_and_unload().state_dict()
    learner.load_state_dict(merged)
    return likelihood(inner(learner), Encoder(tokenizer), held, targets=Targets.REPLIES).bits_per_byte


def products(dtype: torch.dtype, width: int) -> float:
    """The machine's rate of matrix products, in GFLOP/s, at a size like the model's."""
    left, right = torch.randn(4096, width).to(dtype), torch.randn(width, 4 * width).to(dtype)
    best = 0.0
    for _ in range(12):
        began = time.perf_counter()
        left @ right
        best = max(best, 2 * 4096 * width * 4 * width / (time.perf_counter() - began) / 1e9)
    return best


def work(model: MaskedLossModel, tokens: int, targets: int, rank: int) -> float:
    """Floating-point operations of one pass forward and back, attention left out: 4 a frozen weight and token (forward,
    and back to what lies below), 6 a LoRA weight and token, 4 a weight of the head and target."""
    width, layers = model.config.hidden_size, model.config.num_hidden_layers
    lora = layers * rank * (width + 3 * width + 2 * width + 2 * 5 * width)
    frozen, head = 12 * layers * width**2, width * model.config.vocab_size
    return float(tokens * (4 * frozen + 6 * lora) + targets * 4 * head)


KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "linear", "matmul"),
    "attention": ("scaled_dot_product", "flash_attention", "softmax_backward", "_softmax"),
    "the head's softmax": ("logsumexp", "exp_", "scatter_add", "gather", "log_softmax", "nll_loss"),
    "norms and GELU": ("layer_norm", "gelu"),
    "copies and casts": ("copy_", "clone", "contiguous", "cat", "index", "embedding", "empty", "zero", "fill_"),
    "the optimizer": ("adam", "foreach", "norm", "lerp", "addc"),
}
"""Kinds of work by parts of an operator's name; the first match counts."""
PROFILED = 3
"""Steps that are profiled, after one that warms up."""


def profile(base: str, dialogues: Sequence[Dialogue], settings: FinetuneConfig) -> dict[str, float]:
    """Shares of the time of a few of our steps, by kind of work."""
    model, tokenizer = load_base(base)
    encoder = Encoder(tokenizer)
    rows = encode_rows(dialogues, encoder, block=min(settings.block, model.context_length), seed=0)
    size = max(1, settings.batch_tokens // rows.block)
    batch = collate([rows[index] for index in range(min(size, len(rows)))], end=encoder.end)
    with quiet():
        peft = with_lora(model, settings, base)
    fold(peft)
    learner = inner(peft)
    optimizer = torch.optim.AdamW([weight for weight in peft.parameters() if weight.requires_grad], lr=1e-4)

    def step() -> None:
        with casting(torch.device("cpu"), wants_bf16(settings.precision)):
            loss = learner(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        for _ in range(PROFILED):
            step()
    spent: dict[str, float] = {}
    for event in seen.key_averages():
        name = event.key.lower()
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "everything else")
        spent[kind] = spent.get(kind, 0.0) + event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: time_ / total for kind, time_ in sorted(spent.items(), key=lambda item: -item[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("talk", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--base", required=True)
    parser.add_argument("--dialogues", type=int, default=150)
    parser.add_argument("--held", type=int, default=60, help="held-out dialogues that are scored")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    given = parser.parse_args()

    dialogues = load([given.talk]).dialogues[: given.dialogues]
    held = load([given.held_out]).dialogues[: given.held]
    model, tokenizer = load_base(given.base)
    lengths = [len(one.ids) for one in Encoder(tokenizer).encode(dialogues, Targets.REPLIES)]
    step_tokens = round(DIALOGUES_A_STEP * statistics.mean(lengths))
    settings = FinetuneConfig(
        rank=given.rank,
        alpha=2.0 * given.rank,
        epochs=given.epochs,
        batch_tokens=step_tokens,
        device_tokens=step_tokens,
        evaluations=1,
        checkpoint_minutes=1e6,
    )
    rates: dict[str, list[float]] = {}
    after: dict[str, float] = {}
    others: dict[str, Callable[..., tuple[float, int, Any]]] = {"plain recipe": plain}
    if find_spec("trl"):
        others["trl SFTTrainer"] = with_trl
    before, spent = 0.0, 0.0
    for round_number in range(given.rounds):
        for name in (*others, "person2"):
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                held_file = folder / "held.txt"
                held_file.write_text("".join(write(held)), encoding="utf-8")
                if name in others:
                    seconds, targets, trained = others[name](given.base, dialogues, settings, folder)
                    after[name] = bits(trained, given.base, held)
                else:
                    seconds, targets, before, after[name] = ours(given.base, dialogues, held_file, settings, folder)
                    spent = seconds
            rates.setdefault(name, []).append(targets / seconds)
            print(f"round {round_number + 1}: {name} {targets / seconds:.0f} targets/s", file=sys.stderr, flush=True)

    dtype = torch.bfloat16 if wants_bf16("auto") else torch.float32
    peak = products(dtype, model.config.hidden_size)
    encoded = list(Encoder(tokenizer).encode(dialogues, Targets.REPLIES))
    total = work(model, sum(lengths), sum(int(one.target.sum()) for one in encoded), given.rank) * given.epochs
    reached = total / spent / 1e9
    first = statistics.median(rates["plain recipe"])
    print(f"{'':16s}{'targets/s':>10s}{'ratio':>8s}{'held-out bits/byte':>20s}   (before training {before:.4f})")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"{name:16s}{rate:10.0f}{rate / first:8.2f}{after[name]:20.4f}")
    print(
        f"person2 computes {reached:.0f} GFLOP/s of products; the machine's products alone reach {peak:.0f} "
        f"({str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads): {reached / peak:.0%}"
    )
    shares = profile(given.base, dialogues, settings)
    print("time of a step: " + ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items()))
    found_ = {"rates": rates, "held_out": after, "before": before, "gflops": reached, "peak": peak, "profile": shares}
    print(json.dumps(found_))


if __name__ == "__main__":
    main()
