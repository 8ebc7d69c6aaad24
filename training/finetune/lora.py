"""LoRA layers that cost hardly more than the layers they adapt: the update is folded into the weight for each pass.

peft computes x·W and x·A·B apart and adds them, which at these ranks is little arithmetic but a great deal of memory
traffic: on two cores half of a step. Folding first (W + s·A·B, a product over weights, not over tokens) leaves one
product forward and one backward, and gives the same gradients:

    y = x·(W + s·Aᵀ·Bᵀ) + b     ∂B = s·∂yᵀ·(x·Aᵀ)     ∂A = s·(∂y·B)ᵀ·x

Only the computation is replaced: the parameters, their names and the files are peft's. Needs LoRA dropout off, because
dropout is between x and A; with it peft's own forward is kept.
"""

from types import MethodType
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D


class Folded(torch.autograd.Function):
    """x·(W + s·Aᵀ·Bᵀ) + b, where only A and B learn. W is (in, out) here; a layer that keeps it as (out, in) gives its
    transposed view."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """`x` (…, in), `weight` (in, out), `bias` (out,), `down` A (r, in), `up` B (out, r) → (…, out) in `dtype`."""
        folded = _fold(weight, down, up, scale, dtype)
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        ctx.save_for_backward(flat, folded, down, up)
        ctx.scale, ctx.shape, ctx.dtype = scale, x.shape, x.dtype
        product = flat @ folded if bias is None else torch.addmm(bias.to(dtype), flat, folded)
        return product.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, folded, down, up = ctx.saved_tensors
        from_above = gradients[0].reshape(-1, folded.shape[1]).to(folded.dtype)
        to_below = None
        if ctx.needs_input_grad[0]:
            to_below = (from_above @ folded.T).view(ctx.shape).to(ctx.dtype)
        narrow = flat @ down.T.to(flat.dtype)
        lifted = from_above @ up.to(flat.dtype)
        grad_down = (lifted.T @ flat).to(down.dtype).mul_(ctx.scale)
        grad_up = (from_above.T @ narrow).to(up.dtype).mul_(ctx.scale)
        return to_below, None, None, grad_down, grad_up, None, None


def _fold(weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """W + s·Aᵀ·Bᵀ, (in, out) in `dtype`, laid out as the weight is: the product is added where its rows lie.

    A weight that is kept in another type is added to in that type, and rounded once.
    """
    down, up = down.to(weight.dtype), up.to(weight.dtype)
    if weight.is_contiguous():
        return torch.addmm(weight, down.T, up.T, alpha=scale).to(dtype)
    return torch.addmm(weight.T, up, down, alpha=scale).to(dtype).T


def fold(model: PeftModel) -> int:
    """Let every LoRA layer over a linear one that can be folded be so; gives their number."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer) and _foldable(module)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def _foldable(layer: LoraLayer) -> bool:
    names = list(layer.lora_A)
    return (
        isinstance(layer.get_base_layer(), (Conv1D, nn.Linear))
        and len(names) == 1
        and not layer.use_dora.get(names[0], False)
        and not layer.lora_bias.get(names[0], False)
        and isinstance(layer.lora_dropout[names[0]], nn.Identity)
    )


def _forward(layer: Any, x: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
    """In place of peft's: the same, folded. Switched off or merged, the layer is peft's again."""
    if layer.disable_adapters or layer.merged:
        return cast("torch.Tensor", type(layer).forward(layer, x, *others, **named))
    (name,) = layer.lora_A
    base = layer.get_base_layer()
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    with torch.autocast(device, enabled=False):
        return cast(
            "torch.Tensor",
            Folded.apply(  # type: ignore[no-untyped-call]  # so in torch
                x,
                base.weight if isinstance(base, Conv1D) else base.weight.T,
                base.bias,
                layer.lora_A[name].weight,
                layer.lora_B[name].weight,
                float(layer.scaling[name]),
                dtype,
            ),
        )
