"""Every family of models: served by transformers with adapters, told apart by fingerprints, others refused."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.adapters.validation import check, folder_fingerprint, same_base
from core.errors import AdapterError, ModelError
from core.generator import Adapter, Sampling
from core.generator.families import FAMILIES, MAX_CONTEXT, context_of, layer_of
from core.generator.transformers import load
from tests.models import tiny_adapter, tiny_base

GREEDY = Sampling(temperature=0, max_new_tokens=12, stop="", repetition_penalty=1)
PROMPTS = ("Person1: hello there\nPerson2:", "hi", "x" * 300)


@pytest.fixture(params=sorted(FAMILIES))
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny_base(tmp_path / request.param, request.param)


def greedy(base: Path, adapter: Path | None, prompt: str, *, context: int = 64) -> str:
    """What transformers and peft say by themselves, one prompt at a time."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    ids = ids[:, -(context - GREEDY.max_new_tokens) :]
    mask = torch.ones_like(ids)
    found = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=GREEDY.max_new_tokens, do_sample=False)
    return str(tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)).rstrip("\ufffd")


async def test_a_mixed_batch_says_what_each_says_alone(base: Path, tmp_path: Path) -> None:
    """Base and two adapters share batches; each text equals plain transformers + peft."""
    voices = [None, *(Adapter(id=f"v{n}", path=tiny_adapter(tmp_path / f"v{n}", base, seed=n)) for n in (1, 2))]
    for voice in voices[1:]:
        assert voice is not None
        check(voice.path)
    generator = load(base, device="cpu")
    jobs = [(prompt, voice) for prompt in PROMPTS for voice in voices]
    said = await asyncio.gather(*(generator.generate(p, sampling=GREEDY, adapter=v) for p, v in jobs))
    assert generator.context_length == 64
    await generator.close()
    assert [one.text for one in said] == [greedy(base, v.path if v else None, p) for p, v in jobs]
    assert len({one.text for one in said}) > 3


async def test_best_of_draws_and_scores(base: Path) -> None:
    """Several draws behind one prompt are scored in every family."""
    generator = load(base, device="cpu")
    said = await generator.generate(PROMPTS[0], sampling=Sampling(seed=3, best_of=4, max_new_tokens=8))
    await generator.close()
    assert said.new_tokens > 0


def test_fingerprints_tell_bases_apart(base: Path, tmp_path: Path) -> None:
    """Equal from the folder and from the loaded model; other weights or another family differ; fp16 does not."""
    family = base.name
    own = folder_fingerprint(base)
    assert own.startswith(f"{family} 32x2x")
    generator = load(base, device="cpu")
    assert generator.fingerprint == own
    asyncio.run(generator.close())
    assert not same_base(own, folder_fingerprint(tiny_base(tmp_path / "other", family, seed=9)))
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16).save_pretrained(half)
    assert same_base(own, folder_fingerprint(half))


def test_an_adapter_of_another_family_is_refused(tmp_path: Path) -> None:
    """Whose layers have other names, or other shapes."""
    bases = {family: tiny_base(tmp_path / family, family) for family in FAMILIES}
    adapters = {family: tiny_adapter(tmp_path / f"for-{family}", bases[family]) for family in FAMILIES}

    async def refused(base: str, adapter: str) -> None:
        generator = load(bases[base], device="cpu")
        with pytest.raises(AdapterError, match="was made for"):
            await generator.load(Adapter(id="foreign", path=adapters[adapter]))
        await generator.close()

    asyncio.run(refused("gpt2", "llama"))
    asyncio.run(refused("qwen3", "gpt2"))


def test_another_architecture_gets_a_sentence_that_lists_these(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", "vocab_size": 3}))
    with pytest.raises(ModelError, match=r"is a mamba model, and Person2 works with gpt2 .*llama .*qwen2 .*qwen3"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("base_model.model.transformer.h.3.attn.c_attn.lora_B.weight", "transformer.h.3.attn.c_attn"),
        ("base_model.model.h.3.mlp.c_proj.base_layer.bias", "transformer.h.3.mlp.c_proj"),
        ("base_model.model.model.layers.11.mlp.up_proj.lora_A.weight", "model.layers.11.mlp.up_proj"),
        ("base_model.model.model.layers.0.self_attn.q_norm.lora_A.weight", None),
        ("base_model.model.transformer.wte.lora_embedding_A", None),
        ("base_model.model.model.layers.0.attn.c_attn.lora_A.weight", None),
    ],
)
def test_the_layer_of_a_tensor(tensor: str, layer: str | None) -> None:
    assert layer_of(tensor) == layer


def test_a_long_context_is_bounded() -> None:
    """8,192 positions would take a CPU minutes to read and gigabytes to keep."""
    assert context_of({"max_position_embeddings": 8_192}, FAMILIES["llama"]) == MAX_CONTEXT
    assert context_of({"n_positions": 1_024}, FAMILIES["gpt2"]) == 1_024
