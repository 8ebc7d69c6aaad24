"""What the benchmarks run on: random models of GPT-2's shape, random adapters, real dialogues.

Speed does not depend on the values of the weights, so random ones are enough. Everything is written once to a folder
and reused.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from core.dialogue import Dialogue, DialogueFault, read, render
from core.generator import END_OF_TEXT, Adapter
from core.generator.families import FAMILIES

SMALL = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": 50_257,
    "n_positions": 1_024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "bos_token_id": 50_256,
    "eos_token_id": 50_256,
}
"""GPT-2 small, 124 M parameters."""


def dialogues_of(path: Path) -> list[Dialogue]:
    with path.open(encoding="utf-8") as file:
        return [found for found in read(file) if not isinstance(found, DialogueFault)]


def small_model(folder: Path, dialogues: Sequence[Dialogue], *, tokenizer: Path | None) -> Path:
    """A random GPT-2 small with GPT-2's own tokenizer files, or with one trained on the dialogues where there are none.

    Weights have GPT-2's initial deviation, 0.02, and the projections onto the residual 0.02 / √(2 × layers).
    """
    if (folder / "model.safetensors").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SMALL, indent=1))
    _tokenizer(dialogues, tokenizer).save(str(folder / "tokenizer.json"))
    draw = torch.Generator().manual_seed(0)
    width, layers = 768, 12

    def normal(*size: int, deviation: float = 0.02) -> torch.Tensor:
        return torch.randn(size, generator=draw) * deviation

    tensors = {"transformer.wte.weight": normal(50_257, width), "transformer.wpe.weight": normal(1_024, width)}
    for layer in range(layers):
        place = f"transformer.h.{layer}"
        for name, inputs, outputs in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ):
            deviation = 0.02 / math.sqrt(2 * layers) if name.endswith("c_proj") else 0.02
            tensors[f"{place}.{name}.weight"] = normal(inputs, outputs, deviation=deviation)
            tensors[f"{place}.{name}.bias"] = normal(outputs)
        for norm in ("ln_1", "ln_2"):
            tensors[f"{place}.{norm}.weight"] = 1 + normal(width)
            tensors[f"{place}.{norm}.bias"] = normal(width)
    tensors["transformer.ln_f.weight"] = 1 + normal(width)
    tensors["transformer.ln_f.bias"] = normal(width)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _tokenizer(dialogues: Sequence[Dialogue], folder: Path | None) -> Tokenizer:
    if folder is not None:
        tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    else:
        tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if folder is None:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=50_257, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator((render(turns) for turns in dialogues), trainer)
    else:
        tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def random_adapter(base: Path, folder: Path, *, seed: int, rank: int = 8) -> Adapter:
    """As peft saves one for every linear layer of a block, with weights drawn at random."""
    adapter = Adapter(id=folder.name, path=folder)
    if (folder / "adapter_config.json").exists():
        return adapter
    # Imported here so that a process whose memory is measured does not load them.
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    targets = list(FAMILIES[model.config.model_type].targets)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules=targets, init_lora_weights=False
    )
    get_peft_model(model, config).save_pretrained(str(folder))
    return adapter
