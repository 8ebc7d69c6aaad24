"""A model in torch, one operation at a time: float32 that equals transformers + peft, or int8 weights.

All rows of all conversations go through each linear layer together; attention is computed one conversation at a time on
its own cache, so nothing is padded and rows do not depend on each other. Knows nothing of requests, sampling or text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from core.generator.engine.checkpoint import Checkpoint
from core.generator.engine.linear import ROWS_ALIKE, Linear, linear
from core.generator.engine.lora import Lora, spans
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
    shift: Tensor | None
    """None for RMSNorm."""
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        if self.shift is None:
            return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)
        return F.layer_norm(x, self.weight.shape, self.weight, self.shift, self.epsilon)


@dataclass(frozen=True, slots=True, kw_only=True)
class _TransformerBlock:
    norms: tuple[_Norm, _Norm]
    linear: tuple[Linear, ...]
    """One per group of layers with the same input (`ModelConfig.groups`), their outputs side by side."""
    head_norms: tuple[_Norm, ...]
    """Of queries and of keys, or none."""


class TorchModel:
    """A whole model, built from the tensors of a checkpoint."""

    search = None
    kernels = "torch"

    def __init__(self, checkpoint: Checkpoint, *, precision: Precision) -> None:
        self.config = config = checkpoint.config
        self._cache_dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        embedding = checkpoint.embedding()
        # half the bytes; rounding the embedding to fp16 matters far less than quantizing the weights to int8
        self._embedding = embedding if precision == "fp32" else embedding.half()
        self._positions = checkpoint.positions()
        self._rotations = config.rotations() if config.frequencies else None
        self._blocks = [self._block(checkpoint, layer, precision) for layer in range(config.layers)]
        self._last_norm = self._norm(*checkpoint.norm(None, config.family.norms[2]))
        head = checkpoint.head()
        self._head = linear(embedding if head is None else head, None, precision=precision)

    def _block(self, checkpoint: Checkpoint, layer: int, precision: Precision) -> _TransformerBlock:
        family = self.config.family
        first, second = (self._norm(*checkpoint.norm(layer, name)) for name in family.norms[:2])
        return _TransformerBlock(
            norms=(first, second),
            linear=tuple(
                linear(*joined(checkpoint, layer, group), precision=precision) for group in self.config.groups
            ),
            head_norms=tuple(self._norm(*checkpoint.norm(layer, name)) for name in family.head_norms),
        )

    def _norm(self, weight: Tensor, shift: Tensor | None) -> _Norm:
        return _Norm(weight=weight, shift=shift, epsilon=self.config.epsilon)

    def new_cache(self, tokens: int) -> TorchKVCache:
        config = self.config
        size = (config.layers, 2, config.kv_heads, rounded(tokens), config.head_width)
        return TorchKVCache(torch.empty(size, dtype=self._cache_dtype))

    def cache_bytes(self, tokens: int) -> int:
        config = self.config
        return config.layers * 2 * config.kv_heads * config.head_width * rounded(tokens) * self._cache_dtype.itemsize

    def release(self) -> None:
        """Nothing is kept."""

    @torch.inference_mode()
    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        # rows of one adapter together, so that each adapter is one product; a stable sort keeps conversations in order
        order = sorted(range(len(chunks)), key=lambda index: id(chunks[index].lora))
        sorted_chunks = [chunks[index] for index in order]
        loras = spans([chunk.lora for chunk in sorted_chunks for _ in chunk.tokens])
        tokens = torch.tensor([token for chunk in sorted_chunks for token in chunk.tokens])
        positions = torch.tensor(
            [at for chunk in sorted_chunks for at in range(chunk.start, chunk.start + len(chunk.tokens))]
        )
        x = self._embedding[tokens].float()
        if self._positions is not None:
            x = x + self._positions[positions]
        rotations = None if self._rotations is None else self._rotations[positions]
        for layer, block in enumerate(self._blocks):
            qkv = self._apply(layer, 0, block.norms[0](x), loras)
            x = x + self._apply(layer, 1, self._attend(layer, qkv, rotations, sorted_chunks), loras)
            x = x + self._apply(layer, 3, self._activate(self._apply(layer, 2, block.norms[1](x), loras)), loras)
        wanted: dict[int, range] = {}
        row = 0
        for index, chunk in zip(order, sorted_chunks, strict=True):
            row += len(chunk.tokens)
            wanted[index] = range(row - chunk.logits, row)
        rows = [row for index in range(len(chunks)) for row in wanted[index]]
        last = self._last_norm(x)
        for lora, begin, end in loras:
            if lora.last_norm is not None:
                last[begin:end] += lora.last_norm
        return self._head(last[torch.tensor(rows, dtype=torch.long)])

    def _apply(self, layer: int, group: int, x: Tensor, loras: Sequence[tuple[Lora, int, int]]) -> Tensor:
        """(M, inputs) → (M, outputs) float32: the base's product, plus each adapter's on its own rows and columns."""
        y = self._blocks[layer].linear[group](x)
        for lora, begin, end in loras:
            rows, column = end - begin, 0
            part = x[begin:end]
            if rows < ROWS_ALIKE:  # the same bits whichever other rows use this adapter
                part = F.pad(part, (0, 0, 0, ROWS_ALIKE - rows))
            for module in self.config.groups[group]:
                next_column = column + self.config.sizes(module)[1]
                delta = lora.deltas.get((layer, module))
                if delta is not None:
                    y[begin:end, column:next_column] += ((part @ delta.down.t()) @ delta.up)[:rows]
                    if delta.bias is not None:
                        y[begin:end, column:next_column] += delta.bias
                column = next_column
        return y

    def _activate(self, x: Tensor) -> Tensor:
        if not self.config.family.gated:
            return _ACTIVATIONS[self.config.activation](x)
        gate, up = x.chunk(2, dim=1)
        return F.silu(gate) * up

    def _attend(self, layer: int, qkv: Tensor, rotations: Tensor | None, chunks: Sequence[Chunk]) -> Tensor:
        """(M, queries + keys + values) → (M, queries): each row attends to its own conversation up to itself."""
        config = self.config
        heads = qkv.view(len(qkv), -1, config.head_width)
        queries, keys, values = heads.split([config.heads, config.kv_heads, config.kv_heads], dim=1)
        if self._blocks[layer].head_norms:
            queries, keys = (
                norm(part) for norm, part in zip(self._blocks[layer].head_norms, (queries, keys), strict=True)
            )
        if rotations is not None:
            queries, keys = _rotated(queries, rotations), _rotated(keys, rotations)
        out = qkv.new_empty(len(qkv), config.heads, config.head_width)
        row = 0
        for chunk in chunks:
            count = len(chunk.tokens)
            end = chunk.start + count
            cached = _values(chunk.cache)[layer]
            cached[0, :, chunk.start : end] = keys[row : row + count].transpose(0, 1)
            cached[1, :, chunk.start : end] = values[row : row + count].transpose(0, 1)
            both = cached[:, :, :end].float()
            if config.heads != config.kv_heads:
                both = both.repeat_interleave(config.heads // config.kv_heads, dim=1)
            mask = None
            if count > 1 and chunk.start:
                # causal, for rows that begin in the middle of a conversation
                mask = torch.ones(count, end, dtype=torch.bool).tril_(chunk.start)
            attended = F.scaled_dot_product_attention(
                queries[row : row + count].transpose(0, 1)[None],
                both[None, 0],
                both[None, 1],
                attn_mask=mask,
                is_causal=count > 1 and not chunk.start,
            )
            out[row : row + count] = attended[0].transpose(0, 1)
            row += count
        return out.view(len(qkv), -1)


def joined(checkpoint: Checkpoint, layer: int, modules: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """Layers with the same input as one: weight (outputs, inputs), and bias (outputs,) where one has a bias."""
    weights = [checkpoint.weight(layer, module) for module in modules]
    biases = [checkpoint.bias(layer, module) for module in modules]
    if all(bias is None for bias in biases):
        return torch.cat(weights), None
    whole = [torch.zeros(len(w)) if bias is None else bias for w, bias in zip(weights, biases, strict=True)]
    return torch.cat(weights), torch.cat(whole)


def _rotated(x: Tensor, rotations: Tensor) -> Tensor:
    """(M, heads, width) rotated by (M, 2, width / 2): pairs are half a head apart, as in Llama's checkpoints."""
    cosine, sine = rotations[:, None, 0], rotations[:, None, 1]
    first, second = x.chunk(2, dim=2)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=2)


def _values(cache: KVCache) -> Tensor:
    if not isinstance(cache, TorchKVCache):
        raise TypeError("the cache of another model")
    return cache.values
