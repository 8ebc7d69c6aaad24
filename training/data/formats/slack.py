"""Slack's own export (and slackdump's copy of it): a folder a channel, a JSON file a day.

Knows the layout: channels.json (public), groups.json (private), mpims.json, dms.json, canvases.json, users.json and
org_users.json, and the folders named in them. A folder or a day by itself is read too; then the folder's name is the
channel's. The messages in a day file are read by `slack_messages`.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from core.messages import Kind
from training.data.formats import identity, jsonfile, markup
from training.data.formats.items import Fault, Item, Part
from training.data.formats.slack_messages import USER_LISTS, RawMessage, Source, User, said, users

NAME = "slack"
LISTS = {
    "channels.json": Kind.CHANNEL,
    "groups.json": Kind.CHANNEL,
    "mpims.json": Kind.CHANNEL,
    "dms.json": Kind.DIRECT,
}
"""Where an export lists its conversations; any of them, or a list of users, identifies a folder as an export."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\.json")
_ENTRY = re.compile(r'\[\s*\{[^\[\]]{0,4000}?"ts"\s*:', re.DOTALL)


class _ListedChannel(msgspec.Struct):
    id: str
    name: str | None = None


_MESSAGES = msgspec.json.Decoder(list[RawMessage])


def recognises(path: Path, head: str) -> bool:
    if not path.is_dir():
        start = head.lstrip("\ufeff").lstrip()
        if start.startswith("[") and _DAY.fullmatch(path.name):
            return '"ts"' in start or not start.strip("[] \r\n\t")
        return _ENTRY.match(start) is not None and '"type"' in start
    if not any((path / name).is_file() for name in (*LISTS, *USER_LISTS)):
        return False
    return any(True for _ in path.glob("*/*.json"))


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    if not path.is_dir():
        export = next((folder for folder in path.parents[:2] if (folder / "users.json").is_file()), path.parent)
        channel = identity.slack(identity.split(label)[0] or "day", "")
        context = {"channel": channel, "kind": str(Kind.CHANNEL), "lists": str(export)}
        yield Part(reader=NAME, path=path, label=label, context=context)
        return
    listed: dict[str, tuple[str, Kind]] = {}
    for file_name, kind in LISTS.items():
        if not (path / file_name).is_file():
            continue
        try:
            entries = msgspec.json.decode((path / file_name).read_bytes(), type=list[_ListedChannel])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            yield Fault(
                file=f"{label}/{file_name}", place="", reason=f"cannot be read ({problem}); folders count as channels"
            )
            continue
        for entry in entries:
            listed[entry.id] = (entry.id, kind)
            if entry.name:
                listed[entry.name] = (entry.id, kind)
    yield from _check_users(path, label)
    for folder in sorted(child for child in path.iterdir() if child.is_dir()):
        if folder.name.startswith((".", "__")):
            continue
        own, kind = listed.get(folder.name, (folder.name, Kind.CHANNEL))
        for day in sorted(folder.glob("*.json")):
            name = f"{label}/{folder.name}/{day.name}"
            if day.is_symlink() or folder.is_symlink():
                yield Fault(file=name, place="", reason="a link, which is not followed")
            else:
                context = {"channel": identity.slack(label, own), "kind": str(kind), "lists": str(path)}
                yield Part(reader=NAME, path=day, label=name, context=context)


def _check_users(path: Path, label: str) -> Iterator[Fault]:
    there = [name for name in USER_LISTS if (path / name).is_file()]
    if not there:
        reason = "is missing; members whose messages do not name them appear as “someone”"
        yield Fault(file=f"{label}/users.json", place="", reason=reason)
    for name in there:
        try:
            msgspec.json.decode((path / name).read_bytes(), type=list[User])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            reason = f"cannot be read ({problem}); members whose messages do not name them appear as “someone”"
            yield Fault(file=f"{label}/{name}", place="", reason=reason)


def _names(folder: Path) -> dict[str, str]:
    """Channel names by id, for mentions."""
    names: dict[str, str] = {}
    for file_name in LISTS:
        with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            for entry in msgspec.json.decode((folder / file_name).read_bytes(), type=list[_ListedChannel]):
                names[entry.id] = entry.name or ""
    return names


def read(part: Part) -> Iterator[Item]:
    where = part.context
    people = users(Path(where["lists"]))
    names = _names(Path(where["lists"])) | {user.id: user.names()[0] for user in people.values()}
    code = markup.CodeBlocks(where.get("code", markup.CodeBlocks.SHORT))
    source = Source(label=part.label, people=people, names=names, code=code)
    for raw in jsonfile.listed(part.path, part.label, _MESSAGES):
        if isinstance(raw, Fault):
            yield raw
            continue
        yield from source.names_of(people.get(raw.user or ""))
        yield from said(raw, source, where["channel"], Kind(where["kind"]))
