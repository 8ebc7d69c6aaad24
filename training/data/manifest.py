"""The document that lies beside a dialogue file: why it may be used, what was dropped, and whose words are where.

Knows the manifest's fields and the dialogue file's blank lines. People stand in it as keyed hashes only; for each
dialogue it lists whose hashes are in it, so that forgetting a person deletes their dialogues and nothing else.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import msgspec

from core.errors import ExportError, reason

VERSION = 1
SUFFIX = ".manifest.json"


class Person(msgspec.Struct):
    """Somebody whose words are in the file."""

    hash: str
    messages: int


class Manifest(msgspec.Struct):
    """`FILE.manifest.json`. No times and no machine's paths, so that the same import writes the same bytes."""

    people: list[Person]
    dialogues: dict[str, list[str]]
    """For `out` and `held_out`, a line a dialogue: indices into `people`, separated by spaces, Person2's first."""
    version: int = VERSION
    attestation: str | None = None
    people_file: str | None = None
    """SHA-256 of the list of people who consented."""
    sources: list[dict[str, Any]] = []
    options: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    files: dict[str, str] = {}
    """`out` and `held_out`: file names beside this manifest."""
    sha256: dict[str, str] = {}


def beside(out: Path) -> Path:
    return out.with_name(f"{out.name}{SUFFIX}")


def load(out: Path) -> Manifest:
    """The manifest beside a dialogue file. Raises ExportError for none, a foreign or a damaged one."""
    found = _read(beside(out))
    if found is None:
        raise ExportError(
            f"{beside(out)} is missing or belongs to another program, so it is unknown whose words {out.name} "
            "contains; import it again."
        )
    return found


def describing(file: Path) -> Manifest | None:
    """The manifest that describes a dialogue file: the one beside it or, for the held-out part of an import, the one
    beside the file that was written with it. None where there is none; those of other programs are ignored.

    Raises ExportError where it is damaged.
    """
    own = _read(beside(file))
    if own is not None:
        return own
    for path in sorted(file.parent.glob(f"*{SUFFIX}")):
        if path != beside(file) and file.name in _text(path):
            other = _read(path)
            if other is not None and file.name in other.files.values():
                return other
    return None


def dialogue_files(folder: Path) -> Iterator[Path]:
    """Every file under `folder` that has a manifest of this program beside it, even a damaged one."""
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        try:
            ours = _read(path) is not None
        except ExportError:
            ours = True
        if ours:
            yield path.with_name(path.name.removesuffix(SUFFIX))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read(path: Path) -> Manifest | None:
    """None where there is none, or another program's: JSON without people and dialogues, or a file that is not JSON and
    has no dialogue file beside it. Raises ExportError for a damaged manifest of this program: whose words were taken
    must never be guessed.
    """
    file = path.with_name(path.name.removesuffix(SUFFIX))
    damaged = f"The manifest {path}, which says whose words {file.name} contains, is damaged"
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise ExportError(f"The manifest {path} cannot be read ({reason(error)}); correct that first.") from error
    try:
        found = json.loads(raw)
    except ValueError as error:
        if not file.exists():
            return None
        raise ExportError(f"{damaged} ({reason(error)}); import {file.name} again.") from error
    if not isinstance(found, dict) or not {"people", "dialogues"} <= found.keys():
        return None
    try:
        return msgspec.convert(found, Manifest)
    except msgspec.ValidationError as error:
        raise ExportError(f"{damaged} ({reason(error)}); import {file.name} again.") from error


def write(file: IO[bytes], head: dict[str, Any], people: Iterable[Person], dialogues: dict[str, Iterable[str]]) -> None:
    """A manifest as a stream: a line a person and a line a dialogue, so that neither need be in memory."""
    text = msgspec.json.format(msgspec.json.encode(head), indent=1).decode()
    file.write(text[: text.rindex("\n")].encode() + b',\n "people": [')
    for number, person in enumerate(people):
        file.write((b",\n  " if number else b"\n  ") + msgspec.json.encode(person))
    file.write(b'\n ],\n "dialogues": {')
    for number, (name, lines) in enumerate(dialogues.items()):
        file.write((b"," if number else b"") + b'\n  "' + name.encode() + b'": [')
        for at, line in enumerate(lines):
            file.write((b",\n   " if at else b"\n   ") + msgspec.json.encode(line))
        file.write(b"\n  ]")
    file.write(b"\n }\n}\n")


