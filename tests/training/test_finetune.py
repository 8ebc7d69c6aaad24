"""Fine-tuning learns, repeats itself exactly, goes on after a kill, and says what is wrong in a sentence."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from core.adapters import AdapterRegistry
from core.adapters.validation import folder_fingerprint, same_base
from core.dialogue import write
from core.errors import AdapterError, DialogueError, ModelError, Person2Error, TrainingError
from core.generator import Adapter
from tests.training.toys import TALK, dialogue
from training.finetune import checkpoints
from training.finetune.adapter_card import make_card
from training.finetune.config import FinetuneConfig
from training.finetune.outcome import Outcome, Progress
from training.finetune.pipeline import learn
from training.finetune.run import finetune
from training.finetune.run_folder import begun, unfinished
from training.finetune.tracking import LogTo

QUICK = FinetuneConfig(
    rank=4, alpha=8, epochs=10, block=96, batch_tokens=192, learning_rate=2e-2, evaluations=1, precision="fp32"
)


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Sixty dialogues in which Person2 always answers the same to the same: easy to learn."""
    file = tmp_path / "talk.txt"
    many = [dialogue(*TALK[index % 5][: 2 + index % 3]) for index in range(60)]
    file.write_text(
        "".join(write([*many, dialogue("Hello!", "Hello, how are you?", "Is the soup good?", "It is hot and good.")]))
    )
    return file


def weights(outcome: Outcome) -> dict[str, torch.Tensor]:
    return load_file(outcome.adapter / "adapter_model.safetensors")


def test_it_learns_and_transformers_loads_what_it_wrote(base: Path, talk: Path, tmp_path: Path) -> None:
    """Held-out bits fall by a third, progress is told, and peft's own loader takes the folder."""
    told: list[Progress] = []
    outcome = finetune([talk], run=tmp_path / "run", base=str(base), settings=QUICK, on_progress=told.append)
    assert outcome.after < outcome.before * 2 / 3
    assert outcome.held_out_dialogues == 3
    assert outcome.held_out[-1].value < outcome.held_out[0].value
    assert told[-1].step == told[-1].steps == outcome.steps
    assert told[-1].tokens_per_second > 0
    PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(base), str(outcome.adapter))


def test_the_card_says_whose_words_were_learned(base: Path, talk: Path, tmp_path: Path) -> None:
    """The people of the manifest, the base and the figures stand on the card, and the registry takes the adapter."""
    people = [{"hash": "b2", "messages": 3}, {"hash": "a1", "messages": 2}]
    (tmp_path / "talk.txt.manifest.json").write_text(json.dumps({"people": people, "dialogues": {}}))
    short = replace(QUICK, epochs=1.0)
    outcome = finetune([talk], run=tmp_path / "run", base=str(base), name="first", settings=short)
    card = make_card(outcome, created_at=datetime(2026, 1, 2, tzinfo=UTC), command="person2 train talk.txt")
    registry = AdapterRegistry(tmp_path / "adapters")
    registry.add(outcome.adapter, card)
    kept = registry.card("first")
    assert kept.people == ("a1", "b2")
    assert same_base(kept.base_fingerprint, folder_fingerprint(base))
    assert kept.scores["new"]["reply_bits_per_byte"] == outcome.after
    assert kept.config["rank"] == 4


def test_the_same_seed_gives_the_same_adapter(base: Path, talk: Path, tmp_path: Path) -> None:
    """Twice the same run, bit for bit; another seed, another adapter."""
    first, second = (finetune([talk], run=tmp_path / name, base=str(base), settings=QUICK) for name in "ab")
    assert all(torch.equal(weights(first)[name], weights(second)[name]) for name in weights(first))


def _child(base: Path, talk: Path, run: Path) -> "subprocess.Popen[bytes]":
    """The same training in a process of its own, slow enough to be killed in the middle."""
    program = (
        "import sys, time, torch; from pathlib import Path; torch.set_num_threads(1);"
        "from tests.training.test_finetune import QUICK; from training.finetune.run import finetune;"
        "finetune([Path(sys.argv[2])], run=Path(sys.argv[3]), base=sys.argv[1], settings=QUICK,"
        " on_progress=lambda progress: time.sleep(0.05))"
    )
    return subprocess.Popen(  # our own interpreter and our own program
        [sys.executable, "-c", program, str(base), str(talk), str(run)], env={**os.environ, "PYTHONPATH": "."}
    )


