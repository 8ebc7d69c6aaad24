"""The files of one adapter: are they whole, are they safe, for which base were they made?

Reads peft's `adapter_config.json` and the header of safetensors files with the standard library alone, so that a bad
adapter is refused before torch hears of it. Knows nothing of the shelf.
"""

import json
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import AdapterError, ModelError
from core.generator.families import FAMILIES, LINEAR, family_of, layer_of

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_HEADER = 100_000_000
"""Bytes; the limit safetensors itself sets to a header (its format description on huggingface.co)."""
PROBE = 8
"""Leading weights of the token embedding that tell two bases of one shape apart."""
_PROBE_TOLERANCE = 0.02  # of the largest: bf16 keeps 8 bits and Q8_0 7, 0.4 %; two trainings differ by far more
_ARCHITECTURE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings")
_FINGERPRINT = re.compile(r"\w* \d+x\d+x\d+, \d+ tokens, \d+ positions")
_STRUCTURES = {"F32": ("f", 4), "F16": ("e", 2), "BF16": ("H", 2), "F64": ("d", 8)}


def check(folder: Path) -> None:
    """Raises AdapterError, in one sentence, for anything but a whole LoRA adapter in safe files for known layers."""
    name = folder.name
    if not folder.is_dir():
        raise AdapterError(f"{folder} is no folder: an adapter is a folder with {CONFIG} and {WEIGHTS}")
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
    for option, meaning in (
        ("use_dora", "DoRA"),
        ("modules_to_save", "whole modules saved beside it"),
        ("alora_invocation_tokens", "activated LoRA"),
        ("trainable_token_indices", "tokens of its own"),
        ("target_parameters", "bare parameters as targets"),
    ):
        if config.get(option):
            raise AdapterError(f"the adapter {name!r} uses {meaning} ({option}), which is not served: train without it")
    targets = _targets(config)
    foreign = sorted(target for target in targets if target.rsplit(".", 1)[-1] not in LINEAR)
    if foreign or not targets:
        raise AdapterError(
            f"the adapter {name!r} changes {', '.join(foreign) or 'no named modules'}, and only"
            f" {_listed(LINEAR)} can be changed: train it on those"
        )
    for tensor in shapes(folder / WEIGHTS):
        if layer_of(tensor) is None:
            raise AdapterError(
                f"the adapter {name!r} holds {tensor}, which belongs to none of {_listed(LINEAR)}: train it on those"
            )


def peft_config(folder: Path) -> dict[str, Any]:
    """peft's `adapter_config.json`. Raises AdapterError when there is none or it is no JSON object."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdapterError(f"{folder} is no adapter, it has no {CONFIG}: give the folder that peft wrote") from error
    except (OSError, ValueError) as error:
        raise AdapterError(f"{folder / CONFIG} cannot be read ({error}): copy the adapter again") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{folder / CONFIG} is no JSON object: copy the adapter again")
    return config


def stamp(folder: Path) -> int:
    """Changes when the weights do (their time of writing, in ns); 0 where there are none."""
    try:
        return (folder / WEIGHTS).stat().st_mtime_ns
    except OSError:
        return 0


def _targets(config: Mapping[str, Any]) -> tuple[str, ...]:
    targets = config.get("target_modules")
    if isinstance(targets, str):  # a regular expression, or the word all-linear: the tensors' names will tell
        return LINEAR[:1] if any(module in targets for module in LINEAR) else (targets,)
    return tuple(str(target) for target in targets or ())


def shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """Every tensor's name and shape, from a safetensors header. Raises AdapterError for a damaged or cut file."""
    return {name: tuple(entry["shape"]) for name, entry in _header(weights)[0].items()}


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _header(weights: Path) -> tuple[dict[str, Any], int]:
    """The header's tensors, and where in the file their bytes begin; every claim is checked against the size."""
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
    """A base model in words a person can compare: `gpt2 768x12x12, 50257 tokens, 1024 positions`.

    The numbers are width × layers × heads. `probe`, the first weights of the token embedding (`[0, :8]`), tells
    bases of one shape apart; it is written behind the shape, coarsely, so that fp16 and fp32 files of one base agree.
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
        raise ModelError(f"{folder} is no model: config.json is missing or unreadable") from error
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
    """Whether two fingerprints may be of one base: equal shape, and probes that agree where both have one."""
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
    """The part of a fingerprint that a sentence to a person should hold."""
    return _split(fingerprint_text)[0]
