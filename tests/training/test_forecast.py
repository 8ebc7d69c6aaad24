"""What is said before it is paid for: minutes, memory, and whether another base would do better."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from core.adapters import AdapterRegistry
from core.generator.bases import STARTER
from core.generator.installed_bases import installed_bases
from tests.models import tiny_model
from tests.training.logged import clock
from tests.training.toys import TALK, dialogue
from training.evaluation.other_bases import better_base
from training.finetune.base import load_base
from training.finetune.config import FinetuneConfig
from training.finetune.encoder import Encoder
from training.finetune.forecast import Forecast, evaluation_seconds, learning_seconds
from training.finetune.outcome import Progress
from training.finetune.pipeline import learn

HELD = [dialogue(*talk) for talk in TALK] * 4
QUICK = FinetuneConfig(rank=4, epochs=4, block=64, batch_tokens=256, evaluations=1, precision="fp32")


def test_a_forecast_in_a_sentence() -> None:
    """Minutes are rounded, what is not known is left out."""
    assert str(Forecast(learning=610.0, evaluation=305.0, memory=2_130_000_000)) == (
        "Forecast: 10 min of training, at most 5 min of evaluation, 2.1 GB of memory."
    )
    assert str(Forecast(learning=20.0)) == "Forecast: under a minute of training."


def test_evaluation_takes_half_of_the_training_or_a_minute() -> None:
    """And looks at the held-out talk cost a third of what learning it would."""
    assert evaluation_seconds(10.0) == 60.0
    assert evaluation_seconds(1_200.0) == 600.0
    assert learning_seconds(step=2.0, steps=50, evaluations=0, step_tokens=1_000, held_tokens=500) == 100.0
    assert learning_seconds(step=2.0, steps=50, evaluations=6, step_tokens=1_000, held_tokens=500) == 102.0


@pytest.mark.parametrize("contexts", [0, 4])
def test_a_run_is_forecast_once(base: Path, talk: Path, tmp_path: Path, contexts: int) -> None:
    """After its third step, with the evaluation where there is one; the memory is what this process holds, about."""
    told: list[Progress] = []
    learn(
        [talk],
        registry=AdapterRegistry(tmp_path / "adapters"),
        run=tmp_path / "runs" / "ours",
        name="ours",
        base="tiny",
        base_folder=str(base),
        command="person2 train",
        clock=clock,
        settings=QUICK,
        contexts=contexts,
        on_progress=told.append,
    )
    (forecast,) = [progress.forecast for progress in told if progress.forecast]
    assert told[2].forecast == forecast
    assert forecast.learning > 0
    assert forecast.evaluation == (60.0 if contexts else 0.0)
    assert forecast.memory is None or 50e6 < forecast.memory < 50e9


def learned_base(folder: Path, base: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """The base after it has learned the talk by heart, all of it."""
    model = GPT2LMHeadModel.from_pretrained(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    ids = [torch.tensor([tokenizer.encode("".join(f"{turn}\n" for turn in turns))]) for turns in HELD[:5]]
    for _ in range(20):
        for one in ids:
            model(input_ids=one, labels=one).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_better_base_is_named(base: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """One that knows the talk is, with both figures; one that is worse or cannot be loaded is not."""
    better = str(learned_base(tmp_path / "better", base, tokenizer))
    model, _ = load_base(str(base))
    encoder = Encoder(tokenizer)
    said = better_base("tiny", model, encoder, HELD, {"missing": str(tmp_path / "missing"), "knowing": better})
    assert said.startswith(
        "The base knowing, which is on this machine, predicts these dialogues better even without training: "
    )
    assert "against tiny's" in said
    assert said.endswith("in 20 held-out dialogues. Use --base knowing to train on it.")
    knowing, _ = load_base(better)
    assert better_base("knowing", knowing, encoder, HELD, {"tiny": str(base)}) == ""
    assert better_base("tiny", model, encoder, HELD, {}) == ""


def test_time_bounds_the_look_at_other_bases(base: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """By a clock that runs fast, fewer dialogues are looked at, the same for both."""
    better = str(learned_base(tmp_path / "better", base, tokenizer))
    model, _ = load_base(str(base))
    seconds = iter(range(0, 10_000, 8))
    said = better_base("tiny", model, Encoder(tokenizer), HELD, {"knowing": better}, clock=lambda: float(next(seconds)))
    assert "in 12 held-out dialogues" in said


def test_what_is_installed_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled model and the hub's models in the cache that belong to a family, with their parameters; others and
    broken ones are not."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    for name, kind in (("org--small", "llama"), ("org--other", "bert"), ("org--broken", "llama")):
        snapshot = cache / f"models--{name}" / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps({"model_type": kind}))
        save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5)}, snapshot / "model.safetensors")
    (cache / "models--org--broken" / "snapshots" / ("0" * 40) / "model.safetensors").write_bytes(b"\x01")
    found = {one.name: one for one in installed_bases(tiny_model(tmp_path / "starter"))}
    assert found[STARTER].parameters > 1_000
    assert found["org/small"].parameters == 17
    assert found["org/small"].talking < found["org/small"].learning
    assert not {"org/other", "org/broken"} & found.keys()
