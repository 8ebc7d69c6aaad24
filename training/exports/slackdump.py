"""slackdump's own folders: `CHANNEL.json` files, with the replies of a thread inside its first message.

Knows the dump format of rusq/slackdump (`{"channel_id", "name", "messages"}`, `CHANNEL-THREAD.json` for a thread saved
by itself) and its archive of gzipped JSON lines (chunk files). Its Slack-like exports are read by `slack`.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from core.messages import Kind
from training.exports import jsonfile, markup
from training.exports.items import Fault, Item, Named, Part
from training.exports.slack_messages import RawMessage, User, said, users

NAME = "slackdump"
MAX_LINE = 64 << 20
"""Bytes of one line of a chunk file: one answer of Slack's API, a thousand messages at most."""


class _Header(msgspec.Struct):
    channel_id: str
    name: str | None = ""


class _Chunk(msgspec.Struct):
    """A line of a chunk file (`internal/chunk/chunk.go`): `t` 0 are messages, 1 a thread's."""

    t: int
    id: str = ""
    m: list[RawMessage] | None = None
    p: RawMessage | None = None


_MESSAGES = msgspec.json.Decoder(list[RawMessage])
_CHUNK = msgspec.json.Decoder(_Chunk)
_MESSAGE_CHUNKS = {0, 1}


def recognises(path: Path, head: str) -> bool:
    if path.is_dir():
        return False
    if path.name.endswith(".json.gz"):
        return True
    start = head.lstrip()[:4096]
    return start.startswith("{") and '"channel_id"' in start and '"messages"' in start


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    people = str(path.parent / "users.json")
    if path.suffix == ".gz":
        if path.name.startswith(("users", "channels", "workspace")):
            return
        yield Part(reader=NAME, path=path, label=label, context={"users": people, "gz": "yes"})
        return
    for piece in jsonfile.slices(path):
        try:
            header = msgspec.json.decode(piece.header.removeprefix(b"\xef\xbb\xbf"), type=_Header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            yield Fault(file=label, place="byte 0", reason=f"no channel id in front of the messages ({problem})")
            return
        context = {"channel": header.channel_id, "users": people}
        if piece.truncated:
            context["truncated"] = "yes"
            yield Fault(
                file=label,
                place=f"byte {piece.end}",
                reason="the file ends in the middle of its messages; what came before is read",
            )
        yield Part(reader=NAME, path=path, label=label, start=piece.start, end=piece.end, context=context)


def read(part: Part) -> Iterator[Item]:
    people = users(Path(part.context["users"]))
    names = {user.id: user.names()[0] for user in people.values()}
    code = markup.CodeBlocks(part.context.get("code", markup.CodeBlocks.SHORT))
    known: set[str] = set()
    for raw, channel in _chunks(part) if "gz" in part.context else _dumped(part):
        if isinstance(raw, Fault):
            yield raw
            continue
        yield from _named(people.get(raw.user or ""), known)
        kind = Kind.DIRECT if channel.startswith("D") else Kind.CHANNEL
        yield from said(raw, label=part.label, channel=channel, kind=kind, people=people, names=names, code=code)


def _named(user: User | None, known: set[str]) -> Iterator[Named]:
    if user is not None and user.id not in known:
        known.add(user.id)
        for name in user.names()[1:]:
            yield Named(platform="slack", author=user.id, name=name)


def _dumped(part: Part) -> Iterator[tuple[RawMessage | Fault, str]]:
    truncated = "truncated" in part.context
    for raw in jsonfile.elements(part.path, part.label, part.start, part.end, _MESSAGES, truncated=truncated):
        yield raw, part.context["channel"]


def _chunks(part: Part) -> Iterator[tuple[RawMessage | Fault, str]]:
    channel = part.path.name.split(".", 1)[0].split("-", 1)[0]
    number = 0
    try:
        with gzip.open(part.path) as file:
            while line := file.readline(MAX_LINE):
                number += 1
                try:
                    chunk = _CHUNK.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
                    yield (
                        Fault(file=part.label, place=f"line {number}", reason=f"not a line of slackdump's ({problem})"),
                        channel,
                    )
                    continue
                if chunk.t in _MESSAGE_CHUNKS:
                    for raw in chunk.m or ():
                        yield raw, chunk.id or channel
    except (OSError, EOFError, zlib.error) as problem:
        yield (
            Fault(file=part.label, place=f"line {number + 1}", reason=f"the compressed file is damaged ({problem})"),
            channel,
        )
