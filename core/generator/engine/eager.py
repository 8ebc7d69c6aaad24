"""GPT-2 in torch, one operation at a time: float32 that equals transformers + peft, or int8 weights.

All rows of all conversations go through each linear layer together; attention is done a conversation at a time on its
own room, so nothing is padded and nobody's neighbours matter. Knows nothing of requests, sampling or text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from core.generator.engine.checkpoint import Shape, Take
from core.generator.engine.linear import ROWS_ALIKE, Linear, linear
from core.generator.engine.lora import MODULES, Lora, spans
from core.generator.engine.network import Piece, Room, rounded

Precision = Literal["int8", "fp32"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
}


class EagerRoom:
    """(layers, 2, heads, capacity, head width): keys and values, float32, or bfloat16 beside int8 weights."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    @property
    def capacity(self) -> int:
        return self.values.shape[3]

    @property
    def bytes(self) -> int:
        return self.values.nbytes

    def grown(self, tokens: int, *, keep: int) -> "EagerRoom":
        layers, two, heads, _, width = self.values.shape
        values = torch.empty((layers, two, heads, rounded(tokens), width), dtype=self.values.dtype)
        values[:, :, :, :keep] = self.values[:, :, :, :keep]
        return EagerRoom(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


class Eager:
    """A whole model, built from the tensors `take` gives."""

    search = None

    def __init__(self, shape: Shape, take: Take, *, precision: Precision) -> None:
        self.shape = shape
        self._kept = torch.float32 if precision == "fp32" else torch.bfloat16
        table = take("wte.weight")
        # half the bytes beside int8 weights; rounding a lookup to fp16 is far below rounding the weights to int8
        self._words = table if precision == "fp32" else table.half()
        self._places = take("wpe.weight")
        self._norms = [
            (self._norm(take, f"h.{layer}.ln_1"), self._norm(take, f"h.{layer}.ln_2")) for layer in range(shape.layers)
        ]
        self._layers: list[dict[str, Linear]] = [
            {
                module: linear(
                    take(f"h.{layer}.{module}.weight").t(), take(f"h.{layer}.{module}.bias"), precision=precision
                )
                for module in MODULES
            }
            for layer in range(shape.layers)
        ]
        self._last = self._norm(take, "ln_f")
        self._head = linear(table, None, precision=precision)
        self._activation = _ACTIVATIONS[shape.activation]

    def _norm(self, take: Take, name: str) -> _Norm:
        return _Norm(weight=take(f"{name}.weight"), bias=take(f"{name}.bias"), epsilon=self.shape.epsilon)

    def room(self, tokens: int) -> EagerRoom:
        shape = self.shape
        size = (shape.layers, 2, shape.heads, rounded(tokens), shape.head_width)
        return EagerRoom(torch.empty(size, dtype=self._kept))

    def room_bytes(self, tokens: int) -> int:
        return self.shape.layers * 2 * self.shape.width * rounded(tokens) * self._kept.itemsize

    @torch.inference_mode()
    def forward(self, pieces: Sequence[Piece]) -> Tensor:
        # neighbours of one voice, so that each adapter is one product; a stable sort keeps a conversation in order
        order = sorted(range(len(pieces)), key=lambda index: id(pieces[index].lora))
        sorted_pieces = [pieces[index] for index in order]
        loras = spans([piece.lora for piece in sorted_pieces for _ in piece.tokens])
        tokens = torch.tensor([token for piece in sorted_pieces for token in piece.tokens])
        places = [place for piece in sorted_pieces for place in range(piece.start, piece.start + len(piece.tokens))]
        x = self._words[tokens].float() + self._places[torch.tensor(places)]
        for layer, (first, second) in enumerate(self._norms):
            qkv = self._apply(layer, "attn.c_attn", first(x), loras)
            x = x + self._apply(layer, "attn.c_proj", self._attend(layer, qkv, sorted_pieces), loras)
            inner = self._activation(self._apply(layer, "mlp.c_fc", second(x), loras))
            x = x + self._apply(layer, "mlp.c_proj", inner, loras)
        wanted: dict[int, range] = {}
        row = 0
        for index, piece in zip(order, sorted_pieces, strict=True):
            row += len(piece.tokens)
            wanted[index] = range(row - piece.logits, row)
        rows = [row for index in range(len(pieces)) for row in wanted[index]]
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

    def _attend(self, layer: int, qkv: Tensor, pieces: Sequence[Piece]) -> Tensor:
        """(M, 3 × width) → (M, width): each piece's rows look at their own conversation up to themselves."""
        shape = self.shape
        heads = qkv.view(-1, 3, shape.heads, shape.head_width).permute(1, 2, 0, 3)
        out = qkv.new_empty(qkv.shape[0], shape.heads, shape.head_width)
        row = 0
        for piece in pieces:
            count = len(piece.tokens)
            behind = piece.start + count
            kept = _values(piece.room)[layer]
            kept[:, :, piece.start : behind] = heads[1:, :, row : row + count]
            keys, values = kept[:, :, :behind].float()
            mask = None
            if count > 1 and piece.start:
                # causal, for rows that begin in the middle of a conversation
                mask = torch.ones(count, behind, dtype=torch.bool).tril_(piece.start)
            done = F.scaled_dot_product_attention(
                heads[None, 0, :, row : row + count],
                keys[None],
                values[None],
                attn_mask=mask,
                is_causal=count > 1 and not piece.start,
            )
            out[row : row + count] = done[0].transpose(0, 1)
            row += count
        return out.view(-1, shape.width)


def _values(room: Room) -> Tensor:
    if not isinstance(room, EagerRoom):
        raise TypeError("a room of another network")
    return room.values
