"""A model in one compiled call per step (`kernels`): int8 weights, int8 keys and values, no Python per layer.

This file lays out memory for it and calls it; what is computed, and why a row's result depends only on its own
conversation, is in the C files. Where there is no library, `model_torch` computes the same model.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from numpy.typing import NDArray
from torch import Tensor

from core.generator.engine.checkpoint import Checkpoint, ModelConfig
from core.generator.engine.kernels.library import Kernels
from core.generator.engine.linear import quantize
from core.generator.engine.lora import Lora
from core.generator.engine.model import Chunk, KVCache, rounded
from core.generator.sampling import WIDE_HEAD, TopTokens, top_tokens

BLOCK = 64
"""Widths are padded with zeros to a multiple of this, so that every kind of kernels finds whole blocks and vectors."""
KEYS = 16
"""Keys per block of the cache, as in `kernels.h`."""
MAX_HEAD_WIDTH = 256
MAX_PARTS = 3
DOWN = 3
"""The last group of a block (`ModelConfig.groups`). In a gated network its inputs are products with outliers, hundreds
of times as large as the rest: with eight bits SmolLM2's bits per byte rise by 1.8 %, with fifteen by 0.1 %."""
NEAR = 8.0
"""Tokens at least e^-8 times as likely as the likeliest are looked at first when one is drawn."""
_ROW = np.dtype([("token", "i4"), ("position", "i4"), ("cache", "u8"), ("lora", "u8")], align=True)
_ACTIVATIONS = {"gelu_new": 0, "relu": 1, "gelu": 2, "silu": 3}

_Pointer, _Long = ctypes.c_void_p, ctypes.c_int64


# The structures of `kernels.h`, field by field.


class _CLinear(ctypes.Structure):
    _fields_ = [
        *((name, _Pointer) for name in ("weight", "scale", "bias")),
        *((name, _Long) for name in ("inputs", "outputs", "slot", "parts")),
        ("ends", _Long * MAX_PARTS),
        ("outliers", _Long),
    ]


class _CLayer(ctypes.Structure):
    _fields_ = [
        ("linear", _CLinear * 4),
        ("norm", _Pointer * 2),
        ("shift", _Pointer * 2),
        ("head_norms", _Pointer * 2),
    ]


class _CModel(ctypes.Structure):
    _fields_ = [
        *((name, _Pointer) for name in ("kernels", "layers")),
        ("head", _CLinear),
        *((name, _Pointer) for name in ("embedding", "positions", "rotary", "last_norm", "last_shift")),
        *(
            (name, _Long)
            for name in ("count", "width", "heads", "kv_heads", "head_width", "inner", "activation", "slots")
        ),
        *((name, _Long) for name in ("key_at", "value_at")),
        ("epsilon", ctypes.c_double),
    ]


class _CDelta(ctypes.Structure):
    _fields_ = [*((name, _Pointer) for name in ("down", "up", "bias")), ("rank", _Long), ("outputs", _Long)]


class _CLora(ctypes.Structure):
    _fields_ = [("deltas", _Pointer), ("last", _Pointer)]


class _CKVCache(ctypes.Structure):
    _fields_ = [*((name, _Pointer) for name in ("keys", "values", "key_scale", "value_scale")), ("capacity", _Long)]


class _CCall(ctypes.Structure):
    _fields_ = [
        ("model", _Pointer),
        ("rows", _Pointer),
        ("row_count", _Long),
        ("wanted", _Pointer),
        ("wanted_count", _Long),
        ("logits", _Pointer),
        ("scratch", _Pointer),
        *((name, _Long) for name in ("threads", "max_rank", "context")),
    ]


