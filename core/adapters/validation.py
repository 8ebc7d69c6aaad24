"""The files of one adapter: are they complete, are they safe, for which base were they made?

Reads peft's `adapter_config.json` and safetensors files without torch, so that a bad adapter is refused before a model
loads it. Knows nothing of the registry.
"""

import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from core.errors import AdapterError, ModelError, listed, reason
from core.generator.families import FAMILIES, LINEAR, family_of, layer_of

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_HEADER = 100_000_000
"""Bytes; safetensors' own limit for a header (its format description on huggingface.co)."""
PROBE = 8
"""Leading weights of the token embedding that distinguish bases of the same shape."""
_PROBE_TOLERANCE = 0.02  # of the largest: bf16 keeps 8 bits and Q8_0 7, 0.4 %; two trainings differ by far more
_ARCHITECTURE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings")
_FINGERPRINT = re.compile(r"\w* \d+x\d+x\d+, \d+ tokens, \d+ positions")
_NORM = re.compile(r"(?:^|\.)(?:h\.\d+\.ln_[12]|ln_f)\.(?:base_layer\.)?bias$")  # trained by peft's bias="all"
_STRUCTURES = {"F32": ("f", 4), "F16": ("e", 2), "BF16": ("H", 2), "F64": ("d", 8)}
MAX_RANK = 4_096
"""No supported base is wider, and a rank above a layer's width adds nothing."""
MAX_SCALE = 65_504.0
"""Largest alpha: the largest half-precision number (IEEE 754), beyond which any product overflows."""
UNSUPPORTED = (
    ("use_dora", "DoRA"),
    ("use_qalora", "QALoRA"),
    ("use_bdlora", "block-diagonal LoRA"),
    ("modules_to_save", "whole modules saved beside it"),
    ("trainable_token_indices", "tokens of its own"),
    ("target_parameters", "bare parameters as targets"),
    ("layer_replication", "replicated layers"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("arrow_config", "Arrow routing"),
    ("kasa_config", "KaSA"),
    ("velora_config", "VeLoRA"),
    ("monteclora_config", "MonteCLoRA"),
)
"""Options of peft 0.21's LoraConfig that change what is computed, and their names for people."""
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of `init_lora_weights` that first subtract the adapter from the base: such adapters need that changed base."""

_Rank = Annotated[int, msgspec.Meta(ge=1, le=MAX_RANK)]
_Alpha = Annotated[float, msgspec.Meta(ge=-MAX_SCALE, le=MAX_SCALE)]
_Layer = Annotated[int, msgspec.Meta(ge=0)]


class _LoraFields(msgspec.Struct, kw_only=True):
    """The fields of peft's LoraConfig that change what is computed, with their valid values."""

    r: _Rank = 8
    lora_alpha: _Alpha = 8
    lora_dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = 0.0
    bias: Literal["none", "all", "lora_only"] = "none"
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    lora_bias: bool = False
    rank_pattern: dict[str, _Rank] | None = None
    alpha_pattern: dict[str, _Alpha] | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[_Layer] | _Layer | None = None
    layers_pattern: list[str] | str | None = None
    init_lora_weights: bool | str | None = True
    base_model_name_or_path: str | None = None
    task_type: str | None = None


def check(folder: Path) -> None:
    """Raises AdapterError, in one sentence, unless this is a complete LoRA adapter for known layers, in safe files."""
    name = folder.name
    if not folder.is_dir():
        raise AdapterError(f"{folder} is not a folder: an adapter is a folder with {CONFIG} and {WEIGHTS}")
    config = peft_config(folder)
    if not (folder / WEIGHTS).is_file():
        if any(folder.glob("adapter_model.*")):
            raise AdapterError(
                f"the adapter {name!r} keeps its weights in a pickle, which can run code when opened: have its author"
                f" save it as {WEIGHTS}"
            )
        raise AdapterError(f"the adapter {name!r} has no {WEIGHTS}: copy the whole folder that peft wrote")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"the adapter {name!r} is of kind {kind}, and only LORA can be used: train it as LoRA")
    for option, meaning in UNSUPPORTED:
        if config.get(option):
            raise AdapterError(
                f"the adapter {name!r} uses {meaning} ({option}), which is not supported: train without it"
            )
    _check_fields(name, config)
    targets = _targets(config)
    foreign = sorted(target for target in targets if target.rsplit(".", 1)[-1] not in LINEAR)
    if foreign or not targets:
        raise AdapterError(
            f"the adapter {name!r} changes {', '.join(foreign) or 'no named modules'}, and only"
            f" {listed(LINEAR)} can be changed: train it on those"
        )
    _check_tensors(name, folder / WEIGHTS)


