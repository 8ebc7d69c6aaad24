"""slackdump's own files: `CHANNEL.json`, archives of JSON lines, and `slackdump.sqlite`.

Knows the dump format of rusq/slackdump (`{"channel_id", "name", "messages"}` with the replies of a thread inside its
first message), its chunk files (`internal/chunk`) and its database (`internal/chunk/backend/dbase`). Its Slack-like
exports are read by `slack`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from core.messages import Kind
from training.data.formats import identity, jsonfile, markup, textfile
from training.data.formats.items import Fault, Item, Named, Part
from training.data.formats.slack_messages import RawMessage, Source, User, said, users

NAME = "slackdump"
_SQLITE = "SQLite format 3\0"


class _DumpHeader(msgspec.Struct):
    channel_id: str
    name: str | None = ""


class _Chunk(msgspec.Struct):
    """A line of a chunk file: `t` 0 are messages, 1 a thread's, 2 users."""

    t: int
    id: str = ""
    m: list[RawMessage] | None = None
    u: list[User] | None = None


_MESSAGES = msgspec.json.Decoder(list[RawMessage])
_MESSAGE = msgspec.json.Decoder(RawMessage)
_USER = msgspec.json.Decoder(User)
_CHUNK = msgspec.json.Decoder(_Chunk)
_MESSAGE_CHUNKS = {0, 1}
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def recognises(path: Path, head: str) -> bool:
    if path.is_dir():
        return False
    if head.startswith(_SQLITE):
        return _has_messages(path)
    start = head.lstrip()[:4096]
    return start.startswith("{") and (
        ('"channel_id"' in start and '"messages"' in start) or (start.startswith('{"t":') and '"ts":' in start[:40])
    )


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    head = textfile.head(path)
    context = {"export": identity.split(label)[0], "users": str(path.parent)}
    if head.startswith(_SQLITE):
        yield Part(reader=NAME, path=path, label=label, context={**context, "kind": "database"})
        return
    if head.lstrip().startswith('{"t":'):
        yield Part(reader=NAME, path=path, label=label, context={**context, "kind": "chunks"})
        return
    for piece in jsonfile.slices(path):
        try:
            header = msgspec.json.decode(piece.header.removeprefix(b"\xef\xbb\xbf"), type=_DumpHeader)
        except _BROKEN as problem:
            yield Fault(file=label, place="byte 0", reason=f"no channel id before the messages ({problem})")
            return
        here = {**context, "kind": "dump", "channel": header.channel_id}
        if piece.truncated:
            here["truncated"] = "yes"
            yield jsonfile.cut_short(label, piece)
        yield Part(reader=NAME, path=path, label=label, start=piece.start, end=piece.end, context=here)


def read(part: Part) -> Iterator[Item]:
    where = part.context
    people = dict(users(Path(where["users"])))
    names = {user.id: user.names()[0] for user in people.values()}
    code = markup.CodeBlocks(where.get("code", markup.CodeBlocks.SHORT))
    source = Source(label=part.label, people=people, names=names, code=code)
    entries = {"database": _stored, "chunks": _chunks, "dump": _dumped}[where["kind"]]
    for raw, channel in entries(part):
        if isinstance(raw, Fault):
            yield raw
            continue
        if isinstance(raw, User):
            people[raw.id], names[raw.id] = raw, raw.names()[0]
            yield from (Named(platform="slack", author=raw.id, name=name) for name in raw.names())
            source.named.add(raw.id)
            continue
        yield from source.names_of(people.get(raw.user or ""))
        kind = Kind.DIRECT if channel.startswith("D") else Kind.CHANNEL
        own = identity.slack(where["export"] or part.label, channel)
        yield from said(raw, source, own, kind)


def _dumped(part: Part) -> Iterator[tuple[RawMessage | User | Fault, str]]:
    truncated = "truncated" in part.context
    for raw in jsonfile.elements(part.path, part.label, part.start, part.end, _MESSAGES, truncated=truncated):
        yield raw, part.context["channel"]


def _chunks(part: Part) -> Iterator[tuple[RawMessage | User | Fault, str]]:
    channel = part.path.name.split(".", 1)[0].split("-", 1)[0]
    for number, line in jsonfile.lines(part.path):
        try:
            chunk = _CHUNK.decode(line)
        except _BROKEN as problem:
            yield (
                Fault(file=part.label, place=f"line {number}", reason=f"not a line of a slackdump file ({problem})"),
                "",
            )
            continue
        for user in chunk.u or ():
            yield user, ""
        if chunk.t in _MESSAGE_CHUNKS:
            for raw in chunk.m or ():
                yield raw, chunk.id or channel


def _open(path: Path) -> "closing[sqlite3.Connection]":
    return closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True))


def _has_messages(path: Path) -> bool:
    try:
        with _open(path) as database:
            return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'MESSAGE'").fetchone())
    except sqlite3.Error:
        return False


def _stored(part: Part) -> Iterator[tuple[RawMessage | User | Fault, str]]:
    """The rows of the database; of a message that several runs fetched, all of them, the newest last."""
    found = False
    try:
        with _open(part.path) as database:
            try:
                for (data,) in database.execute("SELECT DATA FROM S_USER ORDER BY CHUNK_ID"):
                    yield from ((user, "") for user in _decoded(_USER, data))
            except sqlite3.OperationalError:
                pass  # an archive without a list of users
            for channel, data in database.execute("SELECT CHANNEL_ID, DATA FROM MESSAGE ORDER BY CHUNK_ID, IDX"):
                found = True
                raw = next(_decoded(_MESSAGE, data), None)
                if raw is None:
                    yield Fault(file=part.label, place=f"a message of {channel}", reason="cannot be read"), ""
                else:
                    yield raw, str(channel)
    except sqlite3.Error as problem:
        reason = f"not a slackdump database, or a damaged one ({problem}); what came before is read"
        yield Fault(file=part.label, place="", reason=reason), ""
        return
    if not found:
        yield Fault(file=part.label, place="", reason="a slackdump database without messages"), ""


def _decoded(decoder: "msgspec.json.Decoder[jsonfile.T]", data: object) -> "Iterator[jsonfile.T]":
    try:
        yield decoder.decode(data if isinstance(data, bytes) else str(data))
    except _BROKEN:
        return
