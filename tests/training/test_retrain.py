"""From the log to a better voice, and out of everything again: consent, likes, the lock, forgetting."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.adapters import Card, Shelf
from core.errors import TrainingError
from core.memory import Memory, open_memory
from core.messages import Conversation, Message
from tests.models import tiny_adapter, tiny_model
from training.consent import PeopleKey
from training.finetune import Settings, finetune
from training.forgetting import forget, remember_import
from training.importing import import_talk
from training.provenance import people_by_dialogue, people_of
from training.retrain import retrain
from training.runs import locked

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def clock() -> datetime:
    return START


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    """Ann said yes, Bob did not; the bot answered both, and people judged two of its replies."""
    memory = open_memory(f"sqlite:///{tmp_path / 'person2.db'}")
    memory.set_consent("test", "ann", True, START)
    dice = random.Random(7)

    def words(count: int) -> str:
        """Talk of many different words: dialogues that are nearly alike count as copies and are dropped."""
        return " ".join("".join(dice.choices("abdegiklmnoprstu", k=dice.randint(3, 7))) for _ in range(count))

    for day in range(60):
        where = Conversation(platform="test", channel=f"c{day}")
        for turn, (author, text) in enumerate(
            [
                ("ann", f"how do you like {words(9)} then"),
                ("cat", f"well {words(10)} is a fine one"),
                ("ann", f"then let us walk and talk of {words(9)}"),
                ("bob", f"secret of bob {words(8)} that nobody may learn"),
            ]
        ):
            memory.remember(
                Message(
                    conversation=where,
                    id=f"{day}-{turn}",
                    author=author,
                    author_name=author.title(),
                    text=text,
                    sent_at=START + timedelta(days=day, minutes=turn),
                )
            )
    memory.set_consent("test", "cat", True, START)
    return memory


def test_a_dry_run_counts_and_leaves_nothing(memory: Memory, tmp_path: Path) -> None:
    """What would be learned is counted; no file, no adapter, and Bob's words are dropped."""
    done = retrain(
        memory=memory,
        shelf=Shelf(tmp_path / "adapters"),
        home=tmp_path,
        base="tiny",
        base_folder="unused",
        command="person2 retrain",
        clock=clock,
        dry_run=True,
    )
    assert done.learned is None
    assert done.funnel.dialogues >= 20
    assert done.funnel.used <= 180
    assert not list((tmp_path / "retrain").rglob("*.txt"))
    assert not (tmp_path / "adapters").exists()


def test_a_whole_run_learns_from_those_who_said_yes(memory: Memory, tmp_path: Path) -> None:
    """The log becomes dialogues and an adapter that knows whose words it holds; the verdict decides who speaks."""
    base = tiny_model(tmp_path / "tiny")
    shelf = Shelf(tmp_path / "adapters")
    done = retrain(
        memory=memory,
        shelf=shelf,
        home=tmp_path,
        base="tiny",
        base_folder=str(base),
        command="person2 retrain",
        clock=clock,
        settings=Settings(epochs=2, rank=4, block=128, batch_tokens=512),
        contexts=8,
    )
    assert done.learned is not None
    key = PeopleKey.at(tmp_path)
    card = shelf.card(done.learned.adapter.id)
    assert set(card.people) == {key.hash("test", "ann"), key.hash("test", "cat")}
    assert card.passed is done.promoted
    speaks = shelf.current(base="tiny")
    assert (speaks is not None and speaks.id == card.id) is done.promoted
    for file in (tmp_path / "retrain").rglob("*"):
        assert file.is_dir() or b"secret of bob" not in file.read_bytes()
    assert (tmp_path / "runs" / card.id / "report.html").exists()


def test_too_little_talk_is_one_sentence(tmp_path: Path) -> None:
    """Nothing is trained, nothing is left behind, the current voice goes on."""
    with pytest.raises(TrainingError, match="0 dialogues to learn from and 20 are needed"):
        retrain(
            memory=open_memory("sqlite://"),
            shelf=Shelf(tmp_path / "adapters"),
            home=tmp_path,
            base="tiny",
            base_folder="unused",
            command="person2 retrain",
            clock=clock,
        )


def test_two_never_run_at_once(tmp_path: Path) -> None:
    """The second is told, and may run once the first is done."""
    lock = tmp_path / "retrain.lock"
    with locked(lock), pytest.raises(TrainingError, match="under way"), locked(lock):
        pass
    with locked(lock):
        pass


