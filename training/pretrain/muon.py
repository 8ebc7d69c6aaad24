"""Muon, with a choice of precision.

torch's own multiplies in bfloat16 on every machine; on a CPU without native bfloat16 (anything before AVX512-BF16) that
takes a hundred times as long as float32, many times the rest of the step. The algorithm is the same otherwise.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that makes the singular values near 1 in five rounds (Jordan et al. 2024)."""
ROUNDS = 5
LIKE_ADAM = 0.2
"""Root mean square of an update, as AdamW's usually is (Liu et al. 2025, arXiv:2502.16982)."""


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal, for matrices (Jordan et al. 2024), at a rate on the scale of AdamW's."""

    def __init__(self, matrices: Iterable[Tensor], *, lr: float, weight_decay: float, dtype: torch.dtype) -> None:
        """`matrices`: of two dimensions, float32. `dtype`: of the products."""
        super().__init__(list(matrices), {"lr": lr, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Learn from the gradients; `closure` is not called."""
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state: dict[str, Any] = self.state[matrix]
                momentum = state.setdefault("momentum_buffer", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - MOMENTUM)
                update = orthogonal(matrix.grad.lerp(momentum, MOMENTUM).to(self._dtype))
                matrix.mul_(1 - rate * decay)
                matrix.add_(update, alpha=-rate * LIKE_ADAM * float(max(matrix.shape)) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Near U Vᵀ of the singular value decomposition of `matrix`, (A, B), by Newton–Schulz rounds in its dtype."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.t() if tall else matrix
    found = found / found.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = found @ found.t()
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.t() if tall else found
