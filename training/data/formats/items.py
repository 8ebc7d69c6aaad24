"""What every export reader gives: messages, what it left out and why, and faults with their place.

Knows no format. A reader turns a source into `Part`s (pieces that can be read by themselves, in any process) and a part
into `Item`s. Readers never raise for what stands in a file: a fault is a value, and the rest is still read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeAlias

from core.messages import Message


class Skipped(StrEnum):
    """An entry of an export that is not talk; the values are shown in the table at the end."""

    SYSTEM = "system line"
    """Joins, leaves, pins, calls, renames, tombstones: the platform speaks, not a person."""
    BOT = "bot or webhook"
    COMMAND = "command to a bot"
    EMPTY = "no words"
    """Only attachments, stickers or quotes."""
    ACTION = "action line"
    """IRC's `* nick waves`: narrated, not said."""
    FORWARDED = "forwarded"
    """Somebody else's words, for which nobody here can consent."""
    AUTHORLESS = "no author"
    TOO_LONG = "too long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that cannot be read, in one line: file, place, reason. What surrounds it is still read."""

    file: str
    """As the operator knows it: relative to the source they named, `archive.zip!member` inside an archive."""
    place: str
    """`line 12`, `byte 4711`, `message 1003`; empty where the whole file is meant."""
    reason: str

    def __post_init__(self) -> None:
        for name in ("file", "place", "reason"):  # they may quote a damaged file
            object.__setattr__(self, name, _one_short_line(getattr(self, name)))

    def __str__(self) -> str:
        return f"{self.file}: {self.place}: {self.reason}" if self.place else f"{self.file}: {self.reason}"


_VARIABLE = re.compile(r"\([^()]*\)|'[^']*'|\"[^\"]*\"|\d+")
"""What differs between two faults of one kind: quotations, numbers, what stands in brackets."""


class Faults:
    """Faults by kind: what is wrong a thousand times over is one line with a count."""

    SHOWN = 5
    """Files that are named where the fault is of a whole file."""
    MAX_KINDS = 1000

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, bool], tuple[list[Fault], int]] = {}
        self.count = 0

    def add(self, fault: Fault, times: int = 1) -> None:
        self.count += times
        key = (_VARIABLE.sub("", fault.reason), not fault.place)
        known, number = self._kinds.get(key, ([], 0))
        if number == 0 and len(self._kinds) >= self.MAX_KINDS:
            return
        if len(known) < self.SHOWN and all(fault.file != other.file for other in known):
            known.append(fault)
        self._kinds[key] = (known, number + times)

    def update(self, others: "Faults") -> None:
        for known, number in others._kinds.values():
            for fault in known:
                self.add(fault)
            self.add(known[0], number - len(known))

    def lines(self) -> list[str]:
        """One a kind, in the order in which they were met."""
        return [_summary(known, number) for known, number in self._kinds.values()]


def _summary(known: list[Fault], number: int) -> str:
    first = known[0]
    if number == 1:
        return str(first)
    if first.place:
        return f"{first} (and {number - 1:,} more like it)"
    more = f" and {number - len(known):,} more" if number > len(known) else ""
    return f"{', '.join(fault.file for fault in known)}{more}: {first.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A further name by which a member is known (`--people` and `--as` accept any of them)."""

    platform: str
    author: str
    name: str


Item: TypeAlias = Message | Skipped | Fault | Named


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of an export that can be read by itself, so that two processes can share one large file."""

    reader: str
    """Name of the reader it belongs to (`training.data.formats.READERS`)."""
    path: Path
    label: str
    """How faults name the file."""
    start: int = 0
    """First byte, where the reader cuts files."""
    end: int | None = None
    context: dict[str, str] = field(default_factory=dict)
    """What the reader learned from the rest of the source: channel, space, names …"""


class Reader(Protocol):
    """One format. Modules of this package fit it."""

    @property
    def NAME(self) -> str: ...  # noqa: N802 - a module's constant

    def recognises(self, path: Path, head: str) -> bool:
        """Whether this is such an export; `head` is the decoded start of a file, empty for a folder."""
        ...

    def parts(self, path: Path, label: str) -> Iterator[Part | Fault]:
        """The pieces, in the order of the file."""
        ...

    def read(self, part: Part) -> Iterator[Item]: ...


LONGEST = 240
"""Characters of each piece of a fault."""


def _one_short_line(text: str) -> str:
    line = "".join(sign if sign.isprintable() else "?" for sign in text[: 2 * LONGEST])
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


MAX_MESSAGE = 4000
"""Characters. Discord's own limit is 2,000 (4,000 with Nitro); what is longer is a paste, not talk."""
