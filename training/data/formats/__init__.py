"""Exports of other programs → a stream of `Message`, the format recognised by what stands in the file.

Knows which readers there are and how files, folders and archives are walked; the formats themselves are known by one
module each. `read` is the simple way in; `pieces` gives the same source in parts that several processes can share.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from training.data.formats import (
    archive,
    columns,
    dialogue_files,
    discord_html,
    discord_json,
    discord_text,
    irc,
    jsonlines,
    matrix,
    meta,
    slack,
    slackdump,
    telegram,
    textfile,
    unsupported,
    whatsapp,
)
from training.data.formats.items import Fault, Faults, Item, Named, Part, Reader, Skipped

__all__ = [
    "READERS",
    "Fault",
    "Faults",
    "Item",
    "Named",
    "Part",
    "Reader",
    "Skipped",
    "pieces",
    "read",
    "read_part",
    "recognise",
]

READERS: Sequence[Reader] = (
    slack,
    discord_json,
    slackdump,
    meta,
    matrix,
    telegram,
    jsonlines,
    discord_text.CSV,
    discord_text.TEXT,
    discord_html,
    columns,
    dialogue_files,
    whatsapp,
    irc,
)
"""Tried in this order: formats with an unmistakable signature first, line patterns last."""
_BY_NAME = {reader.NAME: reader for reader in READERS}
_UTF8_ONLY = (discord_json, discord_html, slackdump, meta, matrix, telegram, jsonlines)
"""Their parsers read no other encoding."""

COMPANIONS = {
    "users.json",
    "org_users.json",
    "channels.json",
    "groups.json",
    "dms.json",
    "mpims.json",
    "integration_logs.json",
    "canvases.json",
    "file_conversations.json",
    "lists.json",
    "huddle_transcripts.json",
}
"""Slack's lists: part of an export, and not exports by themselves."""
BESIDE = {"license", "licence", "readme", "copying", "manifest", ".ds_store", "thumbs.db", "desktop.ini", "__macosx"}
"""Names (without ending) of files that are found beside exports and skipped silently."""
UNKNOWN = "not in an export format that Person2 knows; it is left out"


def recognise(path: Path) -> Reader | None:
    """The reader of a file or of a folder that is one export; None for an unknown file or a folder of several."""
    head = ""
    if path.is_file():
        try:
            head = textfile.head(path)
        except OSError:
            return None
    return next((reader for reader in READERS if reader.recognises(path, head)), None)


def pieces(path: Path, *, scratch: Path, label: str = "", mapping: str = "") -> Iterator[Part | Fault]:
    """Everything readable under a path, in a fixed order. `scratch` is an empty folder for what must be unpacked.

    `mapping` says which columns of CSV files are what (`columns.parse`).
    """
    label = label or path.name
    walk = _SourceWalk(scratch, mapping)
    try:
        yield from walk.any(path, label, root=path.resolve(), named=True)
    except OSError as problem:
        yield Fault(file=label, place="", reason=f"cannot be opened ({problem.strerror or problem})")


