"""Exports of other programs → a stream of `Message`, the format recognised by what stands in the file.

Knows which readers there are and how files, folders and archives are walked; the formats themselves are known by one
module each. `read` is the simple way in; `pieces` gives the same source in parts that several processes can share.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from training.exports import (
    archive,
    discord_html,
    discord_json,
    discord_text,
    instagram,
    irc,
    plain,
    slack,
    slackdump,
    telegram,
    textfile,
    whatsapp,
)
from training.exports.items import Fault, Faults, Item, Named, Part, Reader, Skipped

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
    instagram,
    telegram,
    discord_text.CSV,
    discord_text.TEXT,
    discord_html,
    plain,
    whatsapp,
    irc,
)
"""Asked in this order: what is told by a sure sign comes first, line patterns last."""
_BY_NAME = {reader.NAME: reader for reader in READERS}

COMPANIONS = {
    "users.json",
    "channels.json",
    "groups.json",
    "dms.json",
    "mpims.json",
    "integration_logs.json",
    "canvases.json",
    "huddle_transcripts.json",
}
"""Slack's lists: they belong to an export and are none by themselves."""
BESIDE = {"license", "licence", "readme", "copying", "manifest", ".ds_store", "thumbs.db", "desktop.ini"}
"""Names (without ending) of files that lie beside exports and are passed over without a word."""
KNOWN_ENDINGS = {".json", ".txt", ".log", ".csv", ".html", ".htm", ".gz", ".weechatlog", ""}
"""In a folder, files of any other ending (pictures, voice notes) are passed over without a word."""


def recognise(path: Path) -> Reader | None:
    """The reader of a file or of a folder that is one export; None for an unknown file or a folder of several."""
    head = ""
    if path.is_file():
        try:
            head = textfile.head(path)
        except OSError:
            return None
    return next((reader for reader in READERS if reader.recognises(path, head)), None)


def pieces(path: Path, *, scratch: Path, label: str = "") -> Iterator[Part | Fault]:
    """Everything readable under a path, in a fixed order. `scratch` is an empty folder for what must be unpacked."""
    label = label or path.name
    try:
        yield from _pieces(path, scratch, label, root=path.resolve(), named=True)
    except OSError as problem:
        yield Fault(file=label, place="", reason=f"cannot be opened ({problem.strerror or problem})")


def _pieces(path: Path, scratch: Path, label: str, *, root: Path, named: bool) -> Iterator[Part | Fault]:
    """`named`: the operator named this file, so that an unknown format is worth a line."""
    if not path.exists():
        yield Fault(file=label, place="", reason="there is no such file or folder")
    elif path.is_dir():
        yield from _folder(path, scratch, label, root)
    elif not path.is_file():
        yield Fault(file=label, place="", reason="neither a file nor a folder")
    elif archive.is_zip(path):
        yield from _archive(path, scratch, label)
    else:
        yield from _file(path, scratch, label, named=named)


def _folder(path: Path, scratch: Path, label: str, root: Path) -> Iterator[Part | Fault]:
    reader = recognise(path)
    if reader is not None:
        yield from reader.parts(path, label)
        return
    for child in sorted(path.iterdir(), key=lambda child: _natural(child.name)):
        name = f"{label}/{child.name}"
        if child.name.startswith(".") or child.name == "__MACOSX":
            continue
        if child.is_symlink() and not child.resolve().is_relative_to(root):
            yield Fault(file=name, place="", reason="a link that leads out of the folder; it is not followed")
            continue
        if child.is_symlink() and child.is_dir():
            continue  # reached by its own name already
        try:
            yield from _pieces(child, scratch, name, root=root, named=False)
        except OSError as problem:
            yield Fault(file=name, place="", reason=f"cannot be opened ({problem.strerror or problem})")


def _file(path: Path, scratch: Path, label: str, *, named: bool) -> Iterator[Part | Fault]:
    if not named:
        if path.name in COMPANIONS or path.stem.lower() in BESIDE or path.name.lower() in BESIDE:
            return
        if path.suffix.lower() not in KNOWN_ENDINGS:
            return
    if path.stat().st_size == 0:
        yield Fault(file=label, place="", reason="the file is empty")
        return
    reader = recognise(path)
    if reader is None:
        yield Fault(file=label, place="", reason="no export format that Person2 knows; it is left out")
        return
    with path.open("rb") as file:
        encoding = textfile.encoding_of(file.read(4))
    if encoding != "utf-8-sig" and reader in (discord_json, slackdump, instagram, telegram):
        copy = scratch / f"utf8-{len(list(scratch.iterdir()))}{path.suffix}"
        textfile.recode(path, copy)
        path = copy
    yield from reader.parts(path, label)


def _archive(path: Path, scratch: Path, label: str) -> Iterator[Part | Fault]:
    into = scratch / f"zip-{len(list(scratch.iterdir()))}"
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
    inner = scratch / f"{into.name}-inner"
    inner.mkdir()
    for piece in _folder(top, inner, label, into.resolve()):
        found = True
        yield piece
    if not found:
        yield Fault(file=label, place="", reason="no export that Person2 knows is in this archive")


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
    """What stands in a part; a file that vanished or cannot be opened is a fault like any other."""
    try:
        yield from _BY_NAME[part.reader].read(part)
    except OSError as problem:
        yield Fault(file=part.label, place="", reason=f"cannot be read ({problem.strerror or problem})")


def read(path: Path, *, scratch: Path) -> Iterator[Item]:
    """A whole source: path in, stream of messages (and what was left out, and why) out."""
    for piece in pieces(path, scratch=scratch):
        if isinstance(piece, Fault):
            yield piece
        else:
            yield from read_part(piece)
