"""The parts of a rotary model between its matrix products, for packed rows in bfloat16: fewer passes over memory.

Operation by operation, normalising, rotating and attending take a CPU longer than all matrix products of a small model
together. Here each is one function with its own backward pass. Attention looks at one dialogue of a row at a time, so
that nothing is computed between dialogues, and multiplies in bfloat16 both ways (the library's backward pass on a CPU
is several times slower). What is computed is the same up to bfloat16's rounding; weights are frozen and get no
gradient. Used for packed rows under autocast alone; everywhere else the library's own forward runs.
"""

from dataclasses import dataclass
from types import MethodType
from typing import Any, cast

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3RMSNorm

GROUP = 96
"""Tokens up to which neighbouring dialogues of a row share one product: many small products cost more than the few
numbers between dialogues that are computed for nothing."""

SIZES = 32
"""Groups are computed in sizes that are multiples of it, with a neighbour's tokens where they are shorter: for every
size oneDNN compiles and caches kernels of several hundred kilobytes. A batch's rows are padded likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Dialogues side by side in a row that share their products."""

    row: int
    inside: slice
    """Their tokens."""
    window: slice
    """Those and as many neighbouring ones as make the size a multiple of SIZES, where the row has them."""
    hidden: torch.Tensor
    """What is added to the scores of one head, (n, n) for n tokens in the window: 0 or −∞."""

    @property
    def place(self) -> slice:
        """The group's tokens within its window."""
        first = self.inside.start - self.window.start
        return slice(first, first + self.inside.stop - self.inside.start)


def groups_of(position_ids: torch.Tensor, dtype: torch.dtype) -> list[Group]:
    """Groups of dialogues in a batch's rows; a dialogue begins wherever a position is 0.

    `position_ids`: (B, T) int64.
    """
    groups: list[Group] = []
    width = position_ids.shape[1]
    for row, positions in enumerate(position_ids):
        starts = [*torch.nonzero(positions == 0).flatten().tolist(), width]
        at = 0
        while at < len(starts) - 1:
            last = at + 1
            while last < len(starts) - 1 and starts[last + 1] - starts[at] <= GROUP:
                last += 1
            size = -(-(starts[last] - starts[at]) // SIZES) * SIZES
            end = min(starts[at] + size, width)
            window = slice(max(0, end - size), end)
            owner = (positions[window] == 0).cumsum(0)
            place = torch.arange(len(owner), device=owner.device)
            seen = (owner[:, None] == owner[None, :]) & (place[:, None] >= place[None, :])
            hidden = torch.zeros(seen.shape, dtype=dtype, device=owner.device).masked_fill_(~seen, -torch.inf)
            groups.append(Group(row=row, inside=slice(starts[at], starts[last]), window=window, hidden=hidden))
            at = last
    return groups


class Attention(torch.autograd.Function):
    """softmax(q·kᵀ·scale) · v within each group; keys and values are shared by heads where there are fewer of them."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, groups: list[Group], scale: float
    ) -> torch.Tensor:
        """`q` (B, H, T, D), `k` and `v` (B, K, T, D) → (B, T, H, D)."""
        heads, kept, depth = q.shape[1], k.shape[1], q.shape[3]
        share = heads // kept
        out = q.new_empty(q.shape[0], q.shape[2], heads, depth)
        weights: list[torch.Tensor] = []
        for one in groups:
            row, window = one.row, one.window
            mine = q[row, :, window].reshape(kept, -1, depth)
            scores = torch.baddbmm(one.hidden.repeat(share, 1), mine, k[row, :, window].transpose(1, 2), alpha=scale)
            weight = scores.softmax(-1)
            found = torch.bmm(weight, v[row, :, window])
            out[row, one.inside] = found.view(heads, -1, depth)[:, one.place].transpose(0, 1)
            weights.append(weight)
        ctx.save_for_backward(q, k, v, *weights)
        ctx.groups, ctx.scale = groups, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *weights = ctx.saved_tensors
        kept, depth = k.shape[1], q.shape[3]
        from_above = gradients[0].to(q.dtype)
        to_q, to_k, to_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for one, weight in zip(ctx.groups, weights, strict=True):
            row, window, inside, place = one.row, one.window, one.inside, one.place
            # The gradient of a neighbour's tokens is 0 here, so nothing flows back from them.
            above = from_above.new_zeros(q.shape[1], window.stop - window.start, depth)
            above[:, place] = from_above[row, inside].transpose(0, 1)
            above = above.view(kept, -1, depth)
            to_v[row, :, inside] = torch.bmm(weight.transpose(1, 2), above)[:, place]
            to_weight = torch.bmm(above, v[row, :, window].transpose(1, 2))
            to_scores = torch._softmax_backward_data(to_weight, weight, -1, weight.dtype).mul_(ctx.scale)
            to_q[row, :, inside] = torch.bmm(to_scores, k[row, :, window]).view(q.shape[1], -1, depth)[:, place]
            mine = q[row, :, window].reshape(kept, -1, depth)
            to_k[row, :, inside] = torch.bmm(to_scores.transpose(1, 2), mine)[:, place]
        return to_q, to_k, to_v, None, None


class Rotated(torch.autograd.Function):
    """Each half of a head turned against the other by its token's position; backward it is turned back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """`x` (B, T, H, D), `cos` and `sin` (B, T, 1, D / 2) → (B, H, T, D), contiguous."""
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin).transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turned(gradients[0].transpose(1, 2), cos, -sin), None, None


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half = x.shape[-1] // 2
    torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=turned[..., half:]).addcmul_(first, sin)
    return turned