def test_forgetting_reaches_every_file(memory: Memory, tmp_path: Path) -> None:
    """After Ann is forgotten no file under the home holds her words, and what learned from them is out of service."""
    talk = tmp_path / "imported" / "talk.txt"
    import_talk(
        [], out=talk, home=tmp_path, log=(item.message for item in memory.everything()), consented=memory.consented()
    )
    assert "how do you like" in talk.read_text(encoding="utf-8")
    people = tuple(
        entry["hash"] for entry in json.loads((tmp_path / "imported" / "talk.txt.manifest.json").read_text())["people"]
    )
    shelf = Shelf(tmp_path / "adapters")
    base = tiny_model(tmp_path / "tiny")
    for name, learned in (("clean", ()), ("learned", people)):
        folder = tiny_adapter(tmp_path / f"made-{name}", base, seed=1)
        shelf.add(
            folder, Card(id=name, created_at=START, base="tiny", people=learned, config={"command": f"make {name}"})
        )
    shelf.use("clean")
    shelf.use("learned")
    (tmp_path / "runs" / "learned").mkdir(parents=True)
    (tmp_path / "runs" / "learned" / "report.html").write_text("they said: then let us walk 3 miles")

    receipt = forget("test", "ann", memory=memory, shelf=shelf, home=tmp_path, base="tiny")

    assert receipt.removed.messages == 120
    assert receipt.dialogues > 0
    assert (receipt.adapters, receipt.rebuild, receipt.speaks_now) == (("learned",), ("make learned",), "clean")
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert b"let us walk" not in file.read_bytes(), file
            assert b"how do you like" not in file.read_bytes(), file
    assert any("secret of bob" in item.message.text for item in memory.everything())


def holding(folder: Path, words: bytes) -> list[Path]:
    """The files in which the words stand."""
    return [file for file in folder.rglob("*") if file.is_file() and words in file.read_bytes()]


def test_forgetting_reaches_what_no_card_names(memory: Memory, tmp_path: Path) -> None:
    """A killed run, a retraining killed in the middle of reading, a dialogue file written elsewhere: all cleaned."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere" / "talk.txt"
    import_talk(
        [], out=elsewhere, home=home, log=(item.message for item in memory.everything()), consented=memory.consented()
    )
    remember_import(home, elsewhere)
    key = PeopleKey.at(home)
    for name, person in (("killed", "ann"), ("other", "zoe")):
        run = home / "runs" / name
        run.mkdir(parents=True)
        (run / "plan.json").write_text(json.dumps({"people": [key.hash("test", person)]}))
        (run / "report.html").write_text("then let us walk and talk")
    spool = home / "retrain" / "retrained-1" / ".log.txt.abc"
    spool.mkdir(parents=True)
    (spool / "said-0").write_text("how do you like it")

    receipt = forget("test", "ann", memory=memory, shelf=Shelf(home / "adapters"), home=home)

    assert receipt.dialogues > 0
    assert not receipt.left
    assert not holding(tmp_path, b"how do you like")
    assert holding(tmp_path, b"let us walk") == [home / "runs" / "other" / "report.html"]


def test_a_file_changed_by_hand_stops_nothing_else(memory: Memory, tmp_path: Path) -> None:
    """The file is named; the database, the other file and the shelf are clean all the same."""
    for name in ("changed", "whole"):
        import_talk(
            [],
            out=tmp_path / name / "talk.txt",
            home=tmp_path,
            log=(item.message for item in memory.everything()),
            consented=memory.consented(),
        )
    changed = tmp_path / "changed" / "talk.txt"
    changed.write_text(changed.read_text() + "\nPerson1: One more.\nPerson2: By hand.\n")
    receipt = forget("test", "ann", memory=memory, shelf=Shelf(tmp_path / "adapters"), home=tmp_path)
    (sentence,) = receipt.left
    assert str(changed) in sentence
    assert "could not be cleaned yet" in str(receipt)
    assert receipt.removed.messages == 120
    assert holding(tmp_path, b"how do you like") == [changed]


@pytest.mark.parametrize("how", ["forget-me", "consent no"])
def test_who_leaves_while_a_voice_learns_is_not_in_it(memory: Memory, tmp_path: Path, how: str) -> None:
    """The voice goes out of service before it ever speaks, and nothing of its run stays."""
    base = tiny_model(tmp_path / "tiny")
    shelf = Shelf(tmp_path / "adapters")
    stages: list[str] = []

    def leave(stage: str) -> None:
        stages.append(stage)
        if len(stages) == 4:
            if how == "consent no":
                memory.set_consent("test", "ann", False, START)
            else:
                forget("test", "ann", memory=memory, shelf=shelf, home=tmp_path)

    with pytest.raises(TrainingError, match=r"asked to be forgotten|took back their consent"):
        retrain(
            memory=memory,
            shelf=shelf,
            home=tmp_path,
            base="tiny",
            base_folder=str(base),
            command="person2 retrain",
            clock=clock,
            settings=Settings(epochs=1, rank=4, block=64, batch_tokens=512),
            contexts=4,
            on_stage=leave,
        )
    assert all(card.withdrawn for card in shelf.cards())
    assert shelf.current(base="tiny") is None
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
        settings=Settings(epochs=1, block=64),
    )
    assert outcome.people == ("a1",)
    assert set(json.loads((tmp_path / "run" / "plan.json").read_text())["people"]) == {"a1", *people_of([held])}
