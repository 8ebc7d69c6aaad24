"""From the log to a better voice: consent, likes, the lock, and who leaves meanwhile."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.adapters import AdapterRegistry, Card
from core.adapters.validation import CONFIG
from core.errors import TrainingError
from core.memory import Memory, open_memory
from tests.models import tiny_adapter, tiny_model
from tests.training.logged import START, clock, holding
from training.data.import_job import import_talk
from training.evaluation.suite import Stage
from training.finetune.config import FinetuneConfig
from training.finetune.retrain import Retrained, retrain
from training.finetune.run import finetune
from training.privacy.consent import PeopleKey
from training.privacy.forget import forget
from training.privacy.provenance import people_by_dialogue, people_of
from training.privacy.run_registry import locked


def retrained(**options: Any) -> Retrained:
    """One run for the base `tiny`."""
    return retrain(base="tiny", command="person2 retrain", clock=clock, **options)


def test_a_dry_run_counts_and_leaves_nothing(memory: Memory, tmp_path: Path) -> None:
    """What would be learned is counted; no file, no adapter, and Bob's words are dropped."""
    done = retrained(
        memory=memory,
        registry=AdapterRegistry(tmp_path / "adapters"),
        home=tmp_path,
        base_folder="unused",
        dry_run=True,
    )
    assert done.learned is None
    assert done.stats.dialogues >= 20
    assert done.stats.used <= 180
    assert not list((tmp_path / "retrain").rglob("*.txt"))
    assert not (tmp_path / "adapters").exists()


def test_a_whole_run_learns_from_those_who_said_yes(memory: Memory, tmp_path: Path) -> None:
    """The log becomes dialogues and an adapter that knows whose words it holds; the verdict decides who speaks."""
    base = tiny_model(tmp_path / "tiny")
    registry = AdapterRegistry(tmp_path / "adapters")
    done = retrained(
        memory=memory,
        registry=registry,
        home=tmp_path,
        base_folder=str(base),
        settings=FinetuneConfig(epochs=2, rank=4, block=128, batch_tokens=512),
        contexts=8,
    )
    assert done.learned is not None
    key = PeopleKey.at(tmp_path)
    card = registry.card(done.learned.adapter.id)
    assert set(card.people) == {key.hash("test", "ann"), key.hash("test", "cat")}
    assert card.passed is done.promoted
    speaks = registry.current(base="tiny")
    assert (speaks is not None and speaks.id == card.id) is done.promoted
    for file in (tmp_path / "retrain").rglob("*"):
        assert file.is_dir() or b"secret of bob" not in file.read_bytes()
    assert (tmp_path / "runs" / card.id / "report.html").exists()


def test_it_goes_on_from_the_voice_that_speaks(memory: Memory, tmp_path: Path) -> None:
    """What that voice learned is kept, and so are the people whose words it learned."""
    base = tiny_model(tmp_path / "tiny")
    registry = AdapterRegistry(tmp_path / "adapters")
    registry.add(
        tiny_adapter(tmp_path / "made", base, rank=2),
        Card(id="ours", created_at=START, base="tiny", people=("zoe's hash",)),
    )
    registry.use("ours")
    done = retrained(
        memory=memory,
        registry=registry,
        home=tmp_path,
        base_folder=str(base),
        settings=FinetuneConfig(epochs=1, rank=4, block=64, batch_tokens=512),
        contexts=4,
    )
    assert done.learned is not None
    assert len(done.learned.card.people) == 3
    assert "zoe's hash" in done.learned.card.people
    assert set(done.learned.card.scores) == {"base", "current", "new"}
    assert json.loads((done.learned.adapter.path / CONFIG).read_text())["r"] == 2


def test_too_little_talk_is_one_sentence(tmp_path: Path) -> None:
    """Nothing is trained, nothing is left behind, the current voice goes on."""
    with pytest.raises(TrainingError, match="0 dialogues to learn from and 20 are needed"):
        retrained(
            memory=open_memory("sqlite://"),
            registry=AdapterRegistry(tmp_path / "adapters"),
            home=tmp_path,
            base_folder="unused",
        )


def test_two_never_run_at_once(tmp_path: Path) -> None:
    """The second is told, and may run once the first is done."""
    lock = tmp_path / "retrain.lock"
    with locked(lock), pytest.raises(TrainingError, match="already running"), locked(lock):
        pass
    with locked(lock):
        pass


@pytest.mark.parametrize("how", ["forget-me", "consent no"])
def test_who_leaves_while_a_voice_learns_is_not_in_it(memory: Memory, tmp_path: Path, how: str) -> None:
    """The voice goes out of service before it ever speaks, and nothing of its run stays."""
    base = tiny_model(tmp_path / "tiny")
    registry = AdapterRegistry(tmp_path / "adapters")
    stages: list[str] = []

    def leave(stage: Stage) -> None:
        stages.append(str(stage))
        if len(stages) == 4:
            if how == "consent no":
                memory.set_consent("test", "ann", False, START)
            else:
                forget("test", "ann", memory=memory, registry=registry, home=tmp_path)

    with pytest.raises(TrainingError, match=r"asked to be forgotten|withdrew their consent"):
        retrained(
            memory=memory,
            registry=registry,
            home=tmp_path,
            base_folder=str(base),
            settings=FinetuneConfig(epochs=1, rank=4, block=64, batch_tokens=512),
            contexts=4,
            on_stage=leave,
        )
    assert all(card.withdrawn for card in registry.cards())
    assert registry.current(base="tiny") is None
    assert not list((tmp_path / "runs").iterdir())
    assert not [file for file in holding(tmp_path, b"let us walk") if "person2.db" not in file.name]


def test_whose_words_follow_the_files(memory: Memory, tmp_path: Path) -> None:
    """The held-out part of an import, and an adapter that training goes on from, say whose words they hold."""
    out, held = tmp_path / "talk.txt", tmp_path / "held.txt"
    import_talk(
        [],
        out=out,
        held_out=held,
        home=tmp_path,
        log=(item.message for item in memory.everything()),
        consented=memory.consented(),
    )
    assert people_of([held]) == people_of([out]) != ()
    assert len(people_by_dialogue([held])) == held.read_text().count("\n\n") + 1
    (tmp_path / "plain.txt").write_text("Person1: Hello.\nPerson2: Hi.\n\nPerson1: Hello!\nPerson2: Oh, hi.\n")
    assert people_of([tmp_path / "plain.txt"]) == ()
    base = tiny_model(tmp_path / "tiny")
    folder = tiny_adapter(tmp_path / "made", base, seed=1)
    (folder / "card.json").write_text(Card(id="made", created_at=START, base="tiny", people=("a1",)).to_json())
    outcome = finetune(
        [tmp_path / "plain.txt"],
        held_out=[held],
        run=tmp_path / "run",
        base=str(base),
        adapter=folder,
        settings=FinetuneConfig(epochs=1, block=64),
    )
    assert outcome.people == ("a1",)
    assert set(json.loads((tmp_path / "run" / "plan.json").read_text())["people"]) == {"a1", *people_of([held])}
