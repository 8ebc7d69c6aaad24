"""GPT-2 in one compiled call a step (`step.c`): int8 weights, int8 keys and values, nothing of Python per layer.

This file lays out memory for it and calls it; what is computed, and why a row's result depends on nothing but its own
conversation, stands in the C file. Where it cannot be built, `eager` computes the same model with torch.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.generator.engine.checkpoint import ModelConfig, ReadTensor
from core.generator.engine.linear import quantize
from core.generator.engine.lora import MODULES, Delta, Lora
from core.generator.engine.model import Chunk, KVCache, rounded
from core.generator.engine.sampling import WIDE_HEAD, TopTokens, top_tokens

COLUMNS = 64
"""Output channels in a block of packed weights, and keys in four vectors: what `step.c` calls COLUMNS."""
LANES = 16
NEAR = 8.0
"""Tokenizer at least e^-8 as likely as the top_tokens are looked at first when one is drawn."""
_ROW = np.dtype([("token", "i4"), ("place", "i4"), ("cache", "u8"), ("lora", "u8")], align=True)
_ACTIVATIONS = {"gelu_new": 0, "relu": 1}

_Pointer, _Long = ctypes.c_void_p, ctypes.c_int64


class _Linear(ctypes.Structure):
    _fields_ = [("weight", _Pointer), ("scale", _Pointer), ("bias", _Pointer), ("inputs", _Long), ("outputs", _Long)]


class _Layer(ctypes.Structure):
    _fields_ = [("linear", _Linear * len(MODULES)), ("norm", _Pointer * 2), ("shift", _Pointer * 2)]


class _ModelStruct(ctypes.Structure):
    _fields_ = [
        ("layers", _Pointer),
        ("head", _Linear),
        *((name, _Pointer) for name in ("words", "places", "last_norm", "last_shift")),
        *((name, _Long) for name in ("count", "width", "heads", "head_width", "inner", "activation")),
        ("epsilon", ctypes.c_double),
    ]


class _Delta(ctypes.Structure):
    _fields_ = [("down", _Pointer), ("up", _Pointer), ("bias", _Pointer), ("rank", _Long)]


class _Lora(ctypes.Structure):
    _fields_ = [("deltas", _Pointer), ("last", _Pointer)]


class _KVCache(ctypes.Structure):
    _fields_ = [*((name, _Pointer) for name in ("keys", "values", "key_scale", "value_scale")), ("capacity", _Long)]


class _Call(ctypes.Structure):
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
    """keys (layers, heads, capacity / 16, head width / 4, 16, 4) uint8, values (layers, heads, capacity, head width)
    int8, and a float32 scale for each token and head of both."""

    def __init__(self, config: ModelConfig, capacity: int) -> None:
        self._config, self.capacity = config, capacity
        heads, width = (config.layers, config.heads), config.head_width
        self._keys = torch.empty((*heads, capacity // LANES, width * LANES), dtype=torch.uint8)
        self._values = torch.empty((*heads, capacity, width), dtype=torch.int8)
        self._scales = torch.empty((2, *heads, capacity))
        self._view = _KVCache(
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
        blocks = -(-keep // LANES)
        cache._keys[:, :, :blocks] = self._keys[:, :, :blocks]
        cache._values[:, :, :keep] = self._values[:, :, :keep]
        cache._scales[..., :keep] = self._scales[..., :keep]
        return cache


def serves(config: ModelConfig) -> bool:
    """Whether the C code computes this config: every GPT-2 that was published, but not every tiny one."""
    return (
        config.width % COLUMNS == 0
        and config.inner % COLUMNS == 0
        and config.head_width % LANES == 0
        and config.activation in _ACTIVATIONS
    )


class NativeModel:
    """A whole model in the library's layout, built from the tensors `take` gives."""

    kernels = "avx512"

    def __init__(self, library: ctypes.CDLL, config: ModelConfig, take: ReadTensor, *, threads: int) -> None:
        self.config = config
        self._threads = threads
        self._kept: list[Any] = []
        """Everything the C side points to, for as long as this lives."""
        self._step = library.person2_step
        self._step.restype, self._step.argtypes = None, [_Pointer]
        self._scratch_size = library.person2_scratch
        self._scratch_size.restype, self._scratch_size.argtypes = _Long, [_Pointer, _Long, _Long, _Long, _Long]
        self._likeliest = library.person2_likeliest
        self._likeliest.restype = None
        self._likeliest.argtypes = [_Pointer, _Long, _Long, _Long, _Pointer, ctypes.c_float, _Long, *[_Pointer] * 4]
        layers = (_Layer * config.layers)()
        for number, layer in enumerate(layers):
            place = f"h.{number}"
            for slot, module in enumerate(MODULES):
                bias = take(f"{place}.{module}.bias").clone()
                if module == "attn.c_attn":
                    bias[config.width : 2 * config.width] = 0  # softmax does not see it (step.c)
                layer.linear[slot] = self._linear(take(f"{place}.{module}.weight").t(), bias)
            for slot, norm in enumerate(("ln_1", "ln_2")):
                layer.norm[slot] = self._keep(take(f"{place}.{norm}.weight"))
                layer.shift[slot] = self._keep(take(f"{place}.{norm}.bias"))
        table = take("wte.weight")
        self._padded = -(-config.vocabulary // COLUMNS) * COLUMNS
        self._kept.append(layers)
        self._model = _ModelStruct(
            layers=ctypes.addressof(layers),
            head=self._linear(table, None),
            words=self._keep(table.half()),
            places=self._keep(take("wpe.weight")),
            last_norm=self._keep(take("ln_f.weight")),
            last_shift=self._keep(take("ln_f.bias")),
            count=config.layers,
            width=config.width,
            heads=config.heads,
            head_width=config.head_width,
            inner=config.inner,
            activation=_ACTIVATIONS[config.activation],
            epsilon=config.epsilon,
        )
        self._scratch = torch.empty(0)

    def new_cache(self, tokens: int) -> NativeKVCache:
        return NativeKVCache(self.config, rounded(tokens))

    def cache_bytes(self, tokens: int) -> int:
        config = self.config
        return config.layers * config.heads * 2 * rounded(tokens) * (config.head_width + 4)

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        count = sum(len(chunk.tokens) for chunk in chunks)
        rows = np.empty(count, dtype=_ROW)
        wanted: list[int] = []
        max_rank, row = 0, 0
        for chunk in chunks:
            behind = row + len(chunk.tokens)
            part = rows[row:behind]
            part["token"] = chunk.tokens
            part["place"] = np.arange(chunk.start, chunk.start + len(chunk.tokens))
            part["cache"] = _address(chunk.cache)
            part["lora"], rank = self._lora(chunk.lora)
            max_rank = max(max_rank, rank)
            wanted.extend(range(behind - chunk.logits, behind))
            row = behind
        wanted_rows = np.array(wanted, dtype=np.int64)
        logits = torch.empty((len(wanted), self._padded))
        model = ctypes.addressof(self._model)
        needed = self._scratch_size(model, count, self._threads, max_rank, self.config.context)
        if len(self._scratch) < needed:
            self._scratch = torch.empty(needed)
        call = _Call(
            model=model,
            rows=rows.ctypes.data,
            row_count=count,
            wanted=wanted_rows.ctypes.data,
            wanted_count=len(wanted),
            logits=logits.data_ptr(),
            scratch=self._scratch.data_ptr(),
            threads=self._threads,
            max_rank=max_rank,
            context=self.config.context,
        )
        self._step(ctypes.addressof(call))
        return logits[:, : self.config.vocabulary]

    def search(self, logits: Tensor, temperatures: NDArray[np.float32]) -> list[TopTokens]:
        """As `sampling.top_tokens`; none where more than WIDE_HEAD tokens come near the first."""
        if logits.stride(1) != 1:
            return top_tokens(logits, temperatures)
        rows, vocabulary = logits.shape
        inverse = 1 / temperatures
        tokens = np.empty((rows, WIDE_HEAD), dtype=np.int32)
        values = np.empty((rows, WIDE_HEAD), dtype=np.float32)
        counts, whole = np.empty(rows, dtype=np.int64), np.empty(rows)
        self._likeliest(
            logits.data_ptr(),
            rows,
            logits.stride(0),
            vocabulary,
            inverse.ctypes.data,
            NEAR,
            WIDE_HEAD,
            *(array.ctypes.data for array in (tokens, values, counts, whole)),
        )
        found = []
        for row, count in enumerate(counts.tolist()):
            kept = count if count <= WIDE_HEAD - LANES else 0
            order = np.argsort(-values[row, :kept], kind="stable")
            found.append(
                TopTokens(
                    values=values[row][order].astype(np.float64), tokens=tokens[row][order], whole=float(whole[row])
                )
            )
        return found

    def _keep(self, tensor: Tensor) -> int:
        tensor = tensor.contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _linear(self, weight: Tensor, bias: Tensor | None) -> _Linear:
        """(N, K) float32 → (N / 64, K / 4, 64, 4) uint8 around 128, N filled up with zeros."""
        whole, scale = quantize(weight)
        outputs, inputs = whole.shape
        filled = -outputs % COLUMNS
        whole = torch.nn.functional.pad(whole, (0, 0, 0, filled))
        packed = (whole.view(torch.uint8) ^ 128).view(-1, COLUMNS, inputs // 4, 4).transpose(1, 2)
        bias = torch.zeros(outputs) if bias is None else bias
        return _Linear(
            weight=self._keep(packed),
            scale=self._keep(torch.nn.functional.pad(scale, (0, filled))),
            bias=self._keep(torch.nn.functional.pad(bias, (0, filled))),
            inputs=inputs,
            outputs=outputs + filled,
        )

    def _lora(self, lora: Lora | None) -> tuple[int, int]:
        """The address of an adapter in C's form, made once, and its largest rank; 0 for none."""
        if lora is None:
            return 0, 0
        if "view" not in lora.native:
            empty = Delta(down=torch.zeros(0), up=torch.zeros(0))
            found = [
                lora.deltas.get((layer, module), empty) for layer in range(self.config.layers) for module in MODULES
            ]
            deltas = (_Delta * len(found))(
                *(
                    _Delta(
                        down=delta.down.data_ptr(),
                        up=delta.up.data_ptr(),
                        bias=delta.bias.data_ptr() if delta.bias is not None else None,
                        rank=len(delta.down),
                    )
                    for delta in found
                )
            )
            last = lora.last_norm.data_ptr() if lora.last_norm is not None else None
            lora.native["deltas"] = deltas
            lora.native["view"] = _Lora(deltas=ctypes.addressof(deltas), last=last)
            lora.native["rank"] = max(len(delta.down) for delta in found)
        return ctypes.addressof(lora.native["view"]), lora.native["rank"]


def _address(cache: KVCache) -> int:
    if not isinstance(cache, NativeKVCache):
        raise TypeError("the cache of another model")
    return cache.address