class Normed(torch.autograd.Function):
    """weight · x / √(mean(x²) + ε), in `dtype`; x is summed up in float32."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float, dtype: torch.dtype) -> torch.Tensor:
        """`x` (…, D), `weight` (D,) → (…, D)."""
        size = x.shape[-1]
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = norm.square_().div_(size).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        normed: torch.Tensor = (x * scale).mul_(weight).to(dtype)
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        weighted = gradients[0] * weight  # float32, as the weight is
        along = (weighted * x).sum(-1, keepdim=True).mul_(scale.pow(3)).div_(x.shape[-1])
        return weighted.mul_(scale).addcmul_(x, along, value=-1).to(x.dtype), None, None, None


_NORMS = (LlamaRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)
_ATTENTIONS = (LlamaAttention, Qwen2Attention, Qwen3Attention)


def fuse(model: nn.Module) -> int:
    """Let the norms and attentions of a rotary model run as here, for packed rows; gives their number.

    A model of another kind stays as it is.
    """
    found = [module for module in model.modules() if isinstance(module, (*_NORMS, *_ATTENTIONS))]
    plan = _PackingPlan()
    for module in found:
        layer: Any = module  # torch types what is set on a module as a parameter
        if isinstance(module, _NORMS):
            layer.forward = MethodType(_norm, module)
        else:
            layer.packing = plan
            layer.forward = MethodType(_attend, module)
    return len(found)


class _PackingPlan:
    """The groups and rotations of the latest batch, which all layers share."""

    def __init__(self) -> None:
        self._for: torch.Tensor | None = None
        self._found: tuple[list[Group], torch.Tensor, torch.Tensor] | None = None

    def of(
        self, position_ids: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, dtype: torch.dtype
    ) -> tuple[list[Group], torch.Tensor, torch.Tensor]:
        if self._found is None or self._for is not position_ids:
            half = cos.shape[-1] // 2
            turns = [part[..., :half].unsqueeze(2).to(dtype) for part in (cos, sin)]
            self._for, self._found = position_ids, (groups_of(position_ids, dtype), turns[0], turns[1])
        return self._found


def _half(device: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    dtype = _half(x.device.type)
    if dtype is None or module.weight.requires_grad:
        return cast("torch.Tensor", type(module).forward(module, x))
    with torch.autocast(x.device.type, enabled=False):
        return cast("torch.Tensor", Normed.apply(x, module.weight, module.variance_epsilon, dtype))  # type: ignore[no-untyped-call]  # so in torch


def _attend(module: Any, hidden_states: torch.Tensor, **named: Any) -> tuple[torch.Tensor, None]:
    device = hidden_states.device.type
    dtype = _half(device)
    if dtype is None or not named.get("packed"):
        return cast("tuple[torch.Tensor, None]", type(module).forward(module, hidden_states, **named))
    groups, cos, sin = module.packing.of(named["position_ids"], *named["position_embeddings"], dtype)
    shape = (*hidden_states.shape[:-1], -1, module.head_dim)
    q, k, v = (part(hidden_states).view(shape) for part in (module.q_proj, module.k_proj, module.v_proj))
    if hasattr(module, "q_norm"):
        q, k = module.q_norm(q), module.k_norm(k)
    with torch.autocast(device, enabled=False):
        found = Attention.apply(  # type: ignore[no-untyped-call]  # so in torch
            Rotated.apply(q, cos, sin),  # type: ignore[no-untyped-call]
            Rotated.apply(k, cos, sin),  # type: ignore[no-untyped-call]
            v.transpose(1, 2),
            groups,
            module.scaling,
        )
    return module.o_proj(found.flatten(2)), None
