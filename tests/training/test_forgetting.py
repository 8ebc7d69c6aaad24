"""Out of everything again: a member is handed all that is stored of them, and then no file holds their words."""

import json
import sqlite3
from pathlib import Path

import pytest

from core.adapters import AdapterRegistry, Card
from core.adapters.validation import WEIGHTS
from core.errors import AdapterError
from core.memory import Memory, Removed, database, members
from core.messages import Message
from tests.models import tiny_adapter, tiny_model
from tests.training.logged import START, holding, logged
from training.data.formats import read
from training.data.import_job import Options, import_talk
from training.privacy.consent import PeopleKey
from training.privacy.forget import forget
from training.privacy.member_export import is_empty, stored_of
from training.privacy.own_log import learnable
from training.privacy.run_registry import importing, note_heard, remember_import


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
    registry = AdapterRegistry(tmp_path / "adapters")
    base = tiny_model(tmp_path / "tiny")
    for name, learned in (("clean", ()), ("learned", people)):
        folder = tiny_adapter(tmp_path / f"made-{name}", base, seed=1)
        registry.add(
            folder, Card(id=name, created_at=START, base="tiny", people=learned, config={"command": f"make {name}"})
        )
    registry.use("clean")
    registry.use("learned")
    (tmp_path / "runs" / "learned").mkdir(parents=True)
    (tmp_path / "runs" / "learned" / "report.html").write_text("they said: then let us walk 3 miles")

    receipt = forget("test", "ann", memory=memory, registry=registry, home=tmp_path, base="tiny")

    assert receipt.removed.messages == 120
    assert receipt.dialogues > 0
    assert (receipt.adapters, receipt.rebuild, receipt.speaks_now) == (("learned",), ("make learned",), "clean")
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert b"let us walk" not in file.read_bytes(), file
            assert b"how do you like" not in file.read_bytes(), file
    assert any("secret of bob" in item.message.text for item in memory.everything())


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

    receipt = forget("test", "ann", memory=memory, registry=AdapterRegistry(home / "adapters"), home=home)

    assert receipt.dialogues > 0
    assert not receipt.left
    assert not holding(tmp_path, b"how do you like")
    assert holding(tmp_path, b"let us walk") == [home / "runs" / "other" / "report.html"]


def test_a_file_changed_by_hand_stops_nothing_else(memory: Memory, tmp_path: Path) -> None:
    """The file is named; the database, the other file and the registry are clean all the same."""
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
    receipt = forget("test", "ann", memory=memory, registry=AdapterRegistry(tmp_path / "adapters"), home=tmp_path)
    (sentence,) = receipt.left
    assert str(changed) in sentence
    assert "Not everything could be deleted yet" in str(receipt)
    assert receipt.removed.messages == 120
    assert holding(tmp_path, b"how do you like") == [changed]


