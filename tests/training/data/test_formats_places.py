"""Where an export lies, and what lies beside it: parts, backups, archives in archives, files of no known format."""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.training.data import export_fixtures as made
from tests.training.data.reading import Read, folder
from training.data.formats import archive, unsupported
from training.data.import_job import Options, import_talk, labels
from training.data.reply_links import Previous
from training.data.stats import ImportStats

RULE = "=" * 62


def run(tmp_path: Path, *sources: Path) -> ImportStats:
    options = Options(linker=Previous(), min_words=1)
    return import_talk(sources, out=tmp_path / "out.txt", home=tmp_path / "home", attest="x", options=options)


def discord_text(*, of: str, channel: str, start: int = 0) -> str:
    """Six lines, a minute each."""
    names = (f"leo{of}#1234", f"mia{of}#1234")
    minutes = range(start, start + 6)
    said = "".join(f"[17-Jul-19 06:{n:02d} PM] {names[n % 2]}\nwhat {of} say at minute {n}\n\n" for n in minutes)
    return f"{RULE}\nGuild: Garden\nChannel: {channel}\n{RULE}\n\n{said}"


def discord_csv(start: int) -> str:
    rows = "".join(
        f'"{n % 2}","u{n % 2}","2024-05-01T10:{start + n:02d}:00+00:00","line {start + n} of the talk","",""\n'
        for n in range(6)
    )
    return f"AuthorID,Author,Date,Content,Attachments,Reactions\n{rows}"


def whatsapp(other: str) -> str:
    return "".join(f"[13/05/24, 10:0{n}:00] {'me' if n % 2 else other}: {other} hears line {n}\n" for n in range(4))


PARTS: list[dict[str, str]] = [
    {f"Garden - bees [123456789012345678] [part {n}].csv": discord_csv(6 * n) for n in (1, 2)},
    {f"bees [part {n}].csv": discord_csv(6 * n) for n in (1, 2)},
    {
        f"bees ({when} 2019-07-17).txt": discord_text(of="both", channel="bees", start=start)
        for when, start in (("before", 0), ("after", 6))
    },
    {f"{name}/1.txt": discord_text(of=name, channel=name) for name in ("bees", "wasps")},
    {f"{name}/_chat.txt": whatsapp(name) + whatsapp(name + "s") for name in ("ann", "bob")},
]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("files", PARTS)
def test_nothing_collides(files: dict[str, str], apart: bool, tmp_path: Path) -> None:
    """Parts, date ranges, two files of one name: given as a folder or one by one, every message is read and used."""
    export = folder(tmp_path / "export", files)
    sources = [export / name for name in files] if apart else [export]
    stats = run(tmp_path, *sources)
    assert stats.dropped.total() == 0
    assert stats.used == stats.read
    assert stats.faults.count == 0


def test_two_chats_are_not_interleaved(tmp_path: Path) -> None:
    """Of the same name, at the same time, with one person in both."""
    export = folder(tmp_path / "export", {f"{name}/_chat.txt": whatsapp(name) for name in ("ann", "bob")})
    run(tmp_path, export)
    for dialogue in (tmp_path / "out.txt").read_text().split("\n\n"):
        assert ("ann" in dialogue) != ("bob" in dialogue)


def test_backups_are_read_once_and_are_no_copypasta(tmp_path: Path) -> None:
    """Five folders with the same channel, and one that goes on."""
    paste = "a long line that people say only once, and that stands in every backup of it"
    talk = [made.discord_message(n, "AnnBob"[3 * (n % 2) :][:3], f"{paste} {n}") for n in range(6)]
    files = {f"backup{n}/bees.json": made.discord(talk[: 6 if n == 3 else 4], id="77") for n in range(5)}
    stats = run(tmp_path, folder(tmp_path / "export", files))
    assert (stats.read, stats.dropped["duplicate"], stats.used) == (22, 16, 6)
    assert stats.dropped["copy-pasta"] == 0


def test_labels_tell_sources_apart() -> None:
    """As short as that takes."""
    paths = [Path("/a/ann/_chat.txt"), Path("/a/bob/_chat.txt"), Path("/a/c.json"), Path("/a/c.json")]
    assert labels(paths) == ["ann/_chat.txt", "bob/_chat.txt", "c.json", "c.json"]


