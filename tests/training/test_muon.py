"""Muon: torch's own steps, in the precision asked for."""

import pytest
import torch

from training.pretrain.muon import Muon, orthogonal


@pytest.mark.parametrize(("dtype", "apart"), [(torch.bfloat16, 0.0), (torch.float32, 2e-3)])
@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_its_steps_are_torchs(shape: tuple[int, int], dtype: torch.dtype, apart: float) -> None:
    """To the bit in bfloat16, which torch always takes; near it in float32."""
    torch.manual_seed(0)
    began, gradients = torch.randn(shape), torch.randn(5, *shape)
    ours, theirs = torch.nn.Parameter(began.clone()), torch.nn.Parameter(began.clone())
    pairs = [
        (ours, Muon([ours], lr=0.01, weight_decay=0.05, dtype=dtype)),
        (theirs, torch.optim.Muon([theirs], lr=0.01, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")),
    ]
    for matrix, optimizer in pairs:
        for gradient in gradients:
            matrix.grad = gradient.clone()
            optimizer.step()
    assert (ours - began).abs().max() > 0.01
    assert (ours - theirs).abs().max() <= apart


def test_an_update_stretches_no_direction_far() -> None:
    """All singular values near 1, however unlike those of the gradient are."""
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(24, 40) * torch.logspace(0, 1, 24)[:, None]))
    assert values.min() > 0.5
    assert values.max() < 1.5