def _locked_database(home: Path) -> str:
    """Another program writes and does not end."""
    other = sqlite3.connect(home / "person2.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    _HELD.append(other)
    return "locked by another program"


def _damaged_key(home: Path) -> str:
    (home / "people.key").write_bytes(b"short")
    return "is not a key"


def _unreadable_register(home: Path) -> str:
    (home / "imported.txt").unlink(missing_ok=True)
    (home / "imported.txt").mkdir()
    return "imported.txt"


def _damaged_manifest(home: Path) -> str:
    paper = home / "talk.txt.manifest.json"
    paper.write_bytes(paper.read_bytes()[:-100])
    return "talk.txt"


def _unwritable_registry(home: Path) -> str:
    lock = home / "adapters" / ".lock"
    lock.unlink()
    lock.mkdir()
    return "cannot be written"


_HELD: list[sqlite3.Connection] = []

REFUSALS = {
    "database": (_locked_database, {"files", "runs", "registry"}),
    "key": (_damaged_key, {"database"}),
    "register": (_unreadable_register, {"database", "files", "runs", "registry"}),
    "manifest": (_damaged_manifest, {"database", "runs", "registry"}),
    "registry": (_unwritable_registry, {"database", "files", "runs"}),
}


@pytest.mark.parametrize("refusing", REFUSALS)
def test_what_one_store_refuses_stops_no_other(tmp_path: Path, refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Database, dialogue files, runs and adapters are cleaned as far as each allows; the receipt says what is left."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    memory = logged(f"sqlite:///{tmp_path / 'person2.db'}")
    imported(memory, tmp_path / "talk.txt", tmp_path)
    person = PeopleKey.at(tmp_path).hash("test", "ann")
    run = tmp_path / "runs" / "killed"
    run.mkdir(parents=True)
    (run / "plan.json").write_text(json.dumps({"people": [person]}))
    registry = AdapterRegistry(tmp_path / "adapters")
    made = tiny_adapter(tmp_path / "made", tiny_model(tmp_path / "tiny"))
    registry.add(made, Card(id="ours", created_at=START, base="tiny", people=(person,)))

    refuse, cleaned = REFUSALS[refusing]
    told = refuse(tmp_path)
    receipt = forget("test", "ann", memory=memory, registry=registry, home=tmp_path)
    while _HELD:
        _HELD.pop().close()
    assert any(told in sentence for sentence in receipt.left)
    clean = {
        "database": memory.export("test", "ann")["messages"] == [],
        "files": b"how do you like" not in (tmp_path / "talk.txt").read_bytes(),
        "runs": not run.exists(),
        "registry": not (tmp_path / "adapters" / "ours" / WEIGHTS).exists(),
    }
    memory.close()
    assert {store for store, done in clean.items() if done} == cleaned


def imported(memory: Memory, out: Path, home: Path) -> Path:
    """The log as a dialogue file."""
    import_talk([], out=out, home=home, log=learnable(memory), consented=memory.consented())
    return out


def test_what_is_stored_is_handed_over_whole(memory: Memory, tmp_path: Path) -> None:
    """Messages, training dialogues and voices; after forgetting nothing of it, and other members keep theirs."""
    imported(memory, tmp_path / "talk.txt", tmp_path)
    base, key = tiny_model(tmp_path / "tiny"), PeopleKey.at(tmp_path)
    registry = AdapterRegistry(tmp_path / "adapters")
    registry.add(
        tiny_adapter(tmp_path / "made", base),
        Card(id="ours", created_at=START, base="tiny", people=(key.hash("test", "ann"),)),
    )

    def stored(member: str) -> dict[str, object]:
        found = stored_of("test", member, memory=memory, registry=registry, home=tmp_path)
        assert not found["unreadable"]
        return {
            "messages": len(found["messages"]),
            "dialogues": len(found["dialogues"]),
            "voices": [(voice["id"], voice["in service"]) for voice in found["voices"]],
            "nothing": is_empty(found),
        }

    both = {"messages": 120, "dialogues": 60, "voices": [("ours", True)], "nothing": False}
    assert stored("ann") == both
    assert stored("cat") == both | {"messages": 60, "voices": []}
    assert stored("bob") == both | {"messages": 60, "dialogues": 0, "voices": []}
    assert stored("zoe") == {"messages": 0, "dialogues": 0, "voices": [], "nothing": True}
    assert all(
        "how do you like" in one["dialogue"]
        for one in stored_of("test", "ann", memory=memory, registry=registry, home=tmp_path)["dialogues"]
    )
    forget("test", "ann", memory=memory, registry=registry, home=tmp_path)
    assert stored("ann") == {"messages": 0, "dialogues": 0, "voices": [("ours", False)], "nothing": False}
    assert stored("cat") == both | {"messages": 60, "dialogues": 0, "voices": []}


def test_what_a_killed_import_left_is_swept(memory: Memory, tmp_path: Path) -> None:
    """Beside the file it was to write, in the home or elsewhere; one under way is left alone and said so."""
    home, registry = tmp_path / "home", AdapterRegistry(tmp_path / "home" / "adapters")
    for out in (home / "talk.txt", tmp_path / "elsewhere" / "talk.txt"):
        remember_import(home, out)
        spool = out.parent / f".{out.name}.x1y2" / "runs"
        spool.mkdir(parents=True)
        (spool / "0000000-0").write_text("let us walk")
        (out.parent / f".{out.name}.z3").write_text("let us walk")
    with importing(home):
        (sentence,) = forget("test", "ann", memory=memory, registry=registry, home=home).left
    assert "is running" in sentence
    assert len(holding(tmp_path, b"let us walk")) == 4
    assert not forget("test", "ann", memory=memory, registry=registry, home=home).left
    assert not holding(tmp_path, b"let us walk")


def test_every_run_that_heard_the_words_goes(memory: Memory, tmp_path: Path) -> None:
    """A part of a learning curve, a report in which a voice spoke that had learned them; another's run stays."""
    key = PeopleKey.at(tmp_path)
    runs = {name: tmp_path / "runs" / name for name in ("curve", "judged", "other")}
    for run in runs.values():
        run.mkdir(parents=True)
        (run / "report.html").write_text("then let us walk")
    (runs["curve"] / "part-0.25").mkdir()
    (runs["curve"] / "part-0.25" / "plan.json").write_text(json.dumps({"people": [key.hash("test", "ann")]}))
    note_heard(runs["judged"], [key.hash("test", "ann")])
    note_heard(runs["other"], [key.hash("test", "cat")])
    forget("test", "ann", memory=memory, registry=AdapterRegistry(tmp_path / "adapters"), home=tmp_path)
    assert [run.name for run in (tmp_path / "runs").iterdir()] == ["other"]


def test_a_manifest_keeps_no_name(memory: Memory, tmp_path: Path) -> None:
    """Whom `--as` named stands there as a hash, and goes with them; so do the names of the sources."""
    export = tmp_path / "WhatsApp Chat with Ann.txt"
    lines = (f"[0{day}/02/2026, 12:00:0{n}] {who}: the {n} of {day} it is" for day in range(1, 9) for n, who in
             enumerate(("Ann", "Cat", "Ann", "Cat")))  # fmt: skip
    export.write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "talk.txt"
    import_talk([export], out=out, home=tmp_path, attest="ours", options=Options(as_name="Ann"))
    paper = json.loads(Path(f"{out}.manifest.json").read_text())
    person = next(
        f"{item.conversation.platform}:{item.author}"
        for item in read(export, scratch=tmp_path)
        if isinstance(item, Message) and item.author_name == "Ann"
    )
    assert paper["options"]["as"] == [PeopleKey.at(tmp_path).of(person)]
    assert b"Ann" not in out.read_bytes()
    platform, _, member = person.partition(":")
    forget(platform, member, memory=memory, registry=AdapterRegistry(tmp_path / "adapters"), home=tmp_path)
    paper = json.loads(Path(f"{out}.manifest.json").read_text())
    assert paper["options"]["as"] == []
    assert "Ann" not in json.dumps(paper)


def test_what_learned_from_them_is_erased_and_can_be_rebuilt(memory: Memory, tmp_path: Path) -> None:
    """The weights go, the card stays and says why; a voice of the same name may take the place."""
    base, registry = tiny_model(tmp_path / "tiny"), AdapterRegistry(tmp_path / "adapters")
    made = tiny_adapter(tmp_path / "made", base)
    person = PeopleKey.at(tmp_path).hash("test", "ann")
    registry.add(made, Card(id="ours", created_at=START, base="tiny", people=(person,)))
    registry.use("ours")
    forget("test", "ann", memory=memory, registry=registry, home=tmp_path)
    assert not (registry.path("ours") / WEIGHTS).exists()
    assert "asked to be forgotten" in registry.card("ours").withdrawn
    with pytest.raises(AdapterError, match="out of service"):
        registry.find("ours")
    registry.add(made, Card(id="ours", created_at=START, base="tiny"))
    registry.use("ours")
    assert registry.card("ours").people == ()
    with pytest.raises(AdapterError, match="already"):
        registry.add(made, Card(id="ours", created_at=START, base="tiny"))


def test_a_reader_that_never_ends_is_named(memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it reads, SQLite cannot empty its write-ahead log, in which the words still stand."""
    memory.close()
    monkeypatch.setattr(members, "PATIENCE_SECONDS", 0.1)
    quick = database.open_memory(f"sqlite:///{tmp_path / 'person2.db'}")
    reader = sqlite3.connect(tmp_path / "person2.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM messages").fetchone()
    assert "write-ahead log still contains the messages" in quick.forget("test", "ann").left
    reader.close()
    assert quick.forget("test", "ann") == Removed()
    assert not holding(tmp_path, b"let us walk")