def test_a_killed_run_goes_on_to_the_same_adapter(base: Path, talk: Path, tmp_path: Path) -> None:
    """Killed outright, its newest checkpoint then cut in half: it goes on from the one before, to the same weights."""
    run = tmp_path / "killed"
    child = _child(base, talk, run)
    deadline = time.monotonic() + 240
    while len([c for c in checkpoints.all_of(run) if checkpoints.is_complete(c)]) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = sorted((c for c in checkpoints.all_of(run) if checkpoints.is_complete(c)), key=checkpoints.step_of)
    damaged = kept[-1] / "adapter_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])

    resumed = finetune([talk], run=run, base=str(base), settings=QUICK, resume=True)
    straight = finetune([talk], run=tmp_path / "straight", base=str(base), settings=QUICK)
    assert resumed.resumed_from == checkpoints.step_of(kept[-2])
    assert resumed.steps == straight.steps
    assert resumed.best_step == straight.best_step
    for name, expected in weights(straight).items():
        torch.testing.assert_close(weights(resumed)[name], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("rate", "early"), [(2e-2, False), (0.5, True)])
def test_a_run_killed_after_its_last_step_trains_no_further(
    base: Path, talk: Path, tmp_path: Path, rate: float, early: bool
) -> None:
    """Killed while it was judged, at its last step or stopped early before that: the same adapter and figures, and the
    time that its training took, by which the time of judging goes."""
    run, settings = tmp_path / "run", replace(QUICK, epochs=4.0, learning_rate=rate, patience=9)
    if early:  # at such a rate each processor's rounding decides when it is first worse; within twelve epochs it is
        settings = replace(settings, epochs=12.0, patience=1)
    before = finetune([talk], run=run, base=str(base), settings=settings)
    learned = weights(before)
    after = finetune([talk], run=run, base=str(base), settings=settings, resume=True)
    assert before.stopped_early is after.stopped_early is early
    assert after.resumed_from == after.steps == before.steps
    assert (after.after, after.held_out) == (before.after, before.held_out)
    assert after.seconds > before.seconds / 2
    assert all(torch.equal(learned[name], weights(after)[name]) for name in learned)


def test_the_run_to_go_on_with_is_found(tmp_path: Path) -> None:
    """The one begun last that is not in the registry, by its own plan or that of a part of its learning curve."""
    runs = tmp_path / "runs"
    assert unfinished(runs, ()) is None
    for age, plan in enumerate(("curve/part-0.25", "older", "finished")):
        (runs / plan).mkdir(parents=True)
        (runs / plan / "plan.json").touch()
        os.utime(runs / plan / "plan.json", (1_000 - age, 1_000 - age))
    (runs / "empty").mkdir()
    assert unfinished(runs, ()) == runs / "curve"
    assert unfinished(runs, {"curve"}) == runs / "older"
    assert [begun(runs / name) for name in ("curve", "older", "empty", "nothing")] == [True, True, False, False]


def test_nothing_to_go_on_with_is_said(base: Path, talk: Path, tmp_path: Path) -> None:
    """A mistyped name with --resume begins nothing."""
    with pytest.raises(TrainingError, match="no run called vioce"):
        learn(
            [talk],
            registry=AdapterRegistry(tmp_path / "adapters"),
            run=tmp_path / "vioce",
            name="vioce",
            base="tiny",
            base_folder=str(base),
            command="person2 train",
            clock=lambda: datetime(2026, 1, 2, tzinfo=UTC),
            resume=True,
        )
    assert not (tmp_path / "vioce").exists()


def test_resume_refuses_another_run(base: Path, talk: Path, tmp_path: Path) -> None:
    """A run goes on with what it was begun with, or not at all."""
    run = tmp_path / "run"
    short = FinetuneConfig(rank=4, epochs=1, block=96, precision="fp32")
    finetune([talk], run=run, base=str(base), settings=short)
    with pytest.raises(TrainingError, match="another rank"):
        finetune([talk], run=run, base=str(base), settings=FinetuneConfig(rank=8, epochs=1, block=96), resume=True)


