"""A model's folder on disk → its configuration and its tensors, without transformers (importing that takes seconds).

Knows file names, and which variants of the families (`core.generator.families`) the engine supports; computes nothing.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.errors import ModelError
from core.generator.families import Family, context_of, family_of

_ACTIVATIONS = {"gelu_new": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "gelu": "gelu", "relu": "relu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a model, in the same terms for every family."""

    family: Family
    vocabulary: int
    context: int
    """Most tokens of prompt and reply together."""
    width: int
    layers: int
    heads: int
    kv_heads: int
    """Heads of keys and values, each shared by several query heads (Ainslie et al. 2023, arXiv:2305.13245)."""
    head_width: int
    inner: int
    """Width of the feed-forward layer."""
    epsilon: float
    activation: str
    """`gelu_new`, `gelu`, `relu`, or `silu` of a gated network."""
    frequencies: tuple[float, ...] = ()
    """(head_width / 2,): radians per token by which each pair of a head is rotated; empty where positions are
    learned."""
    tied: bool = True
    """Whether the output head shares the embedding's weights."""

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The linear layers of a block that read the same input, in the order they are computed: queries, keys and
        values; attention's output; the feed-forward network's first layers; its last."""
        linear = self.family.linear
        attention = 3 if len(linear) == 7 else 1
        first = 2 if self.family.gated else 1
        cuts = (0, attention, attention + 1, attention + 1 + first, len(linear))
        return tuple(linear[begin:end] for begin, end in pairwise(cuts))

    def sizes(self, module: str) -> tuple[int, int]:
        """Inputs and outputs of a linear layer."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        first, out, up, _ = self.groups
        if module in first:
            outputs = (queries + 2 * keys,) if len(first) == 1 else (queries, keys, keys)
            return self.width, outputs[first.index(module)]
        if module in out:
            return queries, self.width
        return (self.width, self.inner) if module in up else (self.inner, self.width)

    def rotations(self) -> Tensor:
        """(context, 2, head_width / 2) float32: cosines and sines of every position."""
        angles = torch.arange(self.context, dtype=torch.float32)[:, None] * torch.tensor(self.frequencies)
        return torch.stack((angles.cos(), angles.sin()), dim=1)


