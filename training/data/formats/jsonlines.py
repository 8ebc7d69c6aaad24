"""JSON, an object a line: Mattermost's bulk export, Gitter's messages, signal-cli and signal-export.

Knows the four programs by the fields of their first lines. A file of Gitter's may be one list as well.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from core.messages import Conversation, Kind, Message
from training.data.formats import identity, jsonfile, markup, textfile
from training.data.formats.items import MAX_MESSAGE, Fault, Item, Named, Part, Skipped

NAME = "json-lines"
_SIGNS = {
    "mattermost": ('"type"', ('"version"', '"post"', '"direct_post"', '"channel"', '"team"', '"user"', '"emoji"')),
    "signal-cli": ('"envelope"', ('"timestamp"',)),
    "signal-export": ('"sender"', ('"body"',)),
    "gitter": ('"fromUser"', ('"sent"',)),
}
_OBJECT = msgspec.json.Decoder(dict[str, Any])
_LIST = msgspec.json.Decoder(list[dict[str, Any]])
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _program(head: str) -> str | None:
    start = head.lstrip("\ufeff").lstrip()
    if not start.startswith(("{", "[")):
        return None
    first = start.split("\n", 1)[0][:8000] if start.startswith("{") else start[:8000]
    if start.startswith("{"):
        try:
            msgspec.json.decode(first.strip())
        except _BROKEN:
            return None  # an object over several lines, or one too long to be a message
    for program, (sign, others) in _SIGNS.items():
        if start.startswith("[") and program != "gitter":
            continue
        if sign in first and any(other in first for other in others):
            return program
    return None


def recognises(path: Path, head: str) -> bool:
    return path.is_file() and _program(head) is not None


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    program = _program(textfile.head(path)) or "mattermost"
    yield Part(reader=NAME, path=path, label=label, context={"program": program, "channel": identity.by_path(label)})


def _objects(part: Part) -> Iterator[dict[str, Any] | Fault]:
    with part.path.open("rb") as file:
        listed = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    if listed:
        yield from jsonfile.listed(part.path, part.label, _LIST)
        return
    for number, line in jsonfile.lines(part.path):
        if len(line) >= jsonfile.MAX_ELEMENT:
            reason = f"longer than {jsonfile.MAX_ELEMENT >> 20} MB, so not a message; it is left out"
            yield Fault(file=part.label, place=f"line {number}", reason=reason)
            continue
        try:
            yield _OBJECT.decode(line)
        except _BROKEN as problem:
            yield Fault(file=part.label, place=f"line {number}", reason=f"not a JSON object ({problem})")


def read(part: Part) -> Iterator[Item]:
    take = _READERS[part.context["program"]]
    state = _FileState(part)
    for found in _objects(part):
        if isinstance(found, Fault):
            yield found
            continue
        try:
            yield from take(found, state)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError) as problem:
            yield Fault(file=part.label, place="an entry", reason=f"not a complete message ({problem!r})")


class _FileState:
    """What one file's lines share."""

    def __init__(self, part: Part) -> None:
        self.channel = part.context["channel"]
        self.code = markup.CodeBlocks(part.context.get("code", markup.CodeBlocks.SHORT))
        self.bots: set[str] = set()
        self._conversations: dict[tuple[str, str, str | None, Kind], Conversation] = {}

    def at(self, platform: str, channel: str, thread: str | None = None, kind: Kind = Kind.CHANNEL) -> Conversation:
        key = (platform, channel, thread, kind)
        if key not in self._conversations:
            self._conversations[key] = Conversation(platform=platform, channel=channel, thread=thread, kind=kind)
        return self._conversations[key]

    def said(
        self, where: Conversation, author: object, name: object, text: object, milliseconds: float, **more: Any
    ) -> Item:
        """One message, or why it is none."""
        words = text if isinstance(text, str) else ""
        if not author:
            return Skipped.AUTHORLESS
        if len(words) > 2 * MAX_MESSAGE:
            return Skipped.TOO_LONG
        words = markup.discord(words, {}, self.code).strip()
        if len(words) > MAX_MESSAGE:
            return Skipped.TOO_LONG
        if not words:
            return Skipped.EMPTY
        if markup.COMMAND.match(words):
            return Skipped.COMMAND
        return Message(
            conversation=where,
            id=str(more.get("id") or ""),
            author=str(author),
            author_name=str(name or author),
            text=words,
            sent_at=datetime.fromtimestamp(milliseconds / 1000, UTC),
            reply_to=more.get("reply_to"),
        )


