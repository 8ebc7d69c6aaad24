"""Text files as lines, whatever their encoding; never raises for their content.

Knows encodings and line ends, no format. UTF-8 and UTF-16 are told by their byte order mark; a line that is not UTF-8
is read as Windows-1252, the commonest other encoding of chat logs, and the first such line of a file is reported.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from training.data.formats.items import Fault

HEAD = 64 << 10
"""Bytes looked at to recognise a format."""
BLOCK = 1 << 20
"""Bytes read at a time, and then to the end of the line."""
PIECE = 4 << 20
"""Bytes of a piece that is read separately."""
MAX_LINE = 4 << 20
"""Bytes; the rest of a longer line is read as further lines, so that memory stays flat."""
csv.field_size_limit(1 << 27)  # a cell of a million characters is a message too long, not an error


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


def lines(
    path: Path, label: str, *, start: int = 0, end: int | None = None, before: int = 0
) -> Iterator[tuple[int, str] | Fault]:
    """Numbered lines (from 1) without their ends, and at most one Fault about the encoding.

    Of UTF-8 also the lines of a piece, `file[start:end]`, behind `before` others.
    """
    with path.open("rb") as raw:
        encoding = encoding_of(raw.read(4))
        raw.seek(start)
        if encoding != "utf-8-sig":
            wrapped = io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline=None)
            number = 0
            while line := wrapped.readline(MAX_LINE):
                number += 1
                yield number, line.rstrip("\r\n")
            return
        reported = False
        number = before
        left = path.stat().st_size - start if end is None else end - start
        while left > 0 and (block := raw.read(min(BLOCK, left))):
            block += raw.readline(min(MAX_LINE, left - len(block))) if left > len(block) else b""
            left -= len(block)
            if number == 0:
                block = block.removeprefix(codecs.BOM_UTF8)
            try:
                text = block.decode()
            except UnicodeDecodeError:
                for data in block.removesuffix(b"\n").split(b"\n"):
                    number += 1
                    try:
                        line = data.decode()
                    except UnicodeDecodeError:
                        line = data.decode("cp1252", "replace")
                        if not reported:
                            reason = "not UTF-8; such lines are read as Windows-1252"
                            yield Fault(file=label, place=f"line {number}", reason=reason)
                            reported = True
                    yield number, line.rstrip("\r")
                continue
            if "\r" in text:
                text = text.replace("\r\n", "\n")
            found = text.split("\n")
            if text.endswith("\n"):
                found.pop()
            yield from enumerate(found, number + 1)
            number += len(found)


def rows(path: Path, label: str, delimiter: str) -> Iterator[tuple[int, list[str]] | Fault]:
    """The rows of a CSV file, each with the number of its last line; one that is not CSV becomes a Fault."""
    faults: list[Fault] = []

    def texts() -> Iterator[str]:
        for line in lines(path, label):
            if isinstance(line, Fault):
                faults.append(line)
            else:
                yield line[1].replace("\0", "") + "\n"

    reader = csv.reader(texts(), delimiter=delimiter)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as problem:
            yield Fault(file=label, place=f"line {reader.line_num}", reason=f"not a row of a CSV file ({problem})")
            continue
        while faults:
            yield faults.pop()
        yield reader.line_num, row
    yield from faults


def cuts(path: Path, between: re.Pattern[bytes], *, size: int = PIECE) -> Iterator[tuple[int, int, int]]:
    """Pieces of a UTF-8 file, cut where `between` begins: start, end and the number of lines before it."""
    whole = path.stat().st_size
    with path.open("rb") as file:
        plain = encoding_of(file.read(4)) == "utf-8-sig"
        start = lines_before = 0
        while plain and whole - start > 2 * size:
            file.seek(start)
            data = file.read(size)
            rest = file.read(size)
            found = between.search(rest)
            if found is None:
                break
            data += rest[: found.start()]
            yield start, start + len(data), lines_before
            start += len(data)
            lines_before += data.count(b"\n")
    yield start, whole, lines_before


def recode(path: Path, into: Path) -> None:
    """A UTF-16 file as UTF-8, for parsers that know nothing else."""
    with path.open("rb") as file:
        encoding = encoding_of(file.read(4))
    with path.open(encoding=encoding, errors="replace") as text, into.open("w", encoding="utf-8") as out:
        while block := text.read(1 << 20):
            out.write(block)
