"""Matrix products with the weights of one layer: float32, or int8 through oneDNN.

int8 (`Int8`): weights are quantized per output channel, activations dynamically per row; products are summed in int32,
which is exact. So a row's result cannot depend on the other rows. `torch.ops.onednn.qlinear_*` is what
torch's own export path (PT2E) lowers to and takes plain tensors; the FBGEMM path of `torch.ops.quantized` is as fast
but needs eager quantized tensors, which are deprecated, and one activation scale for all rows, which would make
replies depend on each other.

Milliseconds for all linear layers of GPT-2 small and its head, two Zen 4 cores with AVX-512 VNNI, torch 2.13,
best of 60, at 1 / 8 / 16 / 32 / 128 rows: onednn.qlinear 6.9 / 8.2 / 9.9 / 14.8 / 43; `_int_mm` 6.6 / 10.7 / 12.8 /
17.6 / 45; `_weight_int8pack_mm` (bf16 activations) 8.7 / 21 / 37 / 71 / 272; fp32 37 / 95 / 109 / 138 / 350.
Knows neither GPT-2 nor adapters.
"""

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

ROWS_ALIKE = 8
"""From this many rows on, float32 products give each row the same bits however many rows there are (measured with
MKL and oneDNN at 1–512 rows; fewer rows take another kernel). Smaller batches are padded up to it."""
LEVELS = 127
"""int8 without −128, so that the range is symmetric."""


class Linear(Protocol):
    def __call__(self, x: Tensor) -> Tensor:
        """(M, K) float32 → (M, N) float32, bias added."""
        ...


class Dense:
    """float32 weights (N, K), bias (N,)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight.contiguous(), bias

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        if rows < ROWS_ALIKE:
            return F.linear(F.pad(x, (0, 0, 0, ROWS_ALIKE - rows)), self._weight, self._bias)[:rows]
        return F.linear(x, self._weight, self._bias)


class Int8:
    """int8 weights (N, K) packed by oneDNN, float32 scales and bias (N,)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        quantized, self._scale = quantize(weight)
        self._zero = torch.zeros(weight.shape[0], dtype=torch.int32)
        self._bias = torch.zeros(weight.shape[0]) if bias is None else bias
        self._packed = torch.ops.onednn.qlinear_prepack(quantized, None)

    def __call__(self, x: Tensor) -> Tensor:
        scale = torch.linalg.vector_norm(x, torch.inf, dim=1, keepdim=True).clamp_min_(1e-12).mul_(1 / LEVELS)
        # unsigned with zero point 128, as VNNI needs it; adding a half rounds what the cast would truncate
        quantized = (x / scale).add_(128.5).to(torch.uint8)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            quantized, 1.0, 128, self._packed, self._scale, self._zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return torch.addcmul(self._bias, y, scale)


class Rounded:
    """The same numbers as `Int8`, computed in float32: for processors where int8 products are missing or saturate."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        quantized, self._scale = quantize(weight)
        self._product = Dense(quantized.float(), None)
        self._bias = torch.zeros(weight.shape[0]) if bias is None else bias

    def __call__(self, x: Tensor) -> Tensor:
        scale = torch.linalg.vector_norm(x, torch.inf, dim=1, keepdim=True).clamp_min_(1e-12).mul_(1 / LEVELS)
        y = self._product((x / scale).round_())
        return torch.addcmul(self._bias, y.mul_(self._scale), scale)


def linear(weight: Tensor, bias: Tensor | None, *, precision: str) -> Linear:
    """The kernel for `weight` (N, K) float32; `precision` is `int8` or `fp32`."""
    if precision == "fp32":
        return Dense(weight, bias)
    # Without VNNI oneDNN multiplies through int16, which saturates on full-range activations.
    return Int8(weight, bias) if torch.cpu._is_vnni_supported() else Rounded(weight, bias)


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) float32 → (N, K) int8, contiguous, and its scales (N,) float32: a channel's largest weight is ±127."""
    scale = weight.abs().amax(dim=1).clamp_min_(1e-12) / LEVELS
    return (weight / scale[:, None]).round_().to(torch.int8).contiguous(), scale
