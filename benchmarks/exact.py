"""How far the engine's logits are from transformers + peft's, on a model of real size.

    python -m benchmarks.exact --dialogues FILE [--model FOLDER]

fp32: the largest difference of any logit, at every length up to the context, for the base and three adapters in one
batch, with and without a reused prefix (a random GPT-2 small unless a model is given). int8: bits per byte on 200
held-out dialogues against fp32, and how often both would choose the same next token (only a trained model tells).
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.material import dialogues_of, random_adapter, small_model
from core.dialogue import render
from core.errors import ModelError
from core.generator import Adapter, engine
from core.generator.engine.model import Chunk, Model

DIALOGUES = 200
ADAPTERS = 3
KINDS = ("avx512", "avxvnni", "avx2", "neon", "c", "torch")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dialogues", type=Path, required=True, help="a file of held-out Person1/Person2 dialogues")
    options.add_argument("--tokenizer", type=Path, help="a folder with GPT-2's vocab.json and merges.txt")
    options.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="where models are made and kept")
    options.add_argument("--model", type=Path, help="a trained GPT-2: also scores int8 against fp32")
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    dialogues = dialogues_of(given.dialogues)
    found: dict[str, Any] = {}
    if given.model:
        texts = [render(turns) for turns in dialogues[:DIALOGUES]]
        found["int8"] = rounding(given.model, texts, given.threads)
    else:
        folder = small_model(given.work / "small", dialogues, tokenizer=given.tokenizer)
        adapters = [random_adapter(folder, given.work / "adapters" / f"adapter{n}", seed=n) for n in range(ADAPTERS)]
        found["fp32"] = differences(folder, adapters, given.threads)
    print(json.dumps(found, indent=1))


def differences(folder: Path, adapters: Sequence[Adapter], threads: int) -> dict[str, float]:
    """Largest absolute differences of logits from transformers + peft, float32."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    made = engine.load(folder, precision="fp32", threads=threads)
    context = made.context_length
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, 50_000, (context,), generator=draw).tolist() for _ in range(1 + len(adapters))]
    loras = [None, *(made._read(adapter) for adapter in adapters)]
    whole = made.model.forward(
        [
            Chunk(cache=made.model.new_cache(context), start=0, tokens=tokens, lora=lora, logits=context)
            for tokens, lora in zip(texts, loras, strict=True)
        ]
    ).split(context)
    cuts = (1, 63, 200, 511, 1_000, context - 1)
    reused: list[list[Tensor]] = [[] for _ in texts]
    for cut in cuts:
        caches = [made.model.new_cache(context) for _ in texts]
        for begin, end, wanted in ((0, cut, 0), (cut, context, 1)):
            logits = made.model.forward(
                [
                    Chunk(cache=cache, start=begin, tokens=tokens[begin:end], lora=lora, logits=wanted)
                    for cache, tokens, lora in zip(caches, texts, loras, strict=True)
                ]
            )
        for kept, row in zip(reused, logits, strict=True):
            kept.append(row)
    found = {"whole": 0.0, "behind_a_prefix": 0.0}
    for index, tokens in enumerate(texts):
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        if index:
            model = PeftModel.from_pretrained(model, str(adapters[index - 1].path))
        with torch.inference_mode():
            right = model.eval()(torch.tensor([tokens])).logits[0]
        found["whole"] = max(found["whole"], float((whole[index] - right).abs().max()))
        for row in reused[index]:
            found["behind_a_prefix"] = max(found["behind_a_prefix"], float((row - right[-1]).abs().max()))
    return {**found, "largest_logit": float(right.abs().max())}


def rounding(folder: Path, texts: Sequence[str], threads: int) -> dict[str, Any]:
    """Bits per byte of fp32 and of int8 with every kind of kernels there is here, and how often both choose the same
    token."""
    kinds = {"fp32": engine.load(folder, precision="fp32", threads=threads)}
    for name in KINDS:
        with suppress(ModelError):  # kernels that this processor does not support
            kinds[f"int8 {name}"] = engine.load(folder, threads=threads, kernels=name)
    nats = dict.fromkeys(kinds, 0.0)
    agree = dict.fromkeys(kinds, 0)
    tokens_seen, size = 0, 0
    for number, text in enumerate(texts):
        tokens = kinds["fp32"]._tokenizer.encode(text)[: kinds["fp32"].context_length]
        size += len(kinds["fp32"]._tokenizer.decode(tokens).encode())
        tokens_seen += len(tokens) - 1
        choices: dict[str, Tensor] = {}
        for name, made in kinds.items():
            logits = _logits(made.model, tokens)[:-1]
            target = torch.tensor(tokens[1:])
            nats[name] -= float(logits.log_softmax(1).gather(1, target[:, None]).double().sum())
            choices[name] = logits.argmax(1)
            agree[name] += int((choices[name] == choices["fp32"]).sum())
        if number % 50 == 49:
            print(f"{number + 1} dialogues", file=sys.stderr, flush=True)
    bits = {name: value / math.log(2) / size for name, value in nats.items()}
    return {
        "dialogues": len(texts),
        "tokens": tokens_seen,
        "networks": {name: made.status().device for name, made in kinds.items()},
        "bits_per_byte": bits,
        "worse_than_fp32_percent": {name: 100 * (value / bits["fp32"] - 1) for name, value in bits.items()},
        "greedy_agreement_percent": {name: 100 * count / tokens_seen for name, count in agree.items()},
    }


def _logits(model: Model, tokens: Sequence[int]) -> Tensor:
    """(T, V) float32 of one text."""
    cache = model.new_cache(len(tokens))
    return model.forward([Chunk(cache=cache, start=0, tokens=tokens, logits=len(tokens))])


if __name__ == "__main__":
    main()
