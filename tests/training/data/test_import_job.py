"""The whole import: what is written, whose words, what is counted, and that nothing half is left behind."""

import json
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core import dialogue
from core.errors import ExportError
from core.messages import Conversation, Kind, Message
from tests.training.data import export_fixtures as made
from training.data import manifest
from training.data.import_job import Options, import_talk
from training.data.reply_links import Previous
from training.data.stats import ImportStats, render_table
from training.privacy.consent import PeopleKey, matching

OPTIONS = Options(linker=Previous(), min_words=1)


class Starts:
    """A linker that knows no links: every message starts a conversation."""

    def links(self, messages: Sequence[Message]) -> list[int | None]:
        return [None] * len(messages)


def write(path: Path, talk: Iterable[tuple[int, str, str]], **channel: Any) -> Path:
    """A Discord export of (second, name, words)."""
    messages = [made.discord_message(0, name, text) for _, name, text in talk]
    for message, (second, name, _) in zip(messages, talk, strict=True):
        moment = datetime(2024, 1, 15, tzinfo=UTC) + timedelta(seconds=second)
        message |= {"id": str(10_000_000 + second), "timestamp": moment.isoformat()}
        message["author"]["id"] = name
    path.write_text(json.dumps(made.discord(messages, **channel), indent=2))
    return path


def run(tmp_path: Path, *sources: Path, **more: Any) -> ImportStats:
    given: dict[str, Any] = {"out": tmp_path / "out.txt", "home": tmp_path / "home", "options": OPTIONS}
    if "people" not in more:
        given["attest"] = "all of us agreed"
    return import_talk(sources, **(given | more))


def people_file(tmp_path: Path, *names: str) -> Path:
    path = tmp_path / "people.txt"
    path.write_text("# they said yes\n" + "\n".join(names) + "\n")
    return path


def test_talk_becomes_dialogues(tmp_path: Path) -> None:
    """A silence ends a conversation; lines of one side merge; the one who answers most is Person2."""
    source = write(
        tmp_path / "a.json",
        [(0, "Ann", "anyone here?"), (5, "Ann", "I need flour"), (60, "Bob", "rye or wheat?"), (70, "Ann", "rye"),
         (80, "Bob", "mail bob@example.com"), (90000, "Cid", "morning all"), (90010, "Ann", "morning Person1")],
    )  # fmt: skip
    stats = run(tmp_path, source)
    assert (tmp_path / "out.txt").read_text() == (
        "Person1: anyone here? I need flour\nPerson2: rye or wheat?\nPerson1: rye\nPerson2: mail [email]\n\n"
        "Person1: morning all\nPerson2: morning Person1\n"
    )
    assert (stats.read, stats.used, stats.conversations, stats.dialogues, stats.turns) == (7, 7, 2, 2, 6)
    assert (stats.people, stats.masked) == (3, {"email": 1})


def test_nothing_is_written_without_consent(tmp_path: Path) -> None:
    """Neither an attestation nor a list of people: a sentence that says what to do, and no file."""
    source = write(tmp_path / "a.json", [(0, "Ann", "hi"), (1, "Bob", "ho")])
    with pytest.raises(ExportError, match=r"--attest.*--people"):
        run(tmp_path, source, attest="  ")
    assert not (tmp_path / "out.txt").exists()


def test_only_the_words_of_those_who_agreed(tmp_path: Path) -> None:
    """Others' words are left out, and a gap is a gap: what stands on both sides is not joined."""
    source = write(
        tmp_path / "a.json",
        [(0, "Ann", "one"), (10, "Bob", "two"), (20, "Eve", "SECRET"), (30, "Ann", "three"), (40, "Bob", "four")],
    )
    stats = run(tmp_path, source, people=people_file(tmp_path, "ann", "@Bob", "Zoe"))
    assert (tmp_path / "out.txt").read_text() == "Person1: one\nPerson2: two\n\nPerson1: three\nPerson2: four\n"
    assert stats.dropped["no consent"] == 1
    assert stats.unknown_people == ["Zoe"]
    written = [path.read_text() for path in tmp_path.glob("out*")]
    assert not any("SECRET" in text or "Ann" in text for text in written)


