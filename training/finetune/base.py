"""A base model made ready to learn or to be scored, from a hub name or a folder.

Knows how base models and LoRA adapters are loaded and what may be wrong with them; trains nothing.
"""

import logging
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from core.adapters.validation import PROBE, fingerprint
from core.errors import AdapterError, ModelError
from core.generator.families import family_of
from training.finetune.model import LEARNERS, MaskedLossModel

Precision: TypeAlias = Literal["auto", "bf16", "fp32"]
"""`auto` takes bf16 where the processor multiplies it natively."""

HALVED_FROM = 64_000_000
"""Parameters from which a frozen base is kept in bfloat16: smaller ones save no memory worth a rounding."""


def load_base(base: str, *, halve: bool = False) -> tuple[MaskedLossModel, PreTrainedTokenizerBase]:
    """The model in fp32 and its tokenizer. Raises ModelError when there is none, or when it is of no known family.

    `halve` keeps the matrices of a large base in bfloat16, half of their memory, where they are frozen and multiplied
    in bfloat16 anyway. Two things differ from the folder's own configuration, and neither changes what the model
    computes: the dropouts inside the model are off (a LoRA adapter has its own, and attention with dropout has no fast
    path on a CPU), and GELU's tanh form is taken as the one kernel torch has for it instead of eight.
    """
    folder = Path(base).expanduser()
    local = folder.is_dir()
    if not local and (folder.is_absolute() or base.startswith((".", "~")) or base.count("/") > 1):
        raise ModelError(f"There is no model folder {base}; give a folder that from_pretrained loads, or a hub name.")
    name = str(folder) if local else base
    try:
        with quiet():
            config = AutoConfig.from_pretrained(name)
            family = family_of(config.to_dict(), base)
            for dropout in ("attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout"):
                if hasattr(config, dropout):
                    setattr(config, dropout, 0.0)
            if getattr(config, "activation_function", "") == "gelu_new":
                config.activation_function = "gelu_pytorch_tanh"
            model = LEARNERS[family.name].from_pretrained(name, config=config, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        where = "the folder holds no whole model" if local else "it is not in the cache and the hub did not give it"
        raise ModelError(
            f"The base model {base} cannot be loaded: {where}; check the name or name a folder."
        ) from error
    if halve and sum(weight.numel() for weight in model.parameters()) >= HALVED_FROM:
        for place, module in model.named_modules():
            if place.endswith(family.linear):
                module.to(torch.bfloat16)
    return model, tokenizer


def add_adapter(
    model: MaskedLossModel | PeftModel, adapter: Path, *, trainable: bool, name: str = "default"
) -> PeftModel:
    """The base with an adapter of peft's on it, beside those that it has, under a `name` of letters and digits.

    Raises AdapterError when it is missing or made for another base.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise AdapterError(f"There is no adapter in {adapter}; name a folder that holds adapter_config.json.")
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


def inner(model: MaskedLossModel | PeftModel) -> MaskedLossModel:
    """The model that computes, LoRA layers included, without peft's shell."""
    found = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(found, MaskedLossModel):
        raise TypeError("this model was not loaded by training.finetune.base")
    return found


def base_fingerprint(model: MaskedLossModel) -> str:
    """As `core.adapters.validation.fingerprint` writes it, from a loaded model."""
    embedding = cast("torch.nn.Embedding", model.get_input_embeddings())
    return fingerprint(model.config.to_dict(), embedding.weight[0, :PROBE].tolist())


def device() -> torch.device:
    """Where to compute: the first GPU, else the processor."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def move(model: torch.nn.Module) -> None:
    """To where it computes."""
    model.to(device())


def wants_bf16(precision: Precision, where: torch.device | None = None) -> bool:
    """Whether to multiply in bfloat16 (there, else on `device()`): GPUs that have it, processors with AVX512-BF16."""
    if precision != "auto":
        return precision == "bf16"
    if (where or device()).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    probe: Any = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return platform.machine() in {"x86_64", "AMD64"} and probe is not None and bool(probe())


def casting(where: torch.device, bf16: bool) -> AbstractContextManager[Any]:
    """bfloat16 products for what runs inside, or nothing."""
    return torch.autocast(where.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def broadcast(text: str) -> str:
    """What the first of several processes says (`accelerate launch`), in all of them; alone, what was given."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return text
    PartialState(cpu=device().type == "cpu")
    said = [text]
    broadcast_object_list(said)
    return said[0]


@contextmanager
def quiet() -> Iterator[None]:
    """No loading bars, and no advice to programmers from libraries; faults come as errors."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", message=".*base_model_name_or_path", category=UserWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
