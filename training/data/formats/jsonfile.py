"""Large JSON files in bounded memory: the elements of their `"messages": [ … ]` arrays, in slices of a few megabytes.

Knows JSON's brackets and strings, no platform. Pretty-printed files (what exporters write) are cut at line ends that
cannot occur inside a string, because JSON strings hold no raw newline; anything else goes through a bracket scanner.
A slice that does not decode at once is taken element by element, so one broken message costs one message.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from training.data.formats.items import Fault

SLICE = 4 << 20
"""Bytes a part holds, about: 8,000 Discord messages, 30 MB once decoded."""
BLOCK = 1 << 20
"""Bytes read at a time while looking for boundaries."""
MAX_ELEMENT = 16 << 20
"""Bytes of one array element, or of what stands between two arrays; larger is damage, not talk."""
WHOLE = 8 << 20
"""Bytes up to which a list is decoded at once."""

T = TypeVar("T")

# Everything up to and including the next bracket that is not inside a string. Possessive, so it cannot backtrack.
_TO_BRACKET = re.compile(rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*+[{}\[\]]', re.DOTALL)
_MESSAGES = re.compile(rb'(?<!\\)"messages"\s*:\s*\[')
_PRETTY = re.compile(rb"\r?\n([ \t]+)\{[ \t]*\r?\n")
_OPEN, _CLOSE = b"{["[0], b"}]"[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Whole elements of one array: `file[start:end]`, separated by commas."""

    header: bytes
    """The object around the array up to its key, closed: `{"guild": …, "messages": []}`; may fail to decode."""
    array: int
    """Counts the arrays of the file from 0."""
    start: int
    end: int
    truncated: bool = False
    """The file ends inside this array."""


def slices(path: Path, *, size: int = SLICE) -> Iterator[Slice]:
    """All slices of all `messages` arrays, in file order. Nothing is decoded here."""
    with path.open("rb") as file:
        position, number = 0, 0
        while (found := _find_array(file, position)) is not None:
            header, start = found
            outer = _outer_indent(header)
            cut = _pretty(file, start, size, outer) if outer is not None else _scanned(file, start, size)
            end = start
            for begin, end, truncated in cut:
                yield Slice(header=header, array=number, start=begin, end=end, truncated=truncated)
            position, number = end + 1, number + 1


def _find_array(file: BinaryIO, position: int) -> tuple[bytes, int] | None:
    """Where the next `"messages": [` opens, with the object in front of it made whole."""
    file.seek(position)
    before = bytearray()
    while block := file.read(BLOCK):
        searched = max(0, len(before) - 64)
        before += block
        found = _MESSAGES.search(before, searched)
        if found is not None:
            return bytes(before[: found.start()]) + b'"messages": []}', position + found.end()
        if len(before) > MAX_ELEMENT:
            position += len(before) - 64
            del before[:-64]
    return None


def _outer_indent(header: bytes) -> bytes | None:
    """The whitespace in front of the key `messages` where it starts a line, else None."""
    line = header[: -len(b'"messages": []}')].rsplit(b"\n", 1)
    return line[1] if len(line) == 2 and not line[1].strip() else None


def _pretty(file: BinaryIO, start: int, size: int, outer: bytes) -> Iterator[tuple[int, int, bool]]:
    """Cuts where a line closes an element at the array's own indentation; falls back where there is no such line."""
    file.seek(start)
    opening = _PRETTY.match(file.read(256))
    if opening is None or len(opening[1]) <= len(outer):
        yield from _scanned(file, start, size)
        return
    closes_element = b"\n" + opening[1] + b"},"
    closes_array = b"\n" + outer + b"]"
    begin = position = start
    file.seek(start)
    tail = b""
    while block := file.read(BLOCK):
        window = tail + block
        origin = position - len(tail)
        position += len(block)
        stop = window.find(closes_array)
        limit = len(window) if stop < 0 else stop
        last = window.rfind(closes_element, 0, limit)
        cut = origin + last + len(closes_element) - 1 if last >= 0 else -1
        if stop < 0 and cut - begin >= size:
            yield begin, cut, False
            begin = cut + 1
        if stop >= 0:
            yield begin, origin + stop, False
            return
        if position - begin > MAX_ELEMENT:
            break
        tail = window[-len(closes_element) - len(closes_array) :]
    yield from _scanned(file, begin, size)