def zipped(files: Mapping[str, bytes | str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return out.getvalue()


def test_archives_in_archives(tmp_path: Path) -> None:
    """A zip of zips, with a packed log in one; too deep is said; Slack's canvas folders have a colon in their names."""
    inner = zipped({"WhatsApp Chat.txt": made.whatsapp(), "bees.log.gz": gzip.compress(made.irc().encode())})
    slack = {name: json.dumps(content) for name, content in made.slack_files().items()}
    slack["FC:F01:Plan/2024-01-15.json"] = slack["bread/2024-01-15.json"]
    path = folder(tmp_path, {"all.zip": zipped({"chats.zip": inner, "team.zip": zipped(slack)})}) / "all.zip"
    found = Read(path, tmp_path / "scratch")
    assert len(found.messages) == 4 * 4
    assert found.faults == []
    assert any("FC:F01:Plan" in message.conversation.channel for message in found.messages)
    deep = zipped({"a.zip": zipped({"b.zip": zipped({"c.zip": zipped({"talk.txt": made.whatsapp()})})})})
    (tmp_path / "deep.zip").write_bytes(deep)
    assert "unpack them first" in Read(tmp_path / "deep.zip", tmp_path / "scratch2").faults[0]


def test_a_zip_needs_the_room_its_content_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one on a nearly full disk is read; one whose content does not fit is said to need so much."""
    (tmp_path / "small.zip").write_bytes(zipped({"talk.txt": made.whatsapp()}))
    (tmp_path / "big.zip").write_bytes(zipped({"talk.txt": "13/05/24, 10:00 - mia: hm\n" * 200_000}))
    usage = shutil.disk_usage(tmp_path)._replace(free=archive.SPARE_DISK + (2 << 20))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert Read(tmp_path / "small.zip", tmp_path / "s1").talk == made.TALK
    assert "needs 4 MB" in Read(tmp_path / "big.zip", tmp_path / "s2").faults[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("messages.html", '<!DOCTYPE html><body><div class="page_wrap"><div class="history">', "result.json"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c rest", "7z archive"),
        ("msgstore.db", b"SQLite format 3\x00" + b"\0" * 100, "not slackdump's"),
        ("messages.json", '[{"ID": 1, "Timestamp": "2024", "Contents": "x", "Attachments": ""}]', "data package"),
        ("talk.csv", "who,when,what\nmia,1,hi\n", "--columns"),
    ],
)
def test_foreign_files_are_named_with_what_to_do(name: str, content: Any, said: str, tmp_path: Path) -> None:
    """One sentence for each kind that people try."""
    path = folder(tmp_path / "x", {name: content}) / name
    assert said in unsupported.hint(path)
    assert said in Read(path, tmp_path / "scratch").faults[0]


def test_many_faults_of_a_kind_are_one_line(tmp_path: Path) -> None:
    """Unknown files are named, up to five; what is broken a hundred times is said once with its count."""
    files: dict[str, Any] = {f"notes{n}.xyz": "buy honey\n" for n in range(8)}
    files |= {"photo.jpg": b"\xff\xd8", "LICENSE.md": "free"}
    files |= {f"bees/2024-01-{n:02d}.json": [{"type": "message", "ts": {}}] for n in range(1, 10)}
    stats = run(tmp_path, folder(tmp_path / "x", files))
    lines = stats.faults.lines()
    assert len(lines) == 2
    assert lines[0].startswith("x/bees/2024-01-01.json: ")
    assert lines[0].endswith("(and 8 more like it)")
    assert lines[1].startswith("x/notes0.xyz, x/notes1.xyz, ")
    assert " and 3 more: not in an export format that Person2 knows" in lines[1]
    assert stats.faults.count == 17


def test_a_line_of_many_megabytes(tmp_path: Path) -> None:
    """A message longer than any is damage, said as what it is; what came before is read."""
    talk = [made.discord_message(0, "Ann", "hello there"), made.discord_message(1, "Bob", "x" * (20 << 20))]
    path = folder(tmp_path, {"huge.json": json.dumps(made.discord(talk))}) / "huge.json"
    found = Read(path, tmp_path / "scratch")
    assert found.talk == [("Ann", "hello there")]
    assert "a message larger than 16 MB" in found.faults[0]


CASES = Path(os.environ.get("PERSON2_TEST_DATA") or "no test data").parent / "cases" / "check.py"


@pytest.mark.skipif(not CASES.exists(), reason="the table of small exports is not on this machine")
def test_the_table_of_small_exports() -> None:
    """Each reported situation, imported by the program itself."""
    program = Path(sys.executable).with_name("person2")
    done = subprocess.run([CASES, "--program", program], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout
