"""Tiny models for tests: random ones of each family with a byte-level BPE of their own, and random LoRA adapters.

Nothing is downloaded, everything is the same for the same seed, and each takes well under a second to make.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from core.generator import END_OF_TEXT
from core.generator.families import FAMILIES

TALK = (
    "Person1: hello there\nPerson2: hi, how are you today?\n",
    "Person1: what did you do at the weekend?\nPerson2: we went to the sea and swam a lot\n",
    "Person1: do you like films?\nPerson2: yes, mostly the old ones\n",
)


def tiny_tokenizer(*, size: int = 320, texts: Sequence[str] = TALK) -> PreTrainedTokenizerFast:
    """A byte-level BPE like GPT-2's: any text goes in and comes out again; `size` counts the end-of-text token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    made: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT
    )
    return made


def tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    width: int = 32,
    layers: int = 2,
    heads: int = 2,
    positions: int = 64,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Save a random GPT-2 and its tokenizer in `folder`. Its weights are large, so that its choices are definite."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_positions=positions,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    model = GPT2LMHeadModel(config)
    model = model.to(dtype)  # type: ignore[arg-type] # transformers wraps `to` in a decorator that loses its type
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_base(folder: Path, family: str, *, seed: int = 0, positions: int = 64, **options: Any) -> Path:
    """Save a random model of `family` (`core.generator.families`) and its tokenizer in `folder`.

    Rotary families get four heads that share two of keys, tied embeddings and large weights, so that choices are
    definite; biases and norms are random too, since zeros and ones would hide whether they are read. `options` go to
    the configuration.
    """
    if family == "gpt2":
        return tiny_model(folder, seed=seed, positions=positions)
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family,
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": positions,
            "initializer_range": 0.3,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **options,
        },
    )
    model: Any = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                weight.add_(torch.randn(weight.shape) * 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_adapter(
    folder: Path,
    base: Path,
    *,
    seed: int = 0,
    rank: int = 4,
    strength: float = 0.5,
    targets: Sequence[str] = (),
    **options: Any,
) -> Path:
    """Save a random LoRA adapter for the model in `base`; `strength` is the deviation of its B matrices.

    It changes every linear layer unless `targets` names some. `options` go to peft's LoraConfig: `use_rslora=True`,
    `lora_bias=True`, `bias="lora_only"` …
    """
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    family = FAMILIES[model.config.model_type]
    generator = torch.Generator().manual_seed(seed)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(targets or family.targets),
        fan_in_fan_out=family.transposed,
        task_type="CAUSAL_LM",
        **options,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".is_gradient_checkpointing")  # peft's affair
        tuned = get_peft_model(model, config)
    assert isinstance(tuned, PeftModel)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_" in name or (weight.requires_grad and name.endswith("bias")):
                weight.copy_(torch.randn(weight.shape, generator=generator) * strength / weight.shape[-1] ** 0.5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LoRA tensor.s. have invalid shape")  # peft means lora_B's biases
        tuned.save_pretrained(str(folder))
    return folder
