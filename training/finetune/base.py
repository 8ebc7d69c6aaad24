"""A base model prepared for training or scoring, and a LoRA adapter on it.

Knows what training changes in a base that `core.generator.transformers.loader` reads; trains nothing.
"""

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from peft import PeftModel
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from core.adapters.validation import fingerprint
from core.errors import AdapterError
from core.generator.transformers.loader import probe, quiet, read_pretrained
from training.finetune.model import LEARNERS, MaskedLossModel

Precision: TypeAlias = Literal["auto", "bf16", "fp32"]
"""`auto` takes bf16 where the processor multiplies it natively."""

HALVED_FROM = 64_000_000
"""Parameters from which a frozen base is kept in bfloat16: smaller ones save no memory worth a rounding."""


def load_base(base: str, *, halve: bool = False) -> tuple[MaskedLossModel, PreTrainedTokenizerBase]:
    """The model in fp32 and its tokenizer. Raises ModelError when there is none, or when its family is unknown.

    `halve` keeps the matrices of a large base in bfloat16, at half the memory, for training that freezes them and
    multiplies in bfloat16 anyway. Two things differ from the folder's own configuration, and neither changes what the
    model computes: the dropouts inside the model are off (a LoRA adapter has its own, and attention with dropout has no
    fast path on a CPU), and GELU's tanh form uses torch's single kernel for it instead of eight.
    """

    def plain(config: PreTrainedConfig) -> None:
        for dropout in ("attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout"):
            if hasattr(config, dropout):
                setattr(config, dropout, 0.0)
        if getattr(config, "activation_function", "") == "gelu_new":
            config.activation_function = "gelu_pytorch_tanh"

    read = read_pretrained(base, dtype=torch.float32, classes=LEARNERS, adjust=plain)
    model = inner(read.model)
    if halve and sum(weight.numel() for weight in model.parameters()) >= HALVED_FROM:
        for place, module in model.named_modules():
            if place.endswith(read.family.linear):
                module.to(torch.bfloat16)
    return model, read.tokenizer


def add_adapter(
    model: MaskedLossModel | PeftModel, adapter: Path, *, trainable: bool, name: str = "default"
) -> PeftModel:
    """The base with an adapter of peft's on it, beside those that it has, under a `name` of letters and digits.

    Raises AdapterError when it is missing or made for another base.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise AdapterError(f"There is no adapter in {adapter}; give a folder that contains adapter_config.json.")
    try:
        with quiet():
            if isinstance(model, PeftModel):
                model.load_adapter(str(adapter), adapter_name=name, is_trainable=trainable)
                return model
            return PeftModel.from_pretrained(model, str(adapter), adapter_name=name, is_trainable=trainable)
    except (RuntimeError, ValueError, OSError, KeyError, TypeError) as error:
        raise AdapterError(
            f"The adapter in {adapter} does not fit this base; name the base that its card names with --base."
        ) from error


def inner(model: PreTrainedModel | PeftModel) -> MaskedLossModel:
    """The model itself, with its LoRA layers, without peft's wrapper."""
    found = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(found, MaskedLossModel):
        raise TypeError("this model was not loaded by training.finetune.base")
    return found


def base_fingerprint(model: MaskedLossModel) -> str:
    """`core.adapters.validation.fingerprint` of a loaded model."""
    return fingerprint(model.config.to_dict(), probe(model))


def device() -> torch.device:
    """Where to compute: the first GPU, else the processor."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def move(model: torch.nn.Module) -> None:
    """Move to `device()`."""
    model.to(device())


def wants_bf16(precision: Precision, where: torch.device | None = None) -> bool:
    """Whether to multiply in bfloat16 (on `where`, else on `device()`): GPUs that have it, processors with
    AVX512-BF16."""
    if precision != "auto":
        return precision == "bf16"
    if (where or device()).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported: Any = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return platform.machine() in {"x86_64", "AMD64"} and supported is not None and bool(supported())


def casting(where: torch.device, bf16: bool) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 for the block, or nothing."""
    return torch.autocast(where.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def broadcast(text: str) -> str:
    """The text of the first of several processes (`accelerate launch`), in all of them; with one process, the text
    itself."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return text
    PartialState(cpu=device().type == "cpu")
    said = [text]
    broadcast_object_list(said)
    return said[0]