def test_a_name_that_two_people_bear_is_nobody(tmp_path: Path) -> None:
    """One of the two did not say yes; their id does."""
    talk = [made.discord_message(n, "Ann", f"words {n}") for n in range(4)]
    for n, message in enumerate(talk):
        message["author"]["id"] = str(1000 + n % 2)
    source = tmp_path / "a.json"
    source.write_text(json.dumps(made.discord(talk)))
    assert run(tmp_path, source, people=people_file(tmp_path, "Ann")).dialogues == 0
    assert run(tmp_path, source, people=people_file(tmp_path, "1000", "discord:1001")).dialogues == 1


def test_as_makes_one_person_the_voice(tmp_path: Path) -> None:
    """`--as` by name; an unknown name is a sentence."""
    source = write(tmp_path / "a.json", [(n, "Ann" if n % 2 else "Bob", f"word{n} x") for n in range(6)])
    run(tmp_path, source, options=Options(linker=Previous(), as_name="bob"))
    assert [line for line in (tmp_path / "out.txt").read_text().splitlines() if line.startswith("Person2")] == [
        "Person2: word0 x", "Person2: word2 x", "Person2: word4 x"
    ]  # fmt: skip
    with pytest.raises(ExportError, match=r"Nobody.*'Zoe'"):
        run(tmp_path, source, options=Options(linker=Previous(), as_name="Zoe"))


def test_reply_links_make_paths_and_no_target_turn_twice(tmp_path: Path) -> None:
    """Two conversations at once, told apart by reply links; the branch shows its context, not its target again."""
    talk = [
        ("1", "Ann", "bread?", None),
        ("2", "Bob", "soup?", None),
        ("3", "Cid", "rye bread", "1"),
        ("4", "Dan", "leek soup", "2"),
        ("5", "Ann", "with seeds?", "3"),
        ("6", "Cid", "always seeds", "5"),
        ("7", "Eve", "I prefer wheat", "3"),
        ("8", "Cid", "fair enough", "7"),
    ]
    messages = [
        made.discord_message(
            int(id_), name, text, id=id_, type="Reply" if to else "Default", reference={"messageId": to} if to else None
        )
        | {"author": {"id": name, "name": name}}
        for id_, name, text, to in talk
    ]
    source = tmp_path / "a.json"
    source.write_text(json.dumps(made.discord(messages)))
    stats = run(tmp_path, source, options=Options(linker=Starts(), min_words=1))
    assert stats.links == {"reply link": 6}
    dialogues = (tmp_path / "out.txt").read_text().split("\n\n")
    assert dialogues == [
        "Person1: bread?\nPerson2: rye bread\nPerson1: with seeds?\nPerson2: always seeds",
        "Person1: bread? rye bread\nPerson2: I prefer wheat",
        "Person1: soup?\nPerson2: leek soup\n",
    ]


def test_held_out_by_time_and_whole_conversations(tmp_path: Path) -> None:
    """The newest conversations are held out; together the two files hold everything once."""
    source = write(
        tmp_path / "a.json",
        [(day * 90000 + s, "AB"[s], f"day {day} line {s} words") for day in range(20) for s in (0, 1)],
    )
    stats = run(tmp_path, source, held_out=tmp_path / "held.txt")
    kept, held = ((tmp_path / name).read_text() for name in ("out.txt", "held.txt"))
    assert (stats.dialogues, stats.held_out) == (20, 2)
    assert [int(day) for day in re.findall(r"Person1: day (\d+)", kept)] == list(range(18))
    assert [int(day) for day in re.findall(r"Person1: day (\d+)", held)] == [18, 19]
    assert list(dialogue.read(held.splitlines())) != []


