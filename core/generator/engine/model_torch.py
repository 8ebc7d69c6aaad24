"""GPT-2 in torch, one operation at a time: float32 that equals transformers + peft, or int8 weights.

All rows of all conversations go through each linear layer together; attention is done a conversation at a time on its
own cache, so nothing is padded and nobody's neighbours matter. Knows nothing of requests, sampling or text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from core.generator.engine.checkpoint import ModelConfig, ReadTensor
from core.generator.engine.linear import ROWS_ALIKE, Linear, linear
from core.generator.engine.lora import MODULES, Lora, spans
from core.generator.engine.model import Chunk, KVCache, rounded

Precision = Literal["int8", "fp32"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
}


class TorchKVCache:
    """(layers, 2, heads, capacity, head width): keys and values, float32, or bfloat16 beside int8 weights."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    @property
    def capacity(self) -> int:
        return self.values.shape[3]

    @property
    def bytes(self) -> int:
        return self.values.nbytes

    def resized(self, tokens: int, *, keep: int) -> "TorchKVCache":
        layers, two, heads, _, width = self.values.shape
        values = torch.empty((layers, two, heads, rounded(tokens), width), dtype=self.values.dtype)
        values[:, :, :, :keep] = self.values[:, :, :, :keep]
        return TorchKVCache(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


class TorchModel:
    """A whole model, built from the tensors `take` gives."""

    search = None
    kernels = "torch"

    def __init__(self, config: ModelConfig, take: ReadTensor, *, precision: Precision) -> None:
        self.config = config
        self._kept = torch.float32 if precision == "fp32" else torch.bfloat16
        table = take("wte.weight")
        # half the bytes beside int8 weights; rounding a lookup to fp16 is far below rounding the weights to int8
        self._words = table if precision == "fp32" else table.half()
        self._places = take("wpe.weight")
        self._norms = [
            (self._norm(take, f"h.{layer}.ln_1"), self._norm(take, f"h.{layer}.ln_2")) for layer in range(config.layers)
        ]
        self._layers: list[dict[str, Linear]] = [
            {
                module: linear(
                    take(f"h.{layer}.{module}.weight").t(), take(f"h.{layer}.{module}.bias"), precision=precision
                )
                for module in MODULES
            }
            for layer in range(config.layers)
        ]
        self._last = self._norm(take, "ln_f")
        self._head = linear(table, None, precision=precision)
        self._activation = _ACTIVATIONS[config.activation]

    def _norm(self, take: ReadTensor, name: str) -> _Norm:
        return _Norm(weight=take(f"{name}.weight"), bias=take(f"{name}.bias"), epsilon=self.config.epsilon)

    def new_cache(self, tokens: int) -> TorchKVCache:
        config = self.config
        size = (config.layers, 2, config.heads, rounded(tokens), config.head_width)
        return TorchKVCache(torch.empty(size, dtype=self._kept))

    def cache_bytes(self, tokens: int) -> int:
        return self.config.layers * 2 * self.config.width * rounded(tokens) * self._kept.itemsize

    @torch.inference_mode()
    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        # neighbours of one voice, so that each adapter is one product; a stable sort keeps a conversation in order
        order = sorted(range(len(chunks)), key=lambda index: id(chunks[index].lora))
        sorted_chunks = [chunks[index] for index in order]
        loras = spans([chunk.lora for chunk in sorted_chunks for _ in chunk.tokens])
        tokens = torch.tensor([token for chunk in sorted_chunks for token in chunk.tokens])
        places = [place for chunk in sorted_chunks for place in range(chunk.start, chunk.start + len(chunk.tokens))]
        x = self._words[tokens].float() + self._places[torch.tensor(places)]
        for layer, (first, second) in enumerate(self._norms):
            qkv = self._apply(layer, "attn.c_attn", first(x), loras)
            x = x + self._apply(layer, "attn.c_proj", self._attend(layer, qkv, sorted_chunks), loras)
            inner = self._activation(self._apply(layer, "mlp.c_fc", second(x), loras))
            x = x + self._apply(layer, "mlp.c_proj", inner, loras)
        wanted: dict[int, range] = {}
        row = 0
        for index, chunk in zip(order, sorted_chunks, strict=True):
            row += len(chunk.tokens)
            wanted[index] = range(row - chunk.logits, row)
        rows = [row for index in range(len(chunks)) for row in wanted[index]]
        last = self._last(x)
        for lora, begin, end in loras:
            if lora.last_norm is not None:
                last[begin:end] += lora.last_norm
        return self._head(last[torch.tensor(rows, dtype=torch.long)])

    def _apply(self, layer: int, module: str, x: Tensor, loras: Sequence[tuple[Lora, int, int]]) -> Tensor:
        """(M, inputs) → (M, outputs) float32: the base's product and each adapter's on its own rows."""
        y = self._layers[layer][module](x)
        for lora, begin, end in loras:
            delta = lora.deltas.get((layer, module))
            if delta is None:
                continue
            rows = end - begin
            part = x[begin:end]
            if rows < ROWS_ALIKE:  # the same bits whoever else speaks with this adapter
                part = F.pad(part, (0, 0, 0, ROWS_ALIKE - rows))
            y[begin:end] += ((part @ delta.down.t()) @ delta.up)[:rows]
            if delta.bias is not None:
                y[begin:end] += delta.bias
        return y

    def _attend(self, layer: int, qkv: Tensor, chunks: Sequence[Chunk]) -> Tensor:
        """(M, 3 × width) → (M, width): each chunk's rows look at their own conversation up to themselves."""
        config = self.config
        heads = qkv.view(-1, 3, config.heads, config.head_width).permute(1, 2, 0, 3)
        out = qkv.new_empty(qkv.shape[0], config.heads, config.head_width)
        row = 0
        for chunk in chunks:
            count = len(chunk.tokens)
            behind = chunk.start + count
            kept = _values(chunk.cache)[layer]
            kept[:, :, chunk.start : behind] = heads[1:, :, row : row + count]
            keys, values = kept[:, :, :behind].float()
            mask = None
            if count > 1 and chunk.start:
                # causal, for rows that begin in the middle of a conversation
                mask = torch.ones(count, behind, dtype=torch.bool).tril_(chunk.start)
            done = F.scaled_dot_product_attention(
                heads[None, 0, :, row : row + count],
                keys[None],
                values[None],
                attn_mask=mask,
                is_causal=count > 1 and not chunk.start,
            )
            out[row : row + count] = done[0].transpose(0, 1)
            row += count
        return out.view(-1, config.width)


def _values(cache: KVCache) -> Tensor:
    if not isinstance(cache, TorchKVCache):
        raise TypeError("the cache of another model")
    return cache.values
