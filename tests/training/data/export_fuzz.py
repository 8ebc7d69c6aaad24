"""Mutations of exports, and the one promise checked on each: whatever the bytes, lines and messages, never a crash.

Shared by the short fuzz in the tests and the long one in `benchmarks/fuzz_exports.py`.
"""

import random
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from core.messages import Message
from tests.training.data import export_fixtures as made
from training.data import formats
from training.data.formats import Fault, Named, Skipped

SMALL = 60_000
"""Bytes a seed is cut to: mutations near its start and end matter, bulk does not."""
_WORDS = [
    *(b'"messages": [', b"]", b"}", b"{", b'"', b"\\", b"\\ud800", b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\r\n"),
    *(b"null", b"-1", b"1e999", b"9" * 30, b"[" * 2000, b'{"a":' * 2000, b"A" * 9000, b"```", b"> ", b"**" * 500),
    *(b'"id": "', b'"timestamp": "2024-13-45T99:99:99+99:99"', b'"0001-01-01T00:00:00+14:00"', b'"ts": "NaN"'),
    *(b'"ts": "1e400"', b'"date_unixtime": "-99999999999999"', b'"timestamp_ms": 1e308', b"=" * 62 + b"\n"),
    *(b"31/02/2024, 25:61 - X: y\n", b"[99:99] <x> y\n", b"Person2:", b"<div class=chatlog__message-group>"),
    *("\u200e\u202e\ufeff".encode(), "😀".encode()[:2]),
]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """A few random edits: cuts, copies, flips, and words that mean something to one parser or another."""
    made_of = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(made_of) + 1)
        length = chance.choice((1, 1, 4, 30, 400, 4000))
        kind = chance.randrange(7)
        if kind == 0:
            del made_of[at:]
        elif kind == 1:
            del made_of[at : at + length]
        elif kind == 2:
            made_of[at:at] = made_of[at : at + length]
        elif kind == 3 and at < len(made_of):
            made_of[at] = chance.randrange(256)
        elif kind == 4:
            made_of[at:at] = chance.choice(_WORDS)
        elif kind == 5:
            start = chance.randrange(len(made_of) + 1)
            made_of[at : at + length] = made_of[start : start + length]
        else:
            made_of[at:at] = chance.randbytes(min(length, 30))
    return bytes(made_of)


def check(path: Path, scratch: Path) -> int:
    """Read a source as the import does. Raises AssertionError where a promise is broken; gives the messages read."""
    messages = faults = 0
    for item in formats.read(path, scratch=scratch):
        if isinstance(item, Fault):
            faults += 1
            line = str(item)
            assert "\n" not in line, f"a fault is one line: {line!r}"
            assert len(line) < 1000, f"a fault is short: {line[:200]!r}"
            assert item.file, "a fault names its file"
        elif isinstance(item, Message):
            messages += 1
            assert item.text.strip(), "a message has words"
            assert item.author, "a message has an author"
        else:
            assert isinstance(item, (Skipped, Named)), f"an item of no known kind: {item!r}"
    return messages


def seeds(folder: Path | None) -> list[tuple[str, bytes]]:
    """The hand-made exports, a Slack zip, and the starts of real ones where they are to be had."""
    found = [(name, text.encode()) for name, text in made.FILES.items()]
    if folder is not None and folder.exists():
        for path in sorted((folder / "channels").rglob("*")):
            if path.suffix in {".json", ".txt", ".html", ".zip"} and "train" not in path.parts:
                data = path.read_bytes()
                found.append((path.name, data if path.suffix == ".zip" else data[:SMALL]))
    return found


def slack_members(chance: random.Random) -> dict[str, bytes]:
    """The members of a Slack export, one of them broken."""
    import json

    members = {name: json.dumps(content).encode() for name, content in made.slack_files().items()}
    broken = chance.choice(sorted(members))
    members[broken] = mutate(members[broken], chance)
    return members


def one(
    number: int, base: Sequence[tuple[str, bytes]], folder: Path, use: Callable[[Path, Path], object] = check
) -> None:
    """The input with this number: the same bytes each time."""
    chance = random.Random(number)
    scratch = folder / "scratch"
    scratch.mkdir()
    kind = chance.randrange(8)
    if kind == 0:
        path = folder / "slack.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in slack_members(chance).items():
                archive.writestr(name, data)
        if chance.random() < 0.5:
            path.write_bytes(mutate(path.read_bytes(), chance))
    elif kind == 1:
        path = folder / "slack"
        for name, data in slack_members(chance).items():
            member = path / name
            with suppress(OSError):
                member.parent.mkdir(parents=True, exist_ok=True)
                member.write_bytes(data)
    else:
        name, data = chance.choice(base)
        path = folder / name
        path.write_bytes(mutate(data, chance))
    use(path, scratch)