def test_counts_add_up_and_the_table_says_so(tmp_path: Path) -> None:
    """Read = dropped + used, for whatever is thrown at it."""
    paste = "buy my course now, it will change your life for ever and ever " * 2
    talk = [(n * 4000, name, paste) for n, name in enumerate("ABCDEF")]
    talk += [(90000 + n, "AB"[n % 2], f"number {n} said") for n in range(10)]
    talk += [(190000 + n, "AB"[n % 2], f"number {n} said") for n in range(10)]
    talk += [(290000, "A", "https://x.y/z"), (290001, "B", "darn it all"), (300000, "C", "alone")]
    stats = run(tmp_path, write(tmp_path / "a.json", talk), options=Options(linker=Previous(), block_list=("DARN it",)))
    assert stats.read == stats.dropped.total() + stats.used == len(talk)
    assert stats.dropped["copy-pasta"] == 6
    assert stats.dropped["block list"] == stats.dropped["no words"] == 1
    assert stats.dialogues_dropped["near-duplicate"] == 1
    assert stats.dropped["in a near-duplicate dialogue"] == 10
    assert render_table(stats).row_count > 10
    assert json.loads(json.dumps(stats.to_json()))["dropped"]["copy-pasta"] == 6


def test_plain_files_come_back_as_they_were(tmp_path: Path) -> None:
    """Import of dialogues is the identity, faults aside."""
    text = "".join(f"Person1: question {n} of many?\nPerson2: answer {n * 17} to that\n\n" for n in range(1200))[:-1]
    source = tmp_path / "a.txt"
    source.write_text(text)
    assert run(tmp_path, source).faults.count == 0
    assert (tmp_path / "out.txt").read_text() == text


def test_duplicates_and_disorder(tmp_path: Path) -> None:
    """The same channel twice, once backwards: every message once, in order."""
    talk = [(n, "AB"[n % 2], f"line {n} of it") for n in range(10)]
    first = write(tmp_path / "a.json", talk)
    second = write(tmp_path / "b.json", talk[::-1])
    stats = run(tmp_path, first, second)
    assert stats.dropped["duplicate"] == 10
    assert re.findall(r"line (\d)", (tmp_path / "out.txt").read_text()) == list("0123456789")


@pytest.mark.parametrize("workers", [1, 2])
def test_same_bytes_whatever_the_cores(workers: int, tmp_path: Path) -> None:
    """Two runs, and two processes: the same files to the byte (each with its own key, so but for the hashes)."""
    sources = [
        write(
            tmp_path / f"{c}.json",
            [(n * 7, "ABCD"[(n * n + c) % 4], f"channel {c} line {n}") for n in range(300)],
            id=str(c),
        )
        for c in range(4)
    ]
    home = tmp_path / "home"
    outs = []
    for name, cores in (("one", 1), ("two", workers)):
        folder = tmp_path / name
        options = Options(linker=Previous(), workers=cores)
        run(folder, *sources, home=home, held_out=folder / "held.txt", options=options)
        outs.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert outs[0] == outs[1]
    assert set(outs[0]) == {"out.txt", "held.txt", "out.txt.manifest.json"}


def test_an_interrupted_import_leaves_nothing(tmp_path: Path) -> None:
    """Stopped at any stage: the old output stands, no temporary is left."""
    source = write(tmp_path / "a.json", [(n, "AB"[n % 2], f"line {n} of it") for n in range(10)])
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "out.txt").write_text("old\n")

    def stop(at: str) -> Callable[[str, float], None]:
        def progress(stage: str, share: float) -> None:
            if stage == at:
                raise KeyboardInterrupt

        return progress

    for stage in ("reading", "making dialogues", "writing"):
        with pytest.raises(KeyboardInterrupt):
            run(folder, source, home=tmp_path / "home", progress=stop(stage))
        assert [path.name for path in folder.iterdir()] == ["out.txt"]
        assert (folder / "out.txt").read_text() == "old\n"