def _mattermost(entry: dict[str, Any], state: _FileState) -> Iterator[Item]:
    kind = entry.get("type")
    if kind == "bot":
        state.bots.add(str(entry["bot"].get("username")))
    elif kind == "user":
        user = entry["user"]
        full = " ".join(filter(None, (user.get("first_name"), user.get("last_name"))))
        for name in filter(None, (user.get("nickname"), full)):
            yield Named(platform="mattermost", author=str(user["username"]), name=str(name))
    elif kind in {"post", "direct_post"}:
        post = entry[kind]
        if kind == "post":
            channel, where_kind = f"{post['team']}/{post['channel']}", Kind.CHANNEL
        else:
            members = sorted(map(str, post["channel_members"]))
            channel, where_kind = ",".join(members), Kind.DIRECT if len(members) <= 2 else Kind.CHANNEL
        replies = post.get("replies") or []
        thread = f"{post['create_at']}-{post['user']}" if replies else None
        where = state.at("mattermost", channel, thread, Kind.THREAD if thread else where_kind)
        yield from (_post(each, where, state) for each in (post, *replies))


def _post(post: dict[str, Any], where: Conversation, state: _FileState) -> Item:
    props = post.get("props") or {}
    if str(post.get("type") or "").startswith("system_"):
        return Skipped.SYSTEM
    if post.get("user") in state.bots or "from_webhook" in props or "from_bot" in props:
        return Skipped.BOT
    return state.said(where, post["user"], None, post.get("message"), post["create_at"])


def _gitter(entry: dict[str, Any], state: _FileState) -> Iterator[Item]:
    user = entry.get("fromUser") or {}
    thread = entry.get("parentId")
    room = str(entry.get("roomId") or entry.get("toTroupeId") or state.channel)
    where = state.at("gitter", room, str(thread) if thread else None, Kind.THREAD if thread else Kind.CHANNEL)
    sent = datetime.fromisoformat(str(entry["sent"]).replace("Z", "+00:00"))
    id_ = entry.get("id") or entry.get("_id")
    name = user.get("displayName")
    if name and user.get("username"):
        yield Named(platform="gitter", author=str(user["id"]), name=str(user["username"]))
    yield state.said(
        where, user.get("id"), name or user.get("username"), entry.get("text"), sent.timestamp() * 1000, id=id_
    )


def _signal_cli(entry: dict[str, Any], state: _FileState) -> Iterator[Item]:
    holder = entry.get("params") or entry
    envelope = holder.get("envelope") or {}
    own = (envelope.get("syncMessage") or {}).get("sentMessage")
    message = envelope.get("dataMessage") or own
    if not message:
        yield Skipped.SYSTEM  # receipts, typing, calls
        return
    author = envelope.get("sourceUuid") or envelope.get("sourceNumber") or envelope.get("source")
    group = (message.get("groupInfo") or message.get("groupV2") or {}).get("groupId")
    # Both sides of a private talk belong together: what is sent goes to whom the rest comes from.
    other = author if own is None else own.get("destinationUuid") or own.get("destination")
    where = state.at("signal", str(group or other or state.channel), kind=Kind.CHANNEL if group else Kind.DIRECT)
    sent = message.get("timestamp") or envelope["timestamp"]
    quoted = (message.get("quote") or {}).get("id")
    yield state.said(
        where,
        author,
        envelope.get("sourceName"),
        message.get("message"),
        sent,
        id=sent,
        reply_to=str(quoted) if quoted else None,
    )


def _signal_export(entry: dict[str, Any], state: _FileState) -> Iterator[Item]:
    sent = datetime.fromisoformat(str(entry["date"]).replace("Z", "+00:00"))
    sent = sent if sent.tzinfo else sent.replace(tzinfo=UTC)
    sender = entry.get("sender")
    yield state.said(state.at("signal", state.channel), sender, sender, entry.get("body"), sent.timestamp() * 1000)


_READERS: dict[str, Callable[[dict[str, Any], _FileState], Iterator[Item]]] = {
    "mattermost": _mattermost,
    "gitter": _gitter,
    "signal-cli": _signal_cli,
    "signal-export": _signal_export,
}