def forget_people(out: Path, hashes: Iterable[str]) -> int:
    """Delete every dialogue that holds words of these people, from the file, its held-out part and the manifest.

    Returns how many dialogues were deleted. No file is replaced before all are written. Raises ExportError.
    """
    manifest = load(out)
    gone = {at for at, person in enumerate(manifest.people) if person.hash in set(hashes)}
    if not gone:
        return 0
    kept = [at for at in range(len(manifest.people)) if at not in gone]
    moved = {str(old): str(new) for new, old in enumerate(kept)}
    removed = 0
    with ExitStack() as stack:
        replaced: list[tuple[Path, Path]] = []
        for name, lines in manifest.dialogues.items():
            path = out.with_name(manifest.files[name])
            if not path.exists():
                continue
            stays = [not any(int(at) in gone for at in line.split()) for line in lines]
            temporary = _beside(path, stack)
            removed += _rewrite(path, temporary, stays)
            manifest.sha256[name] = hashlib.sha256(temporary.read_bytes()).hexdigest()
            manifest.dialogues[name] = [
                " ".join(moved[at] for at in line.split()) for line, stay in zip(lines, stays, strict=True) if stay
            ]
            replaced.append((temporary, path))
        _unname(manifest, [manifest.people[at].hash for at in kept])
        manifest.people = [manifest.people[at] for at in kept]
        manifest.counts["dialogues forgotten"] = manifest.counts.get("dialogues forgotten", 0) + removed
        document = _beside(beside(out), stack)
        head = msgspec.to_builtins(manifest)
        del head["people"], head["dialogues"]
        with document.open("wb") as file:
            write(file, head, manifest.people, dict(manifest.dialogues))
        for temporary, path in [*replaced, (document, beside(out))]:
            temporary.replace(path)
    return removed


def dialogues_of(out: Path, person: str) -> Iterator[tuple[str, str]]:
    """Every dialogue with words of this keyed hash, as (file name, text). Raises ExportError."""
    manifest = load(out)
    at = next((str(at) for at, known in enumerate(manifest.people) if known.hash == person), None)
    for name, lines in manifest.dialogues.items() if at is not None else ():
        path = out.with_name(manifest.files[name])
        with path.open("rb") as file:
            found = list(blocks(file))
        if len(found) != len(lines):
            raise ExportError(changed(path))
        for text, line in zip(found, lines, strict=True):
            if at in line.split():
                yield path.name, text.decode("utf-8", "replace").strip()


def changed(path: Path) -> str:
    return f"{path} was changed since it was imported, so its manifest no longer fits; import it again."


def _unname(manifest: Manifest, staying: Collection[str]) -> None:
    """Remove what may name somebody who is gone: whom `--as` named, and the sources' names (exports of a direct
    conversation are named after the other person); a source's checksum still identifies it."""
    chosen = manifest.options.get("as")
    if chosen is not None:
        manifest.options["as"] = [who for who in chosen if who in staying] if isinstance(chosen, list) else None
    manifest.sources = [{**source, "name": ""} for source in manifest.sources]


def _beside(path: Path, stack: ExitStack) -> Path:
    """A temporary file in the same folder, deleted at the end unless it has replaced `path`."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    temporary.chmod(path.stat().st_mode & 0o777)
    stack.callback(temporary.unlink, missing_ok=True)
    return temporary


def _rewrite(path: Path, to: Path, stays: list[bool]) -> int:
    """Copy the dialogues that stay. Raises ExportError where file and manifest do not agree."""
    removed = number = 0
    with path.open("rb") as source, to.open("wb") as target:
        written = 0
        for dialogue in blocks(source):
            if number >= len(stays):
                number += 1
                break
            if stays[number]:
                target.write((b"\n" if written else b"") + dialogue)
                written += 1
            else:
                removed += 1
            number += 1
    if number != len(stays):
        raise ExportError(changed(path))
    return removed


def blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Dialogues as bytes: lines between blank ones."""
    lines: list[bytes] = []
    for line in file:
        if line.strip():
            lines.append(line)
        elif lines:
            yield b"".join(lines)
            lines = []
    if lines:
        yield b"".join(lines)
