"""A base model and its tokenizer through transformers, from a folder or by its hub name.

`load_base` makes it ready to generate; training builds on `read_pretrained`. Knows nothing of adapters, queues
or sampling.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from core.adapters.validation import PROBE, fingerprint
from core.errors import ModelError, reason
from core.generator.bases import fetch
from core.generator.chat_template import ChatTemplate
from core.generator.families import Family, context_of, family_of
from core.generator.vocabulary import end_tokens, start_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    name: str
    """As it was typed."""
    family: Family
    model: PreTrainedModel
    """In eval mode, on its device; float32 on a CPU, bfloat16 on CUDA that has it."""
    tokenizer: Tokenizer
    """Encodes special tokens inside a text as plain text; may be used from any thread."""
    start: tuple[int, ...]
    """Tokens that start every text, such as Llama's `<s>`; empty for most."""
    ends: frozenset[int]
    """Tokens that end a generation."""
    layers: dict[str, tuple[int, int]]
    """Inputs and outputs of every layer an adapter may change, by its name (`transformer.h.0.attn.c_attn`)."""
    fingerprint: str
    template: ChatTemplate | None = None
    """How the base is prompted where no adapter is used."""

    @property
    def context_length(self) -> int:
        return context_of(self.model.config.to_dict(), self.family)

    @property
    def end(self) -> int:
        """One of `ends`, to pad rows with."""
        return min(self.ends)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; `<|endoftext|>` typed by a person is plain text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def load_base(base: str | Path, *, device: str = "auto", dtype: torch.dtype | None = None) -> Base:
    """`base` is a folder or a hub name; `device` is auto, cpu, cuda, cuda:1, mps.

    Without `dtype`: bfloat16 on CUDA that computes it natively, else float32 (whatever the files hold).
    Raises ModelError.
    """
    place = _device(device)
    kind = dtype or (torch.bfloat16 if place.type == "cuda" and _has_bf16(place) else torch.float32)
    name = str(base)
    read = read_pretrained(base, dtype=kind)
    family, model, shell = read.family, read.model, read.tokenizer
    tokenizer = getattr(shell, "backend_tokenizer", None)
    if not isinstance(tokenizer, Tokenizer):
        raise ModelError(f"the tokenizer of {name} has no tokenizer.json form: save it as a fast tokenizer")
    ends = end_tokens(tokenizer, model.config.to_dict())
    if not ends or tokenizer.get_vocab_size() > model.config.vocab_size:
        raise ModelError(
            f"the tokenizer of {name} does not belong to its model"
            f" ({tokenizer.get_vocab_size()} tokens against {model.config.vocab_size}): copy the whole model again"
        )
    start = start_tokens(tokenizer)
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    model = model.to(place)  # type: ignore[arg-type] # transformers wraps `to` in a decorator that loses its type
    model.eval()
    return Base(
        name=name,
        family=family,
        model=model,
        tokenizer=tokenizer,
        start=start,
        ends=ends,
        layers={
            place: _sizes(module)
            for place, module in model.named_modules()
            if place.endswith(family.linear) and isinstance(module, (Conv1D, torch.nn.Linear))
        },
        fingerprint=fingerprint(model.config.to_dict(), probe(model)),
        template=_template(shell, tokenizer),
    )


def probe(model: PreTrainedModel) -> list[float]:
    """The first weights of the token embedding, by which a fingerprint distinguishes bases."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)  # noqa: S101 - torch types a module's parameters as either
    return [float(value) for value in weight[0, :PROBE].float().tolist()]


def _sizes(module: torch.nn.Module) -> tuple[int, int]:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)  # noqa: S101 - torch types a module's parameters as either
    rows, columns = weight.shape
    return (rows, columns) if isinstance(module, Conv1D) else (columns, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """A model as transformers loads it: in training mode, on the CPU."""

    family: Family
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def read_pretrained(
    base: str | Path,
    *,
    dtype: torch.dtype,
    classes: Mapping[str, type[PreTrainedModel]] = MappingProxyType({}),
    adjust: Callable[[PreTrainedConfig], None] = lambda _: None,
) -> Pretrained:
    """A base of a known family from a folder or the hub (`core.generator.bases.fetch`).

    `classes` are taken in place of transformers' own, by the family's name; `adjust` may change the configuration
    before the model is built. Raises ModelError.
    """
    folder = fetch(base)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder)
            family = family_of(config.to_dict(), str(base))
            adjust(config)
            kind = classes.get(family.name, AutoModelForCausalLM)
            model = kind.from_pretrained(folder, config=config, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"the model in {folder} cannot be loaded ({reason(error)}): copy or train it again") from error
    return Pretrained(family=family, model=model, tokenizer=tokenizer)


def _template(shell: PreTrainedTokenizerBase, tokenizer: Tokenizer) -> ChatTemplate | None:
    source = shell.chat_template
    if isinstance(source, dict):  # several, by name
        source = source.get("default")
    named = {name: getattr(shell, name, None) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    return (
        ChatTemplate(source, tokenizer, **{name: str(token) for name, token in named.items() if token})
        if source
        else None
    )


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise ModelError(f"there is no device {wanted!r} on this machine: use auto, cpu or cuda") from error
    return device


def _has_bf16(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere: the first with bf16 in its tensor cores


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars for reading weights and without the libraries' warnings to programmers."""
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers 5.23 by an old name
            warnings.filterwarnings("ignore", message=".*base_model_name_or_path", category=UserWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