class _SourceWalk:
    """One source, with what is unpacked on the way."""

    def __init__(self, scratch: Path, mapping: str) -> None:
        self._scratch, self._mapping = scratch, mapping
        self._unpacked = 0

    def _place(self, kind: str) -> Path:
        self._unpacked += 1
        return self._scratch / f"{kind}-{self._unpacked}"

    def any(self, path: Path, label: str, *, root: Path, named: bool, depth: int = 0) -> Iterator[Part | Fault]:
        """`named`: the operator named this file, so an unknown format is reported whatever its ending."""
        if not path.exists():
            yield Fault(file=label, place="", reason="there is no such file or folder")
        elif path.is_dir():
            yield from self._folder(path, label, root, depth)
        elif not path.is_file():
            yield Fault(file=label, place="", reason="neither a file nor a folder")
        elif not named and (
            path.suffix.lower() in archive.ATTACHED
            or path.name in COMPANIONS
            or BESIDE & {path.stem.lower(), path.name.lower()}
        ):
            return
        elif path.stat().st_size == 0:
            yield Fault(file=label, place="", reason="the file is empty")
        elif archive.is_zip(path):
            yield from self._archive(path, label, depth)
        elif archive.is_gzip(path):
            yield from self._gzip(path, label, root, depth)
        else:
            yield from self._file(path, label)

    def _folder(self, path: Path, label: str, root: Path, depth: int) -> Iterator[Part | Fault]:
        reader = recognise(path)
        if reader is not None:
            yield from reader.parts(path, label)
            return
        for child in sorted(path.iterdir(), key=lambda child: _natural(child.name)):
            name = f"{label}/{child.name}"
            if child.name.startswith(".") or child.name == "__MACOSX":
                continue
            if child.is_symlink() and not child.resolve().is_relative_to(root):
                yield Fault(file=name, place="", reason="a link to a place outside the folder; it is not followed")
                continue
            if child.is_symlink() and child.is_dir():
                continue  # reached by its own name already
            try:
                yield from self.any(child, name, root=root, named=False, depth=depth)
            except OSError as problem:
                yield Fault(file=name, place="", reason=f"cannot be opened ({problem.strerror or problem})")

    def _file(self, path: Path, label: str) -> Iterator[Part | Fault]:
        if self._mapping and path.suffix.lower() in {".csv", ".tsv"}:
            yield from columns.mapped(path, label, self._mapping)
            return
        reader = recognise(path)
        if reader is None:
            yield Fault(file=label, place="", reason=unsupported.hint(path) or UNKNOWN)
            return
        with path.open("rb") as file:
            encoding = textfile.encoding_of(file.read(4))
        if encoding != "utf-8-sig" and reader in _UTF8_ONLY:
            copy = self._place("utf8").with_suffix(path.suffix)
            textfile.recode(path, copy)
            path = copy
        yield from reader.parts(path, label)

    def _gzip(self, path: Path, label: str, root: Path, depth: int) -> Iterator[Part | Fault]:
        folder = self._place("gz")
        folder.mkdir()
        inside = folder / (path.stem if path.suffix.lower() == ".gz" else path.name)
        problem = archive.gunzip(path, inside)
        if problem:
            yield Fault(file=label, place="", reason=problem)
        if inside.exists() and inside.stat().st_size and depth < archive.MAX_DEPTH:
            yield from self.any(inside, label.removesuffix(".gz"), root=root, named=True, depth=depth + 1)

    def _archive(self, path: Path, label: str, depth: int) -> Iterator[Part | Fault]:
        if depth >= archive.MAX_DEPTH:
            yield Fault(file=label, place="", reason="archives are nested too deeply; unpack them first")
            return
        into = self._place("zip")
        into.mkdir()
        found = False
        for fault in archive.unpack(path, into, label):
            found = True
            yield fault
        top = into
        while len(inside := [child for child in top.iterdir() if child.name != "__MACOSX"]) == 1 and inside[0].is_dir():
            if recognise(top) is not None:
                break
            top = inside[0]
        for piece in self._folder(top, label, into.resolve(), depth + 1):
            found = True
            yield piece
        if not found:
            yield Fault(file=label, place="", reason="the archive contains no export that Person2 knows")


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """`part 2` before `part 10`."""
    pieces, digits = [], ""
    for sign in name.casefold():
        if sign.isdecimal():
            digits += sign
            continue
        if digits:
            pieces.append((int(digits), ""))
            digits = ""
        pieces.append((-1, sign))
    if digits:
        pieces.append((int(digits), ""))
    return tuple(pieces)


def read_part(part: Part) -> Iterator[Item]:
    """The items of a part; a file that vanished or cannot be opened is a fault like any other."""
    try:
        yield from _BY_NAME[part.reader].read(part)
    except OSError as problem:
        yield Fault(file=part.label, place="", reason=f"cannot be read ({problem.strerror or problem})")


def read(path: Path, *, scratch: Path, mapping: str = "") -> Iterator[Item]:
    """A whole source: path in, stream of messages (and what was left out, and why) out."""
    for piece in pieces(path, scratch=scratch, mapping=mapping):
        if isinstance(piece, Fault):
            yield piece
        else:
            yield from read_part(piece)