def _scanned(file: BinaryIO, start: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """Cuts at brackets. The file may use any layout; it ends in a truncated slice where the array is never closed."""
    file.seek(start)
    begin = end = origin = start
    depth, buffer, at = 0, b"", 0
    while True:
        found = _TO_BRACKET.match(buffer, at)
        if found is None:
            block = file.read(BLOCK)
            if not block or len(buffer) - at > MAX_ELEMENT:
                yield begin, origin + len(buffer), True
                return
            origin += at
            buffer, at = buffer[at:] + block, 0
            continue
        at = found.end()
        bracket = buffer[at - 1]
        if bracket in b"{[":
            depth += 1
            continue
        depth -= 1
        if depth == 0:
            end = origin + at
            if end - begin >= size:
                yield begin, end, False
                begin = end
        elif depth < 0:
            yield begin, origin + at - 1, False
            return


def elements(
    path: Path,
    label: str,
    start: int,
    end: int | None,
    decoder: "msgspec.json.Decoder[list[T]]",
    *,
    truncated: bool = False,
) -> Iterator[T | Fault]:
    """Decoded elements of a slice; a broken one becomes a Fault at its byte.

    `truncated`: the file ends inside this slice and that was reported, so a broken last element is not reported again.
    """
    with path.open("rb") as file:
        file.seek(start)
        data = file.read() if end is None else file.read(end - start)
    whole = data.strip(b" \t\r\n,")
    if not whole:
        return
    try:
        yield from decoder.decode(b"[" + whole + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        last: T | Fault | None = None
        for element in _one_by_one(data, label, start, decoder):
            if last is not None:
                yield last
            last = element
        if last is not None and not (truncated and isinstance(last, Fault)):
            yield last


def cut_short(label: str, piece: Slice) -> Fault:
    """The fault of a truncated slice."""
    reason = "the file ends in the middle of its messages; what came before is read"
    if piece.end - piece.start > MAX_ELEMENT:
        reason = f"a message larger than {MAX_ELEMENT >> 20} MB; what came before is read"
    return Fault(file=label, place=f"byte {piece.end}", reason=reason)


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a file of JSON lines; one longer than an element may be is cut, and so cannot be decoded."""
    number = 0
    with path.open("rb") as file:
        whole = True
        while line := file.readline(MAX_ELEMENT):
            if whole and line.strip():
                number += 1
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            whole = line.endswith(b"\n")


def listed(path: Path, label: str, decoder: "msgspec.json.Decoder[list[T]]") -> Iterator[T | Fault]:
    """Decoded elements of a file that is one JSON list."""
    if path.stat().st_size > WHOLE:
        with path.open("rb") as file:
            opening = file.read(BLOCK).find(b"[") + 1
            pieces = list(_scanned(file, opening, SLICE)) if opening else []
        for begin, end, truncated in pieces:
            yield from elements(path, label, begin, end, decoder, truncated=truncated)
            if truncated:
                yield cut_short(label, Slice(header=b"", array=0, start=begin, end=end, truncated=True))
        return
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        yield from decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        opening = len(data) - len(data.lstrip())
        if data[opening : opening + 1] != b"[":
            yield Fault(file=label, place="byte 0", reason="is not a JSON list of messages")
        else:
            yield from _one_by_one(data[opening + 1 :], label, opening + 1, decoder)


def _one_by_one(data: bytes, label: str, start: int, decoder: "msgspec.json.Decoder[list[T]]") -> Iterator[T | Fault]:
    for begin, end in _spans(data):
        piece = data[begin:end].strip(b" \t\r\n,")
        if piece in (b"", b"]"):
            continue
        blank = end - begin - len(data[begin:end].lstrip(b" \t\r\n,"))
        place = f"byte {start + begin + blank}"
        try:
            yield from decoder.decode(b"[" + piece + b"]")
        except RecursionError:
            yield Fault(file=label, place=place, reason="nested too deeply to be a message; it is left out")
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            mended = piece.decode("utf-8", "replace").encode()
            try:
                if mended == piece:
                    raise
                yield from decoder.decode(b"[" + mended + b"]")
                yield Fault(file=label, place=place, reason="not UTF-8; the unreadable characters were replaced")
            except (msgspec.DecodeError, RecursionError):
                yield Fault(file=label, place=place, reason=f"not a readable message ({_short(problem)})")


def _spans(data: bytes) -> Iterator[tuple[int, int]]:
    """Top-level elements of a piece of an array; what is left at the end comes as a last span."""
    begin = at = depth = 0
    while (found := _TO_BRACKET.match(data, at)) is not None:
        at = found.end()
        depth += 1 if data[at - 1] in b"{[" else -1
        if depth <= 0:
            yield begin, at
            begin, depth = at, 0
    yield begin, len(data)


def _short(problem: Exception) -> str:
    text = str(problem).split(" - at ")[0]
    return text if len(text) <= 80 else text[:79] + "…"