def _check_fields(name: str, config: Mapping[str, Any]) -> None:
    """Every number and name of the configuration. Raises AdapterError."""
    try:
        fields = msgspec.convert(dict(config), _LoraFields)
        for pattern in (*(fields.rank_pattern or ()), *(fields.alpha_pattern or ())):
            re.compile(pattern)
        for pattern in (fields.target_modules, fields.exclude_modules):
            re.compile(pattern if isinstance(pattern, str) else "")
    except (msgspec.ValidationError, re.error) as error:
        raise AdapterError(
            f"the adapter {name!r} has an invalid configuration ({error}): correct {CONFIG} or train it again"
        ) from error
    start = str(fields.init_lora_weights).lower()
    if start.startswith(CHANGES_BASE):
        raise AdapterError(
            f"the adapter {name!r} was started with {start}, which changes the base model:"
            " convert it to plain LoRA with peft (save_pretrained, path_initial_model_for_weight_conversion)"
        )


def _check_tensors(name: str, weights: Path) -> None:
    """Names, shapes and values of the matrices. Raises AdapterError."""
    header, start = _header(weights)
    ranks: dict[str, set[int]] = {}
    for tensor, entry in header.items():
        shape = tuple(entry["shape"])
        if layer_of(tensor) is None and not is_norm(tensor):
            raise AdapterError(
                f"the adapter {name!r} holds {tensor}, which belongs to none of {listed(LINEAR)}: train it on those"
            )
        side = next((side for side in ("lora_A", "lora_B") if tensor.endswith(f".{side}.weight")), None)
        if side is None:
            continue
        if len(shape) != 2 or min(shape) < 1:
            raise AdapterError(f"the adapter {name!r} holds {tensor}, which is not a matrix: copy or train it again")
        ranks.setdefault(tensor.removesuffix(f".{side}.weight"), set()).add(shape[side == "lora_B"])
    if any(len(found) > 1 for found in ranks.values()):
        raise AdapterError(f"the adapter {name!r} has matrices whose ranks do not match: copy or train it again")
    if not header:
        raise AdapterError(f"the adapter {name!r} holds no weights: copy or train it again")
    with weights.open("rb") as file:
        for entry in header.values():
            file.seek(start + entry["data_offsets"][0])
            raw = file.read(entry["data_offsets"][1] - entry["data_offsets"][0])
            if not _is_finite(raw, entry["dtype"]):
                raise AdapterError(f"the adapter {name!r} holds numbers that are not finite: train it again")


def _is_finite(raw: bytes, dtype: str) -> bool:
    """Whether no number of a tensor is infinite or NaN; True for types that are not floating-point."""
    if dtype == "BF16":  # the upper half of a float32, whose exponent is all ones where it is not finite
        return not bool(np.any((np.frombuffer(raw, "<u2") & 0x7F80) == 0x7F80))
    kinds = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
    return dtype not in kinds or bool(np.isfinite(np.frombuffer(raw, kinds[dtype])).all())


