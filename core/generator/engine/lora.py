"""A LoRA adapter as peft saves it → the low-rank matrices of each layer, to be added to an unmerged base.

Knows peft's file format and which of its options the engine does not support; those are refused here. Computes no
forward pass.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from core.adapters import CARD, Card
from core.adapters.validation import WEIGHTS, check, peft_config, same_base, shape_of
from core.errors import AdapterError
from core.generator import Adapter
from core.generator.engine.checkpoint import ModelConfig
from core.generator.families import Family

Site: TypeAlias = tuple[int, str]
"""Layer number and module: `(0, "attn.c_attn")`."""


def _tensors(family: Family) -> re.Pattern[str]:
    """The names of what an adapter for this family may hold, as peft writes them."""
    linear = "|".join(re.escape(name) for name in (*family.linear, *family.norms[:2]))
    return re.compile(
        rf"^base_model\.model\.(?:{family.root}\.)?(?:{family.blocks}\.(?P<layer>\d+)\.(?P<module>{linear})"
        rf"|(?P<last>{family.norms[2]}))\.(?:(?P<lora>lora_[AB])\.(?P<what>weight|bias)|(?:base_layer\.)?bias)$"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What an adapter adds to one linear layer: `x @ down.T @ up + bias`."""

    down: Tensor
    """(rank, inputs) float32, contiguous; rank 0 where only the bias changes."""
    up: Tensor
    """(rank, outputs) float32, contiguous, scaling included."""
    bias: Tensor | None = None
    """(outputs,) float32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lora:
    """One loaded adapter. Running requests keep a reference, so unloading it does not affect them."""

    id: str
    path: Path
    deltas: Mapping[Site, Delta] = field(repr=False)
    last_norm: Tensor | None = field(default=None, repr=False)
    """(width,) float32: what is added to the last layer norm's output (only `bias="all"` trains that)."""
    native: dict[str, Any] = field(default_factory=dict, repr=False)
    """Where `model_native` keeps its own form of this adapter."""


Biases: TypeAlias = Mapping[str, Tensor]
"""The base's biases by their names below the root (`h.0.attn.c_attn.bias`): an adapter contains whole biases, and
we add the differences."""


Weights: TypeAlias = Callable[[Site], Tensor]
"""A matrix of the base by site, (outputs, inputs) float32."""


def read_lora(adapter: Adapter, shape: ModelConfig, fingerprint: str, biases: Biases, weights: Weights) -> Lora:
    """Read and check an adapter. Raises AdapterError when it is missing, damaged, for another base or not supported.

    `fingerprint` is the base's; `weights` is asked only by adapters that train layer norms.
    """
    name = adapter.id
    check(adapter.path)
    config = peft_config(adapter.path)
    _fits(adapter, fingerprint)
    family = shape.family
    pattern = _tensors(family)
    try:
        tensors = load_file(adapter.path / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"the adapter {name!r} has a damaged {WEIGHTS} ({error}): copy or save it again") from error
    parts: dict[Site, dict[str, Tensor]] = {}
    last: Tensor | None = None
    for key, tensor in tensors.items():
        found = pattern.match(key)
        if found is None or (found["lora"] and found["module"] not in family.linear):
            raise AdapterError(
                f"the adapter {name!r} changes {key}, and the engine serves {', '.join(family.targets)}:"
                " train it on those or set PERSON2_GENERATOR=transformers"
            )
        tensor = tensor.to(torch.float32).contiguous()
        if found["lora"]:
            parts.setdefault((int(found["layer"]), found["module"]), {})[found["lora"] + found["what"]] = tensor
            continue
        place = found["last"] or f"{family.blocks}.{found['layer']}.{found['module']}"
        own = biases.get(f"{place}.bias")
        if own is None or own.shape != tensor.shape:
            raise _for_another_base(name, key)
        if found["last"]:
            last = tensor - own
        else:
            parts.setdefault((int(found["layer"]), found["module"]), {})["bias"] = tensor - own
    linear = set(family.linear)
    deltas = {site: _delta(name, site, part, shape, config) for site, part in parts.items() if site[1] in linear}
    for (layer, norm), part in parts.items():
        if norm not in linear:
            site = (layer, shape.groups[0 if norm == family.norms[0] else 2][0])
            deltas[site] = _with_norm_shift(deltas.get(site), part["bias"], weights(site))
    return Lora(id=name, path=adapter.path, deltas=deltas, last_norm=last)


