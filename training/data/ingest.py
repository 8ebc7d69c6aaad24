"""One part of an export → rows to be sorted, and its counts.

Knows readers and rows, no dialogue. Runs in a worker process: takes and gives plain values only.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from core.messages import Message
from training.data import formats, sort
from training.data.projection import READY_MADE

COPY_LENGTH = 40
"""Characters, spaces aside, from which a repeated text is copy-pasta and not a habit of speech."""
MAX_NAMES = 8
"""Names kept of one member."""


@dataclass(slots=True)
class IngestResult:
    """What a part contained."""

    read: int = 0
    """Entries: messages and what was skipped."""
    skipped: Counter[str] = field(default_factory=Counter)
    faults: formats.Faults = field(default_factory=formats.Faults)
    names: dict[str, list[str]] = field(default_factory=dict)
    """Every name of every `platform:id`."""


def ingest(part: formats.Part, number: int, store: Path) -> IngestResult:
    """Read a part to its end into the store; `number` is its place among the parts of the import."""
    return fill(formats.read_part(part), number, store)


def fill(items: Iterable[formats.Item], number: int, store: Path) -> IngestResult:
    result = IngestResult()
    writer = sort.Writer(store, number)
    known: set[tuple[str, str]] = set()
    for item in items:
        if isinstance(item, Message):
            result.read += 1
            writer.add(item, copy_hash(item))
            if (item.author, item.author_name) not in known and not item.from_bot:
                known.add((item.author, item.author_name))
                _name(result, f"{item.conversation.platform}:{item.author}", item.author_name)
        elif isinstance(item, formats.Skipped):
            result.read += 1
            result.skipped[str(item)] += 1
        elif isinstance(item, formats.Fault):
            result.faults.add(item)
        else:
            _name(result, f"{item.platform}:{item.author}", item.name)
    writer.flush()
    return result


def _name(result: IngestResult, person: str, name: str) -> None:
    names = result.names.setdefault(person, [])
    if name not in names and len(names) < MAX_NAMES:
        names.append(name)


def copy_hash(message: Message) -> int:
    """64 bits of what was said, case and spaces aside; 0 for what is too short, or stands in a ready-made dialogue."""
    if len(message.text) < COPY_LENGTH or message.conversation.platform == READY_MADE:
        return 0
    letters = "".join(message.text.casefold().split())
    return sort.hash64(letters) | 1 if len(letters) >= COPY_LENGTH else 0


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
