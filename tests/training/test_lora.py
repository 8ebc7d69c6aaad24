"""Folded LoRA layers compute what peft's compute, forward and backward."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from tests.training.toys import TALK, dialogue
from training.finetune.base import load_base
from training.finetune.config import FinetuneConfig
from training.finetune.dataset import collate, encode_rows
from training.finetune.encoder import Encoder
from training.finetune.lora import fold
from training.finetune.run import with_lora


def _model(base: Path, **settings: float) -> PeftModel:
    """A base with random, not zero, LoRA matrices; the same each time."""
    model = with_lora(load_base(str(base))[0], FinetuneConfig(rank=4, **settings), str(base))  # type: ignore[arg-type]
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=random) * 0.1)
    return model


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 3e-2)])
def test_folded_is_peft(base: Path, bf16: bool, tolerance: float) -> None:
    """Loss and every gradient agree, in fp32 closely and in bf16 as far as eight bits go."""
    encoder = Encoder(load_base(str(base))[1])
    batch = collate(list(encode_rows([dialogue(*talk) for talk in TALK], encoder, block=96, seed=0)))
    results = []
    for folded in (False, True):
        model = _model(base)
        if folded:
            assert fold(model) == 2 * 4  # two blocks: c_attn, attention's c_proj, c_fc, the other c_proj
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        loss.backward()
        results.append((loss.item(), {name: w.grad for name, w in model.named_parameters() if w.grad is not None}))
    (plain, plain_gradients), (loss, gradients) = results
    assert loss == pytest.approx(plain, rel=tolerance)
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in gradients.items():
        scale = float(plain_gradients[name].abs().max())
        torch.testing.assert_close(gradient, plain_gradients[name], atol=tolerance * scale, rtol=tolerance)


def test_a_switched_off_adapter_is_off(base: Path) -> None:
    """Inside disable_adapter the base speaks, and afterwards the adapter again."""
    model, bare = _model(base), load_base(str(base))[0]
    fold(model)
    ids = torch.arange(10)[None]
    expected = bare(input_ids=ids).logits
    with model.disable_adapter():
        torch.testing.assert_close(model(input_ids=ids).logits, expected)
    assert not torch.allclose(model(input_ids=ids).logits, expected, atol=1e-3)


def test_dropout_is_left_to_peft(base: Path) -> None:
    """What cannot be folded is not."""
    assert fold(_model(base, dropout=0.1)) == 0
