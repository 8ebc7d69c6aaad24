"""One part of an export → sorted runs on disk and everything worth counting about it.

Knows readers and runs, no dialogue. Runs in a worker process: takes and gives plain values only.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from core.messages import Message
from training import exports, gaps, spool
from training.dialogues import READY_MADE

COPY_LENGTH = 40
"""Characters without spaces from which on a text said again and again is copy-pasta and not a habit of speech."""
MAX_FAULTS = 50
"""Faults of one part given with their places; further ones are only counted."""
MAX_NAMES = 8
"""Names kept of one member."""


@dataclass(slots=True)
class Taken:
    """What was found in a part."""

    read: int = 0
    """Entries: messages and what was skipped."""
    skipped: Counter[str] = field(default_factory=Counter)
    faults: list[exports.Fault] = field(default_factory=list)
    faults_more: int = 0
    names: dict[str, list[str]] = field(default_factory=dict)
    """Every name of every `platform:id`."""
    runs: list[spool.Run] = field(default_factory=list)
    silences: list[int] = field(default_factory=lambda: [0] * gaps.BINS)
    copies: list[int] = field(default_factory=list)
    """Copy hashes of the long messages."""

    def fault(self, fault: exports.Fault) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(fault)
        else:
            self.faults_more += 1


def take(part: exports.Part, folder: Path, prefix: str) -> Taken:
    """Read a part to its end; sorted runs named after `prefix` are left in `folder`."""
    return fill(exports.read_part(part), folder, prefix)


def fill(items: Iterable[exports.Item], folder: Path, prefix: str) -> Taken:
    taken = Taken()
    runs = spool.Runs(folder, prefix)
    latest: dict[str, int] = {}
    known: set[tuple[str, str]] = set()
    for item in items:
        if isinstance(item, Message):
            taken.read += 1
            copy = copy_hash(item)
            if copy:
                taken.copies.append(copy)
            where, time = runs.add(item, copy)
            platform = item.conversation.platform
            if platform != READY_MADE:
                before = latest.get(where)
                if before is not None:
                    taken.silences[gaps.bin_of(abs(time - before))] += 1
                latest[where] = time
            if (item.author, item.author_name) not in known and not item.from_bot:
                known.add((item.author, item.author_name))
                _name(taken, f"{platform}:{item.author}", item.author_name)
        elif isinstance(item, exports.Skipped):
            taken.read += 1
            taken.skipped[str(item)] += 1
        elif isinstance(item, exports.Fault):
            taken.fault(item)
        else:
            _name(taken, f"{item.platform}:{item.author}", item.name)
    runs.close()
    taken.runs = runs.runs
    return taken


def _name(taken: Taken, person: str, name: str) -> None:
    names = taken.names.setdefault(person, [])
    if name not in names and len(names) < MAX_NAMES:
        names.append(name)


def copy_hash(message: Message) -> int:
    """64 bits of what was said, case and spaces aside; 0 for what is too short, or stands in a ready-made dialogue."""
    if len(message.text) < COPY_LENGTH or message.conversation.platform == READY_MADE:
        return 0
    letters = "".join(message.text.casefold().split())
    if len(letters) < COPY_LENGTH:
        return 0
    return (
        int.from_bytes(hashlib.blake2b(letters.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") | 1
    )


class Copies:
    """Counts copy hashes in 16 MB whatever their number (a count-min sketch, Cormode & Muthukrishnan 2005).

    It may take two rare texts for one frequent text, never the reverse.
    """

    CELLS = 1 << 24
    OFTEN = 5
    """Times a text is said, across the whole import, to be copy-pasta."""
    KEPT = 200_000

    def __init__(self) -> None:
        self._cells = bytearray(self.CELLS)
        self.often: set[int] = set()

    def add(self, hashes: Iterable[int]) -> None:
        cells, mask = self._cells, self.CELLS - 1
        for value in hashes:
            one, two = value & mask, (value >> 32) & mask
            a, b = cells[one], cells[two]
            if a < 255:
                cells[one] = a + 1
            if b < 255 and two != one:
                cells[two] = b + 1
            if a >= self.OFTEN - 1 and b >= self.OFTEN - 1 and len(self.often) < self.KEPT:
                self.often.add(value)


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