def weights_sha256(folder: Path) -> str:
    """SHA-256 of the weights, as a card keeps it. Raises AdapterError."""
    try:
        with (folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AdapterError(f"{folder / WEIGHTS} cannot be read ({reason(error)}): copy the adapter again") from error


def peft_config(folder: Path) -> dict[str, Any]:
    """peft's `adapter_config.json`. Raises AdapterError when there is none or it is no JSON object."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdapterError(
            f"{folder} is not an adapter, it has no {CONFIG}: give the folder that peft wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise AdapterError(f"{folder / CONFIG} cannot be read ({reason(error)}): copy the adapter again") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{folder / CONFIG} is not a JSON object: copy the adapter again")
    return config


def stamp(folder: Path) -> int:
    """Changes when the weights do (their modification time, in ns); 0 where there are none."""
    try:
        return (folder / WEIGHTS).stat().st_mtime_ns
    except OSError:
        return 0


def _targets(config: Mapping[str, Any]) -> tuple[str, ...]:
    targets = config.get("target_modules")
    if isinstance(targets, str):  # a regular expression, or `all-linear`: the tensors' names are checked later
        return LINEAR[:1] if any(module in targets for module in LINEAR) else (targets,)
    return tuple(str(target) for target in targets or ())


def shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """Every tensor's name and shape, from a safetensors header. Raises AdapterError for a damaged or cut file."""
    return {name: tuple(entry["shape"]) for name, entry in _header(weights)[0].items()}


def is_norm(tensor: str) -> bool:
    """Whether it is the bias of a layer norm, which not every generator supports."""
    return _NORM.search(tensor) is not None


def _header(weights: Path) -> tuple[dict[str, Any], int]:
    """The header's tensors, and where in the file their bytes begin; every offset is checked against the file's
    size."""
    damaged = f"{weights} is damaged or cut short: copy the adapter again"
    try:
        with weights.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER, size - 8):
                raise AdapterError(damaged)
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        start = 8 + length
        for entry in header.values():
            begin, end = entry["data_offsets"]
            width = _STRUCTURES.get(entry["dtype"], (None, None))[1]
            count = 1
            for dimension in entry["shape"]:
                count *= int(dimension)
            if not 0 <= begin <= end <= size - start or (width is not None and end - begin != count * width):
                raise AdapterError(damaged)
        if max((entry["data_offsets"][1] for entry in header.values()), default=0) != size - start:
            raise AdapterError(damaged)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise AdapterError(damaged) from error
    return header, start


def fingerprint(config: Mapping[str, Any], probe: Sequence[float] = ()) -> str:
    """A base model in a form that people can compare: `gpt2 768x12x12, 50257 tokens, 1024 positions`.

    The numbers are width × layers × heads. `probe`, the first weights of the token embedding (`[0, :8]`), distinguishes
    bases of the same shape; it follows the shape, rounded so that fp16 and fp32 files of one base agree.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    sizes = (family.read(config, name, 0) if family else config.get(name, 0) for name in _ARCHITECTURE)
    width, layers, heads, vocabulary, positions = sizes
    shape = f"{config.get('model_type', 0)} {width}x{layers}x{heads}, {vocabulary} tokens, {positions} positions"
    return shape + "".join(f" {value:+.4f}" for value in probe[:PROBE])


def folder_fingerprint(folder: Path) -> str:
    """`fingerprint` of a base model's folder, without torch; with a probe where it has `model.safetensors`.

    Raises ModelError when the folder holds no `config.json`, or one of an unknown family.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} is not a model: config.json is missing or unreadable") from error
    family = family_of(config, folder.name)
    weights = folder / "model.safetensors"
    embedding = f"{family.embedding}.weight"
    return fingerprint(config, _probe(weights, f"{family.root}.{embedding}", embedding) if weights.is_file() else ())


def _probe(weights: Path, *names: str) -> tuple[float, ...]:
    header, start = _header(weights)
    name = next((name for name in names if name in header), None)
    if name is None or header[name]["dtype"] not in _STRUCTURES:
        return ()
    letter, width = _STRUCTURES[header[name]["dtype"]]
    with weights.open("rb") as file:
        file.seek(start + header[name]["data_offsets"][0])
        values = struct.unpack(f"<{PROBE}{letter}", file.read(PROBE * width))
    if letter == "H":  # bf16 is the upper half of a float
        return tuple(struct.unpack("<f", struct.pack("<I", value << 16))[0] for value in values)
    return tuple(float(value) for value in values)


def same_base(one: str, other: str) -> bool:
    """Whether two fingerprints may be of the same base: equal shapes, and probes that agree where both have one."""
    if not one or not other:
        return True
    shape, probe = _split(one)
    other_shape, other_probe = _split(other)
    slack = 1e-4 + _PROBE_TOLERANCE * max(map(abs, (*probe, *other_probe)), default=0.0)
    return shape == other_shape and all(abs(a - b) <= slack for a, b in zip(probe, other_probe, strict=False))


def _split(fingerprint_text: str) -> tuple[str, tuple[float, ...]]:
    match = _FINGERPRINT.match(fingerprint_text)
    if match is None:
        return fingerprint_text, ()
    return match[0], tuple(float(number) for number in fingerprint_text[match.end() :].split())


def shape_of(fingerprint_text: str) -> str:
    """The part of a fingerprint for error messages."""
    return _split(fingerprint_text)[0]