def _fits(adapter: Adapter, fingerprint: str) -> None:
    """Raises AdapterError when the adapter's card names another base than `fingerprint`; shapes are checked later."""
    card = adapter.path / CARD
    if not card.is_file():
        return
    made_for = Card.from_json(card.read_text(encoding="utf-8"))
    if not same_base(made_for.base_fingerprint, fingerprint):
        raise AdapterError(
            f"the adapter {adapter.id!r} was made for {made_for.base} ({shape_of(made_for.base_fingerprint)}), and the"
            f" base here is {shape_of(fingerprint)}: set PERSON2_BASE_MODEL to its base or choose another adapter"
        )


def _for_another_base(name: str, tensor: str) -> AdapterError:
    return AdapterError(
        f"the adapter {name!r} does not fit this base model (at {tensor}): set PERSON2_BASE_MODEL to its base or choose"
        " another"
    )


def _delta(name: str, site: Site, part: Mapping[str, Tensor], shape: ModelConfig, config: Mapping[str, Any]) -> Delta:
    layer, module = site
    place = f"{shape.family.root}.{shape.family.blocks}.{layer}.{module}"
    inputs, outputs = shape.sizes(module)
    down, up = part.get("lora_Aweight"), part.get("lora_Bweight")
    if (down is None) != (up is None) or layer >= shape.layers:
        raise _for_another_base(name, place)
    bias = part.get("bias")
    if down is None or up is None:
        return Delta(down=torch.zeros(0, inputs), up=torch.zeros(0, outputs), bias=bias)
    if down.shape != (up.shape[1], inputs) or up.shape[0] != outputs:
        raise _for_another_base(name, place)
    scaling = _scaling(config, place, rank=down.shape[0])
    extra = part.get("lora_Bbias")
    if extra is not None:  # peft's lora_bias=True: a bias of the low-rank product, scaled with it
        bias = extra * scaling + (0 if bias is None else bias)
    return Delta(down=down, up=(up.t() * scaling).contiguous(), bias=bias)


def _scaling(config: Mapping[str, Any], module: str, *, rank: int) -> float:
    """alpha / rank, or alpha / √rank (rsLoRA, arXiv:2312.03732); `alpha_pattern` matches as peft matches it."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    fitting = [alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", module)]
    alpha = float(fitting[0] if fitting else config.get("lora_alpha", 8))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _with_norm_shift(delta: Delta | None, shift: Tensor, weight: Tensor) -> Delta:
    """Add `shift` to a layer norm's bias by adding weight @ shift to the bias of the linear layer behind it."""
    bias = weight @ shift
    if delta is None:
        return Delta(down=weight.new_zeros(0, weight.shape[1]), up=weight.new_zeros(0, weight.shape[0]), bias=bias)
    bias = bias + (shift @ delta.down.t()) @ delta.up
    return Delta(down=delta.down, up=delta.up, bias=bias if delta.bias is None else bias + delta.bias)


def spans(loras: Sequence[Lora | None]) -> list[tuple[Lora, int, int]]:
    """Runs of rows with the same adapter: (adapter, first row, end)."""
    runs: list[tuple[Lora, int, int]] = []
    for row, lora in enumerate(loras):
        if lora is None:
            continue
        if runs and runs[-1][0] is lora and runs[-1][2] == row:
            runs[-1] = (lora, runs[-1][1], row + 1)
        else:
            runs.append((lora, row, row + 1))
    return runs
