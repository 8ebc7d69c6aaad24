"""A base model and its tokenizer, from a folder or by its hub name.

The network is touched only when a name is not in the local cache. Knows nothing of adapters, queues or sampling.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from core.adapters.validation import PROBE, fingerprint
from core.errors import ModelError
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
    """What stands in front of every text, such as Llama's `<s>`; nothing for most."""
    ends: frozenset[int]
    """Tokens that end a generation."""
    layers: dict[str, tuple[int, int]]
    """Inputs and outputs of every layer an adapter may change, by its name (`transformer.h.0.attn.c_attn`)."""
    fingerprint: str
    template: ChatTemplate | None = None
    """How the base is asked where no adapter speaks through it."""

    @property
    def context_length(self) -> int:
        return context_of(self.model.config.to_dict(), self.family)

    @property
    def end(self) -> int:
        """One of `ends`, to fill rows with."""
        return min(self.ends)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; `<|endoftext|>` typed by a person is thirteen characters like any others."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def load_base(base: str | Path, *, device: str = "auto", dtype: torch.dtype | None = None) -> Base:
    """`base` is a folder or a hub name; `device` is auto, cpu, cuda, cuda:1, mps.

    Without `dtype`: bfloat16 on CUDA that computes it natively, else float32 (whatever the files hold).
    Raises ModelError with what was tried and what to do.
    """
    place = _device(device)
    kind = dtype or (torch.bfloat16 if place.type == "cuda" and _has_bf16(place) else torch.float32)
    name = str(base)
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} is no model, it has no config.json: give a folder that save_pretrained wrote")
        family, model, shell = _from_pretrained(name, str(folder), kind, local=True)
    elif isinstance(base, Path) or folder.is_absolute() or name.startswith((".", "~")):
        raise ModelError(
            f"there is no folder {folder}: set PERSON2_BASE_MODEL to an existing folder, a hub name or starter"
        )
    else:
        try:
            family, model, shell = _from_pretrained(name, name, kind, local=True)
        except ModelError:
            family, model, shell = _from_pretrained(name, name, kind, local=False)
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
    """The first weights of the token embedding, which a fingerprint tells bases apart by."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)  # noqa: S101 - torch types a module's parameters as either
    return [float(value) for value in weight[0, :PROBE].float().tolist()]


def _sizes(module: torch.nn.Module) -> tuple[int, int]:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)  # noqa: S101 - torch types a module's parameters as either
    rows, columns = weight.shape
    return (rows, columns) if isinstance(module, Conv1D) else (columns, rows)


def _from_pretrained(
    name: str, source: str, dtype: torch.dtype, *, local: bool
) -> tuple[Family, PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        with _quiet() if local else nullcontext():
            config = AutoConfig.from_pretrained(source, local_files_only=local)
            family = family_of(config.to_dict(), name)
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, local_files_only=local)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, HfHubHTTPError) as error:
        reason = " ".join(str(error).split())[:200]
        if Path(source).is_dir():
            raise ModelError(f"the model in {source} cannot be loaded ({reason}): copy or train it again") from error
        raise ModelError(
            f"the model {name} is neither in the local cache nor to be had from the Hugging Face hub ({reason}):"
            " check the name and the network, or set PERSON2_BASE_MODEL=starter or to a folder"
        ) from error
    return family, model, tokenizer


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
def _quiet() -> Iterator[None]:
    """No bar for reading weights off the disk: it takes less time than it takes to read."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()