class NativeKVCache:
    """keys (layers, kv heads, capacity / 16, head width × 16) and values (layers, kv heads, capacity, head width) int8,
    and a float32 scale for each token and head of both."""

    def __init__(self, config: ModelConfig, capacity: int) -> None:
        self._config, self.capacity = config, capacity
        heads, width = (config.layers, config.kv_heads), config.head_width
        self._keys = torch.empty((*heads, capacity // KEYS, width * KEYS), dtype=torch.int8)
        self._values = torch.empty((*heads, capacity, width), dtype=torch.int8)
        self._scales = torch.empty((2, *heads, capacity))
        self._view = _CKVCache(
            keys=self._keys.data_ptr(),
            values=self._values.data_ptr(),
            key_scale=self._scales[0].data_ptr(),
            value_scale=self._scales[1].data_ptr(),
            capacity=capacity,
        )
        self.address = ctypes.addressof(self._view)

    @property
    def bytes(self) -> int:
        return self._keys.nbytes + self._values.nbytes + self._scales.nbytes

    def resized(self, tokens: int, *, keep: int) -> "NativeKVCache":
        cache = NativeKVCache(self._config, rounded(tokens))
        blocks = -(-keep // KEYS)
        cache._keys[:, :, :blocks] = self._keys[:, :, :blocks]
        cache._values[:, :, :keep] = self._values[:, :, :keep]
        cache._scales[..., :keep] = self._scales[..., :keep]
        return cache


def serves(config: ModelConfig) -> bool:
    """Whether the C code supports this shape: all published models of the families, but not every tiny one."""
    return config.width % BLOCK == 0 and config.head_width % KEYS == 0 and config.head_width <= MAX_HEAD_WIDTH


class NativeModel:
    """A whole model in the library's layout, built from the tensors of a checkpoint."""

    def __init__(self, kernels: Kernels, checkpoint: Checkpoint, *, threads: int) -> None:
        self.config = config = checkpoint.config
        self.kernels = kernels.name
        self._chosen = kernels
        self._threads = threads
        self._kept: list[Any] = []
        """Everything that C pointers refer to, kept as long as the model."""
        library = kernels.library
        self._step = library.person2_step
        self._step.restype, self._step.argtypes = None, [_Pointer]
        self._scratch_size = library.person2_scratch
        self._scratch_size.restype, self._scratch_size.argtypes = _Long, [_Pointer]
        self._top_tokens = library.person2_top_tokens
        self._top_tokens.restype = None
        self._top_tokens.argtypes = [
            _Pointer, _Pointer, _Long, _Long, _Long, _Pointer, ctypes.c_float, _Long, *[_Pointer] * 4
        ]  # fmt: skip
        layers = (_CLayer * config.layers)()
        for number, layer in enumerate(layers):
            self._fill_layer(layer, checkpoint, number)
        table, head = checkpoint.embedding(), checkpoint.head()
        positions = checkpoint.positions()
        weight, shift = checkpoint.norm(None, config.family.norms[2])
        self._padded = -(-config.vocabulary // BLOCK) * BLOCK
        self._kept.append(layers)
        ends = layers[0].linear[0].ends
        queries = config.heads * config.head_width
        apart = len(config.groups[0]) > 1
        self._model = _CModel(
            kernels=kernels.address,
            layers=ctypes.addressof(layers),
            head=self._linear([table if head is None else head], [None], slot=-1),
            embedding=self._keep(table.half()),
            positions=None if positions is None else self._keep(positions),
            rotary=self._keep(config.rotations()) if config.frequencies else None,
            last_norm=self._keep(weight),
            last_shift=None if shift is None else self._keep(shift),
            count=config.layers,
            width=config.width,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_width=config.head_width,
            inner=_padded_width(config.inner),
            activation=_ACTIVATIONS[config.activation],
            slots=len(config.family.linear),
            key_at=ends[0] if apart else queries,
            value_at=ends[1] if apart else queries + config.kv_heads * config.head_width,
            epsilon=config.epsilon,
        )
        self.release()

    def release(self) -> None:
        self._scratch = torch.empty(0)
        self._logits = torch.empty(0, self._padded)

    def _fill_layer(self, layer: _CLayer, checkpoint: Checkpoint, number: int) -> None:
        config, slot = self.config, 0
        for index, group in enumerate(config.groups):
            weights = [checkpoint.weight(number, module) for module in group]
            biases = [checkpoint.bias(number, module) for module in group]
            if config.family.positions == "learned" and index == 0 and biases[0] is not None:
                # A bias of the keys adds the same number to all scores of a query, which softmax ignores; without it
                # keys are smaller and quantize better. (With rotary positions it would not cancel.)
                biases[0][config.width : 2 * config.width] = 0
            outliers = config.family.gated and index == DOWN
            layer.linear[index] = self._linear(weights, biases, slot=slot, outliers=outliers)
            slot += len(group)
        for index, name in enumerate(config.family.norms[:2]):
            weight, shift = checkpoint.norm(number, name)
            layer.norm[index] = self._keep(weight)
            layer.shift[index] = None if shift is None else self._keep(shift)
        for index, name in enumerate(config.family.head_norms):
            layer.head_norms[index] = self._keep(checkpoint.norm(number, name)[0])

    def new_cache(self, tokens: int) -> NativeKVCache:
        return NativeKVCache(self.config, rounded(tokens))

    def cache_bytes(self, tokens: int) -> int:
        config = self.config
        return config.layers * config.kv_heads * 2 * rounded(tokens) * (config.head_width + 4)

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        count = sum(len(chunk.tokens) for chunk in chunks)
        rows = np.empty(count, dtype=_ROW)
        requested: list[int] = []
        max_rank, row = 0, 0
        for chunk in chunks:
            end = row + len(chunk.tokens)
            part = rows[row:end]
            part["token"] = chunk.tokens
            part["position"] = np.arange(chunk.start, chunk.start + len(chunk.tokens))
            part["cache"] = _address(chunk.cache)
            part["lora"], rank = self._lora(chunk.lora)
            max_rank = max(max_rank, rank)
            requested.extend(range(end - chunk.logits, end))
            row = end
        requested_rows = np.array(requested, dtype=np.int64)
        if len(self._logits) < len(requested):
            self._logits = torch.empty((len(requested), self._padded))
        logits = self._logits[: len(requested)]
        call = _CCall(
            model=ctypes.addressof(self._model),
            rows=rows.ctypes.data,
            row_count=count,
            wanted=requested_rows.ctypes.data,
            wanted_count=len(requested),
            logits=logits.data_ptr(),
            threads=self._threads,
            max_rank=max_rank,
            context=self.config.context,
        )
        needed = self._scratch_size(ctypes.addressof(call))
        if len(self._scratch) < needed:
            self._scratch = torch.empty(needed)
        call.scratch = self._scratch.data_ptr()
        self._step(ctypes.addressof(call))
        return logits[:, : self.config.vocabulary]

    def search(self, logits: Tensor, temperatures: NDArray[np.float32]) -> list[TopTokens]:
        """As `sampling.top_tokens`; empty for a row where more than WIDE_HEAD tokens are near the likeliest."""
        if logits.stride(1) != 1:
            return top_tokens(logits, temperatures)
        rows, vocabulary = logits.shape
        inverse = 1 / temperatures
        tokens = np.empty((rows, WIDE_HEAD), dtype=np.int32)
        values = np.empty((rows, WIDE_HEAD), dtype=np.float32)
        counts, totals = np.empty(rows, dtype=np.int64), np.empty(rows)
        self._top_tokens(
            self._chosen.address,
            logits.data_ptr(),
            rows,
            logits.stride(0),
            vocabulary,
            inverse.ctypes.data,
            NEAR,
            WIDE_HEAD,
            *(array.ctypes.data for array in (tokens, values, counts, totals)),
        )
        found = []
        for row, count in enumerate(counts.tolist()):
            kept = count if count <= WIDE_HEAD else 0
            order = np.argsort(-values[row, :kept], kind="stable")
            found.append(
                TopTokens(
                    values=values[row][order].astype(np.float64),
                    tokens=tokens[row][order],
                    logsumexp=float(totals[row]),
                )
            )
        return found

    def _keep(self, tensor: Tensor) -> int:
        tensor = tensor.contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _linear(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor | None], *, slot: int, outliers: bool = False
    ) -> _CLinear:
        """Layers (N, K) float32 side by side → int8 in the kernels' block layout, N and K padded with zeros."""
        parts = [quantize(F.pad(weight, (0, -weight.shape[1] % BLOCK))) for weight in weights]
        quantized = torch.cat([F.pad(part, (0, 0, 0, -len(part) % BLOCK)) for part, _ in parts])
        scale = torch.cat([F.pad(scale, (0, -len(scale) % BLOCK)) for _, scale in parts])
        bias = torch.cat(
            [
                F.pad(torch.zeros(len(weight)) if bias is None else bias, (0, -len(weight) % BLOCK))
                for weight, bias in zip(weights, biases, strict=True)
            ]
        )
        outputs, inputs = quantized.shape
        columns, group = self._chosen.columns, self._chosen.group or inputs
        if self._chosen.zero_point:
            quantized = (quantized.view(torch.uint8) ^ 128).view(torch.int8)
        packed = quantized.view(-1, columns, inputs // group, group).transpose(1, 2)
        ends = np.cumsum([_padded_width(len(weight)) for weight in weights]).tolist()
        return _CLinear(
            weight=self._keep(packed),
            scale=self._keep(scale),
            bias=self._keep(bias),
            inputs=inputs,
            outputs=outputs,
            slot=slot,
            parts=len(weights),
            ends=(_Long * MAX_PARTS)(*ends),
            outliers=outliers,
        )

    def _lora(self, lora: Lora | None) -> tuple[int, int]:
        """The address of an adapter's C structure, made once, and its largest rank; 0 for none."""
        if lora is None:
            return 0, 0
        if "view" not in lora.native:
            kept: list[Tensor] = []

            def keep(tensor: Tensor) -> int:
                kept.append(F.pad(tensor, (0, -tensor.shape[-1] % BLOCK)).contiguous())
                return kept[-1].data_ptr()

            modules = self.config.family.linear
            deltas = (_CDelta * (self.config.layers * len(modules)))()
            for (layer, module), delta in lora.deltas.items():
                deltas[layer * len(modules) + modules.index(module)] = _CDelta(
                    down=keep(delta.down),
                    up=keep(delta.up),
                    bias=None if delta.bias is None else keep(delta.bias),
                    rank=len(delta.down),
                    outputs=_padded_width(delta.up.shape[1]),
                )
            last = lora.last_norm.data_ptr() if lora.last_norm is not None else None
            lora.native["kept"] = (deltas, kept)
            lora.native["rank"] = max((len(delta.down) for delta in lora.deltas.values()), default=0)
            lora.native["view"] = _CLora(deltas=ctypes.addressof(deltas), last=last)
        return ctypes.addressof(lora.native["view"]), lora.native["rank"]


def _padded_width(width: int) -> int:
    return -(-width // BLOCK) * BLOCK


def _address(cache: KVCache) -> int:
    if not isinstance(cache, NativeKVCache):
        raise TypeError("the cache of another model")
    return cache.address