def test_manifest_key_and_forgetting(tmp_path: Path) -> None:
    """Hashes only; the key is private; forgetting takes a person's dialogues out of both files and of the manifest."""
    talk = [
        (day * 90000 + s, name, f"day {day} {name} says")
        for day in range(20)
        for s, name in enumerate(("AB", "CB")[day % 2])
    ]
    stats = run(tmp_path, write(tmp_path / "a.json", talk), held_out=tmp_path / "held.txt")
    key_file = tmp_path / "home" / "people.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    key = PeopleKey.at(tmp_path / "home")
    paper = manifest.load(tmp_path / "out.txt")
    assert paper.attestation == "all of us agreed"
    assert paper.counts["dialogues"] == stats.dialogues == 20
    assert {person.hash: person.messages for person in paper.people} == {
        key.hash("discord", name): count for name, count in (("A", 10), ("B", 20), ("C", 10))
    }
    assert manifest.forget_people(tmp_path / "out.txt", [key.hash("discord", "C")]) == 10
    for name in ("out.txt", "held.txt"):
        text = (tmp_path / name).read_text()
        assert "C says" not in text
        assert "A says" in text
    paper = manifest.load(tmp_path / "out.txt")
    assert [len(lines) for lines in paper.dialogues.values()] == [9, 1]
    assert {person.hash for person in paper.people} == {key.hash("discord", name) for name in "AB"}
    assert manifest.forget_people(tmp_path / "out.txt", [key.hash("discord", "C")]) == 0
    assert manifest.forget_people(tmp_path / "out.txt", [key.hash("discord", "B")]) == 10
    assert (tmp_path / "out.txt").read_text() == (tmp_path / "held.txt").read_text() == ""


def test_the_manifest_says_who_person2_is(tmp_path: Path) -> None:
    """Of those whose words are in a dialogue the one on Person2's side stands first."""
    talk = [(0, "Ann", "is the garden open today?"), (30, "Bob", "open till dusk"), (60, "Ann", "and the roses?")]
    talk += [(90, "Bob", "they are showing off"), (120, "Cem", "good to hear that"), (150, "Bob", "come and see them")]
    run(tmp_path, write(tmp_path / "a.json", talk))
    key, paper = PeopleKey.at(tmp_path / "home"), manifest.load(tmp_path / "out.txt")
    for line in paper.dialogues["out"]:
        assert paper.people[int(line.split()[0])].hash == key.hash("discord", "Bob")


def test_forgetting_refuses_a_changed_file(tmp_path: Path) -> None:
    """Where lines no longer match, deleting by number would delete the wrong ones."""
    run(tmp_path, write(tmp_path / "a.json", [(0, "A", "hello there"), (1, "B", "hello back")]))
    with (tmp_path / "out.txt").open("a") as file:
        file.write("\nPerson1: more\nPerson2: yes\n")
    key = PeopleKey.at(tmp_path / "home")
    with pytest.raises(ExportError, match="changed since"):
        manifest.forget_people(tmp_path / "out.txt", [key.hash("discord", "A")])


def log(*lines: tuple[str, str]) -> Sequence[Message]:
    """The bot's own memory: (author, words); `bot` is Person2 itself."""
    here = Conversation(platform="discord", channel="1", kind=Kind.CHANNEL)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    return [
        Message(
            conversation=here,
            id=str(n),
            author=author,
            author_name=author,
            text=text,
            sent_at=start + timedelta(seconds=n),
            from_bot=author == "bot",
        )
        for n, (author, text) in enumerate(lines)
    ]


def test_the_log_teaches_only_liked_replies_and_consented_words(tmp_path: Path) -> None:
    """The bot's own replies are a target only if liked; who did not opt in is not even copied."""
    talk = log(
        ("ann", "who are you?"), ("bot", "a bot, sadly"), ("ann", "do you bake?"), ("bot", "only in summer"),
        ("eve", "SECRET"), ("ann", "hm, Person2?"), ("cid", "yes Person1?"),
    )  # fmt: skip
    stats = run(tmp_path, log=talk, consented=["discord:ann", "discord:cid"], liked=["3"], attest=None)
    assert (tmp_path / "out.txt").read_text() == (
        "Person1: do you bake?\nPerson2: only in summer\n\nPerson1: hm, Person2?\nPerson2: yes Person1?\n"
    )
    assert stats.dropped["no consent"] == 1


