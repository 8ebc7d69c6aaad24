"""A merged model says what base and adapter said together, and is a plain GPT-2 to everybody."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from core.errors import AdapterError
from core.generator import Adapter, Sampling
from core.generator.transformers import load
from tests.models import tiny_adapter, tiny_model, tiny_tokenizer
from training.publish.merge import merge

TEXTS = ("Person1: hello there\nPerson2:", "é🎉 مرحبا  <|endoftext|> x", "")


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True, "rank": 2}, {"bias": "lora_only"}, {"lora_bias": True}], ids=str
)
def test_logits_are_those_of_base_and_adapter(tmp_path: Path, options: dict[str, Any]) -> None:
    """To 1e-5, for every kind of adapter that is served."""
    torch.set_num_threads(1)
    base = tiny_model(tmp_path / "base")
    adapter = tiny_adapter(tmp_path / "voice", base, seed=3, strength=0.2, **options)
    merged = merge(base, Adapter(id="voice", path=adapter), tmp_path / "out" / "merged")
    ids = torch.arange(60).view(2, 30) * 5
    tuned: Any = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(base), str(adapter))
    plain: Any = AutoModelForCausalLM.from_pretrained(merged)
    untuned: Any = GPT2LMHeadModel.from_pretrained(base)
    with torch.inference_mode():
        wanted, got, before = (model.eval()(ids).logits for model in (tuned, plain, untuned))
    assert (wanted - got).abs().max() < 1e-5
    assert (wanted - before).abs().max() > 0.1
    assert type(plain) is GPT2LMHeadModel


def test_the_folder_is_whole(tmp_path: Path) -> None:
    """Safetensors, GPT-2's own tokenizer files, the same tokens from each of them, and nothing left behind."""
    base = tiny_model(tmp_path / "base")
    merged = merge(base, Adapter(id="voice", path=tiny_adapter(tmp_path / "voice", base)), tmp_path / "merged")
    assert sorted(path.name for path in merged.iterdir()) == [
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ]
    assert not list(tmp_path.glob(".merged*"))
    assert json.loads((merged / "config.json").read_text())["architectures"] == ["GPT2LMHeadModel"]
    wanted = [tiny_tokenizer()(text)["input_ids"] for text in TEXTS]
    assert [AutoTokenizer.from_pretrained(merged)(text)["input_ids"] for text in TEXTS] == wanted
    (merged / "tokenizer.json").unlink()
    assert [AutoTokenizer.from_pretrained(merged)(text)["input_ids"] for text in TEXTS] == wanted


async def test_a_merged_voice_speaks_alike(tmp_path: Path) -> None:
    """The same greedy reply, with the adapter and without it on the merged model."""
    base = tiny_model(tmp_path / "base")
    adapter = Adapter(id="voice", path=tiny_adapter(tmp_path / "voice", base))
    merged = merge(base, adapter, tmp_path / "merged")
    greedy = Sampling(temperature=0, max_new_tokens=20, stop="")
    said = []
    for folder, voice in ((base, adapter), (merged, None)):
        generator = load(folder, device="cpu")
        said.append((await generator.generate("hello", sampling=greedy, adapter=voice)).text)
        await generator.close()
    assert said[0] == said[1]


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    """A folder in use, a file in the way, an adapter of another base: a sentence, and nothing is written."""
    base = tiny_model(tmp_path / "base")
    adapter = Adapter(id="voice", path=tiny_adapter(tmp_path / "voice", base))
    (tmp_path / "file").write_text("")
    for out in (base, tmp_path / "file"):
        with pytest.raises(AdapterError, match="is not empty"):
            merge(base, adapter, out)
    with pytest.raises(AdapterError, match="cannot be written"):
        merge(base, adapter, tmp_path / "file" / "out")
    with pytest.raises(AdapterError, match="made for"):
        merge(tiny_model(tmp_path / "wide", width=48), adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()
