"""Text files as lines, whatever their encoding; never raises for what stands in them.

Knows encodings and line ends, no format. UTF-8 and UTF-16 are told by their byte order mark; a line that is not UTF-8
is read as Windows-1252, the commonest other encoding of chat logs, and the first such line of a file is reported.
"""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from training.exports.items import Fault

HEAD = 64 << 10
"""Bytes looked at to recognise a format."""
MAX_LINE = 4 << 20
"""Bytes; the rest of a longer line is read as further lines, so that memory stays flat."""


def encoding_of(start: bytes) -> str:
    """`utf-8-sig`, `utf-16` (either order), judged by the byte order mark or by where the zeros stand."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(start) >= 4 and start[1:2] == start[3:4] == b"\0" and start[0:1] != b"\0":
        return "utf-16-le"
    if len(start) >= 4 and start[0:1] == start[2:3] == b"\0" and start[1:2] != b"\0":
        return "utf-16-be"
    return "utf-8-sig"


def head(path: Path) -> str:
    """The decoded start of a file; unreadable characters become U+FFFD."""
    with path.open("rb") as file:
        start = file.read(HEAD)
    return start.decode(encoding_of(start), "replace")


def lines(path: Path, label: str) -> Iterator[tuple[int, str] | Fault]:
    """Numbered lines (from 1) without their ends, and at most one Fault about the encoding."""
    with path.open("rb") as raw:
        encoding = encoding_of(raw.read(4))
        raw.seek(0)
        if encoding != "utf-8-sig":
            text = io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline=None)
            number = 0
            while line := text.readline(MAX_LINE):
                number += 1
                yield number, line.rstrip("\r\n")
            return
        reported = False
        number = 0
        while data := raw.readline(MAX_LINE):
            number += 1
            if number == 1 and data.startswith(codecs.BOM_UTF8):
                data = data[3:]
            try:
                line = data.decode()
            except UnicodeDecodeError:
                line = data.decode("cp1252", "replace")
                if not reported:
                    yield Fault(
                        file=label, place=f"line {number}", reason="not UTF-8; such lines are read as Windows-1252"
                    )
                    reported = True
            yield number, line.rstrip("\r\n")


def recode(path: Path, into: Path) -> None:
    """A UTF-16 file as UTF-8, for parsers that know nothing else."""
    with path.open("rb") as file:
        encoding = encoding_of(file.read(4))
    with path.open(encoding=encoding, errors="replace") as text, into.open("w", encoding="utf-8") as out:
        while block := text.read(1 << 20):
            out.write(block)