def test_faults_name_file_and_place_and_the_rest_is_read(tmp_path: Path) -> None:
    """A broken file among good ones."""
    folder = tmp_path / "dump"
    folder.mkdir()
    write(folder / "good.json", [(0, "A", "hello there"), (1, "B", "hello back")])
    (folder / "bad.json").write_text(made.FILES["discord.json"][:700])
    (folder / "odd.txt").write_text("shopping list")
    stats = run(tmp_path, folder)
    assert stats.dialogues == 1
    assert stats.faults.lines() == [
        "dump/bad.json: byte 700: the file ends in the middle of its messages; what came before is read",
        "dump/odd.txt: not in an export format that Person2 knows; it is left out",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"out": "a.json"}, "one of the sources"),
        ({"out": "."}, "is a folder"),
        ({"held_out": "out.txt"}, "file of their own"),
        ({"people": "none.txt"}, "cannot be read"),
    ],
)
def test_wrong_use_is_one_sentence(changes: dict[str, str], said: str, tmp_path: Path) -> None:
    """Before anything is read or written."""
    source = write(tmp_path / "a.json", [(0, "A", "hello there"), (1, "B", "hello back")])
    with pytest.raises(ExportError, match=said):
        run(tmp_path, source, **{name: tmp_path / value for name, value in changes.items()})
    with pytest.raises(ExportError, match="There is no file or folder"):
        run(tmp_path, tmp_path / "missing.json")


def test_the_language_filter_keeps_the_languages_named(tmp_path: Path) -> None:
    """By dialogue, because single lines are too short to tell."""
    pytest.importorskip("py3langid", reason="the language filter is an optional extra")
    talk = [
        (0, "A", "hello, how are you doing today, my dear friend?"),
        (9, "B", "very well, thank you, and what about yourself?"),
        (90000, "A", "wo ist denn hier der Bahnhof, bitte schön?"),
        (90009, "B", "gleich um die Ecke, Sie können ihn nicht verfehlen"),
    ]
    options = Options(linker=Previous(), languages=("en",))
    stats = run(tmp_path, write(tmp_path / "a.json", talk), options=options)
    assert stats.dialogues_dropped == {"other language": 1}
    assert "hello" in (tmp_path / "out.txt").read_text()


@pytest.mark.parametrize(
    ("options", "written"),
    [
        (Options(), "Person1: Person2, is it open?\nPerson2: ask [name], Person1\n"),
        (Options(keep_names=True), "Person1: Bob: is it open?\nPerson2: ask @Cid, Ann\n"),
    ],
)
def test_names_in_what_is_said_become_tags(options: Options, written: str, tmp_path: Path) -> None:
    """Whose side is in the dialogue is called by its tag, everybody else `[name]`; --keep-names leaves them."""
    talk = [(0, "Ann", "Bob: is it open?"), (20, "Bob", "ask @Cid, Ann"), (90_000, "Cid", "hello")]
    source = write(tmp_path / "a.json", talk)
    run(tmp_path, source, options=replace(options, linker=Previous(), min_words=1))
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == written


def test_a_name_on_two_platforms_must_say_which() -> None:
    """Who agreed on one platform did not agree for a namesake on another."""
    people = {"discord:1": ["Ann"], "slack:U1": ["ann"], "slack:U2": ["Bob"]}
    assert matching(["Ann", "bob"], people) == (frozenset({"slack:U2"}), ["Ann"])
    assert matching(["discord:Ann", "slack:@ann"], people) == (frozenset({"discord:1", "slack:U1"}), [])