def test_training_goes_on_from_an_adapter(base: Path, talk: Path, tmp_path: Path) -> None:
    """What was learned counts: the second run begins where the first one ended."""
    first = finetune([talk], run=tmp_path / "first", base=str(base), settings=QUICK)
    more = replace(QUICK, epochs=2.0, learning_rate=2e-3)
    second = finetune([talk], run=tmp_path / "second", base=str(base), settings=more, adapter=first.adapter)
    assert second.before == pytest.approx(first.after, rel=1e-4)
    assert second.after <= second.before * 1.001
    config = json.loads((second.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)


def test_a_run_that_made_nothing_better_gives_back_what_it_began_with(base: Path, talk: Path, tmp_path: Path) -> None:
    """Trained further at a ruinous rate, an adapter comes back as it was; the card and a sentence say so."""
    first = finetune([talk], run=tmp_path / "first", base=str(base), settings=replace(QUICK, epochs=4.0))
    ruinous = replace(QUICK, epochs=1.0, learning_rate=10.0)
    registry = AdapterRegistry(tmp_path / "adapters")
    for name, contexts in (("further", 0), ("judged", 4)):
        learned = learn(
            [talk],
            registry=registry,
            run=tmp_path / name,
            name=name,
            base="tiny",
            base_folder=str(base),
            command="person2 train",
            clock=lambda: datetime(2026, 1, 2, tzinfo=UTC),
            start_from=Adapter(id="first", path=first.adapter),
            settings=ruinous,
            contexts=contexts,
        )
        assert learned is not None
        assert not learned.outcome.improved
        assert learned.outcome.best_step == 0
        assert learned.outcome.after == learned.outcome.before
        assert learned.warning.startswith("Training never improved on")
        assert registry.card(name).passed is False
        assert learned.warning in registry.card(name).notes
        if learned.comparison:
            assert not learned.comparison.verdict.passed
        kept = load_file(registry.path(name) / "adapter_model.safetensors")
        assert all(torch.equal(kept[part], weight) for part, weight in weights(first).items())


@pytest.mark.parametrize("changed", [{"device_tokens": 96}, {"gradient_checkpointing": True}])
def test_saving_memory_changes_no_step(base: Path, talk: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    """Steps in pieces (accumulation) and activations computed twice (checkpointing) give the same adapter."""
    short = replace(QUICK, epochs=2.0)
    plain = finetune([talk], run=tmp_path / "plain", base=str(base), settings=short)
    saving = finetune([talk], run=tmp_path / "saving", base=str(base), settings=replace(short, **changed))
    assert saving.steps == plain.steps
    assert saving.after == pytest.approx(plain.after, rel=1e-3)
    for name, expected in weights(plain).items():
        torch.testing.assert_close(weights(saving)[name], expected, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize(
    ("log_to", "package", "traces"),
    [("tensorboard", "tensorboard", "**/events.out.tfevents.*"), ("wandb", "wandb", "wandb/offline-run-*/*.wandb")],
)
def test_curves_go_to_the_tools_people_have(
    base: Path, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_to: LogTo, package: str, traces: str
) -> None:
    """With the package installed its files appear in the run's folder, and the held-out curve stands in them."""
    pytest.importorskip(package)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    finetune([talk], run=run, base=str(base), settings=replace(QUICK, epochs=1.0), log_to=log_to)
    found = list(run.glob(traces))
    assert found
    assert any(b"eval/bits_per_byte" in file.read_bytes() for file in found)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"run", "talk.txt"}


@pytest.mark.parametrize(
    ("set_by_hand", "width", "rate"),
    [(None, 256, 4e-3), (None, 768, 4e-3 / 3), (None, 1600, 6.4e-4), (2e-4, 768, 2e-4)],
)
def test_a_wider_base_learns_at_a_lower_rate(set_by_hand: float | None, width: int, rate: float) -> None:
    """Unless one is set; the widths are the starter's, gpt2's and gpt2-xl's."""
    assert FinetuneConfig(learning_rate=set_by_hand).rate(width) == pytest.approx(rate)


def test_early_stopping_keeps_the_best(base: Path, talk: Path, tmp_path: Path) -> None:
    """With a learning rate that ruins the model, training ends early and the best adapter is kept."""
    wild = FinetuneConfig(
        rank=4, epochs=30, block=96, batch_tokens=192, learning_rate=0.5, patience=2, precision="fp32"
    )
    outcome = finetune([talk], run=tmp_path / "run", base=str(base), settings=wild)
    assert outcome.stopped_early
    best = min(outcome.before, *(point.value for point in outcome.held_out))
    assert outcome.after == pytest.approx(best, rel=1e-3)


def test_bf16_costs_nothing_in_bits(base: Path, talk: Path, tmp_path: Path) -> None:
    """Products in bfloat16 learn as well as in fp32, within two hundredths."""

    short = replace(QUICK, epochs=3.0)
    full = finetune([talk], run=tmp_path / "fp32", base=str(base), settings=short)
    half = finetune([talk], run=tmp_path / "bf16", base=str(base), settings=replace(short, precision="bf16"))
    assert half.after == pytest.approx(full.after, rel=0.02)


def test_what_is_wrong_is_said_in_a_sentence(base: Path, talk: Path, tmp_path: Path) -> None:
    """Each fault a person can make, and the words that tell them."""
    silent = tmp_path / "silent.txt"
    silent.write_text("Person1: hello?\n", encoding="utf-8")
    shut = tmp_path / "shut"
    shut.write_text("a file where the folder should be")
    other = tmp_path / "other"
    _other_base(base, other)
    foreign = finetune(
        [talk], run=tmp_path / "f", base=str(other), settings=FinetuneConfig(rank=2, epochs=1, block=96)
    ).adapter
    faults: list[tuple[type[Person2Error], str, dict[str, object]]] = [
        (DialogueError, "no dialogue file", {"files": [tmp_path / "none.txt"]}),
        (DialogueError, "only Person1 speaks", {"files": [silent]}),
        (DialogueError, "no dialogue file", {"held_out": [tmp_path / "none.txt"]}),
        (DialogueError, "is also in the held-out", {"held_out": [talk]}),
        (ModelError, "no model folder", {"base": str(tmp_path / "nowhere")}),
        (ModelError, r"has no config\.json", {"base": str(tmp_path)}),
        (AdapterError, "does not fit", {"adapter": foreign}),
        (AdapterError, "no adapter in", {"adapter": tmp_path}),
        (TrainingError, "cannot be written", {"run": shut / "run"}),
        (TrainingError, "choose tensorboard or wandb", {"log_to": "paper"}),
    ]
    for kind, words, changed in faults:
        given: dict[str, object] = {"files": [talk], "run": tmp_path / "x", "base": str(base), "settings": QUICK}
        with pytest.raises(kind, match=words) as caught:
            finetune(**{**given, **changed})  # type: ignore[arg-type]  # a table of faulty arguments
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".") or kind is ModelError  # the command line ends the core's sentences
    with pytest.raises(TrainingError, match="rank must be at least 1"):
        FinetuneConfig(rank=0)
    with pytest.raises(TrainingError, match="auto, bf16, fp32, not 'half'"):
        FinetuneConfig(precision="half")  # type: ignore[arg-type]  # as a person may type it


@pytest.mark.parametrize("log_to", ["tensorboard", "wandb"])
def test_a_missing_package_is_named(base: Path, talk: Path, monkeypatch: pytest.MonkeyPatch, log_to: LogTo) -> None:
    """Without it nothing is trained, and the sentence says what to type."""
    monkeypatch.setattr("training.finetune.tracking.find_spec", lambda package: None)
    with pytest.raises(TrainingError, match=f"pip install {log_to}"):
        finetune([talk], run=talk.parent / "run", base=str(base), settings=QUICK, log_to=log_to)
    assert not (talk.parent / "run").exists()


def _other_base(base: Path, folder: Path) -> None:
    """The same tokenizer, another width."""

    shutil.copytree(base, folder)
    config = GPT2Config.from_pretrained(base)
    config.n_embd = 48
    GPT2LMHeadModel(config).save_pretrained(folder)


def test_two_processes_train_one_adapter(base: Path, talk: Path, tmp_path: Path) -> None:
    """`accelerate launch` with two processes: as many steps as one process takes, about the same bits, one adapter."""
    alone = finetune([talk], run=tmp_path / "alone", base=str(base), settings=replace(QUICK, epochs=4.0))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    run = tmp_path / "two"
    done = subprocess.run(  # our own interpreter and our own program
        [*command, "tests/training/launched.py", str(base), str(talk), str(run)],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    told = json.loads(line)
    assert told["steps"] == alone.steps
    assert told["after"] == pytest.approx(alone.after, rel=0.05)
    assert (run / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("layers", "width", "inner", "tokens"),
    [(12, 256, 1_024, 4_096), (30, 576, 1_536, 1_024), (48, 1_600, 6_400, 512)],
    ids=["starter", "SmolLM2", "GPT-2 XL"],
)
def test_larger_bases_learn_fewer_tokens_at_once(layers: int, width: int, inner: int, tokens: int) -> None:
    """What a step keeps for its backward pass stays within a gigabyte; a row is the least, and what is set holds."""
    config = {
        "model_type": "llama", "num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner
    }  # fmt: skip
    assert FinetuneConfig().tokens_at_once(config) == tokens
    assert FinetuneConfig(device_tokens=96).tokens_at_once(config) == 96