def read_config(folder: Path) -> ModelConfig:
    """Read `config.json`. Raises ModelError for what the engine does not support."""
    config = read_json(folder / "config.json")
    family = family_of(config, str(folder))
    for key, expected in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
        ("use_sliding_window", False),
    ):
        if config.get(key, expected) != expected:
            raise _unsupported(folder, f"sets {key}={config[key]}")
    if family.gated:
        activation = str(config.get("hidden_act", "silu"))
        known = {"silu": "silu"}
    else:
        activation = str(config.get("activation_function", "gelu_new"))
        known = _ACTIVATIONS
    if activation not in known:
        raise _unsupported(folder, f"uses {activation}")
    try:
        width, heads = int(_needed(config, family, "hidden_size")), int(_needed(config, family, "num_attention_heads"))
        head_width = int(config.get("head_dim") or width // heads)
        return ModelConfig(
            family=family,
            vocabulary=int(_needed(config, family, "vocab_size")),
            context=context_of(config, family),
            width=width,
            layers=int(_needed(config, family, "num_hidden_layers")),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_width=head_width,
            inner=int(family.read(config, "intermediate_size", 4 * width)),
            epsilon=float(config.get("layer_norm_epsilon" if family.norm == "layer" else "rms_norm_eps") or 1e-5),
            activation=known[activation],
            frequencies=_frequencies(folder, config, head_width) if family.positions == "rotary" else (),
            tied=bool(config.get("tie_word_embeddings", not family.gated)),
        )
    except KeyError as error:
        raise ModelError(f"{folder / 'config.json'} lacks {error}: give a folder with a complete model") from error


def _needed(config: Mapping[str, Any], family: Family, name: str) -> Any:
    found = family.read(config, name)
    if found is None:
        raise KeyError(family.keys.get(name, name))
    return found


def _unsupported(folder: Path, what: str) -> ModelError:
    return ModelError(f"{folder} {what}, which the engine does not support: set PERSON2_GENERATOR=transformers")


def _frequencies(folder: Path, config: Mapping[str, Any], head_width: int) -> tuple[float, ...]:
    """θ^(−2i/d), and what Llama 3.1 and position interpolation (Chen et al. 2023, arXiv:2306.15595) make of it."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    share = float(rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1)
    if kind not in {"default", "linear", "llama3"} or share != 1:
        raise _unsupported(folder, f"uses an unsupported kind of position encoding ({kind})")
    plain = [theta ** (-2 * index / head_width) for index in range(head_width // 2)]
    factor = float(rope.get("factor", 1))
    if kind == "linear":
        return tuple(each / factor for each in plain)
    if kind == "default":
        return tuple(plain)
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    trained = float(rope["original_max_position_embeddings"])

    def scaled(each: float) -> float:
        """Low frequencies are divided by `factor`, high ones kept, those between interpolated (Llama 3.1's code)."""
        turns = trained * each / (2 * math.pi)
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        return (1 - share) * each / factor + share * each

    return tuple(scaled(each) for each in plain)


class Checkpoint:
    """The tensors of one model, float32, in the same names and layout for every family."""

    def __init__(self, folder: Path, config: ModelConfig, readers: Mapping[str, Callable[[str], Any]]) -> None:
        self._folder, self._readers = folder, readers
        self.config = config

    def embedding(self) -> Tensor:
        """(vocabulary, width): the embedding."""
        return self._read(f"{self.config.family.embedding}.weight")

    def positions(self) -> Tensor | None:
        """(context, width), where positions are learned."""
        return self._read("wpe.weight") if self.config.family.positions == "learned" else None

    def head(self) -> Tensor | None:
        """(vocabulary, width); None where it is the embedding."""
        return None if self.config.tied or "lm_head.weight" not in self._readers else self._read("lm_head.weight")

    def weight(self, layer: int, module: str) -> Tensor:
        """(outputs, inputs)"""
        found = self._read(f"{self._place(layer, module)}.weight")
        return found.t() if self.config.family.transposed else found

    def bias(self, layer: int, module: str) -> Tensor | None:
        """(outputs,), where there is one."""
        return self._optional(f"{self._place(layer, module)}.bias", needed=module in self.config.family.biased)

    def norm(self, layer: int | None, name: str) -> tuple[Tensor, Tensor | None]:
        """Weight and shift (width,) of a norm in a block, or of the last one; RMSNorm has no shift."""
        place = name if layer is None else self._place(layer, name)
        shifted = self.config.family.norm == "layer"
        return self._read(f"{place}.weight"), self._read(f"{place}.bias") if shifted else None

    def biases(self) -> dict[str, Tensor]:
        """Every bias that an adapter may replace, by its name below the root: `h.0.attn.c_attn.bias`."""
        family = self.config.family
        places = [
            self._place(n, name) for n in range(self.config.layers) for name in (*family.linear, *family.norms[:2])
        ]
        names = [f"{place}.bias" for place in (*places, family.norms[2])]
        found = {name: self._optional(name, needed=False) for name in names}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def _place(self, layer: int, name: str) -> str:
        return f"{self.config.family.blocks}.{layer}.{name}"

    def _optional(self, name: str, *, needed: bool) -> Tensor | None:
        if not needed and f"{self.config.family.root}.{name}" not in self._readers and name not in self._readers:
            return None
        return self._read(name)

    def _read(self, name: str) -> Tensor:
        for known in (f"{self.config.family.root}.{name}", name):
            if known in self._readers:
                tensor: Tensor = self._readers[known](known)
                return tensor.to(torch.float32, copy=True)  # a view would keep the whole file mapped
        raise ModelError(f"{self._folder} lacks the tensor {name}: give a folder with a complete model")


@contextmanager
def opened(folder: Path, config: ModelConfig) -> Iterator[Checkpoint]:
    """The tensors of a folder; its files stay mapped until the block ends, so nothing is read twice."""
    index = folder / "model.safetensors.index.json"
    legacy = folder / "pytorch_model.bin"
    with ExitStack() as stack:
        readers: dict[str, Callable[[str], Any]] = {}
        try:
            if index.exists():
                files = sorted(set(read_json(index)["weight_map"].values()))
            else:
                files = sorted(file.name for file in folder.glob("*.safetensors"))
            for file in files:
                part = stack.enter_context(safe_open(folder / file, framework="pt"))
                readers.update(dict.fromkeys(part.keys(), part.get_tensor))
            if not files and legacy.exists():
                state = torch.load(legacy, map_location="cpu", weights_only=True, mmap=True)
                readers.update(dict.fromkeys(state, state.__getitem__))
        except (SafetensorError, OSError, RuntimeError, KeyError) as error:
            raise ModelError(f"the weights in {folder} are damaged ({error}): fetch them again") from error
        if not readers:
            raise ModelError(f"there are no weights in {folder}: it needs model.safetensors")
        yield Checkpoint(folder, config, readers)


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"there is no {path.name} in {path.parent}: give a whole model folder") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}): fetch it again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is not a JSON object: fetch it again")
    return found
