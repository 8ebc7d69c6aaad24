"""Telegram Desktop's JSON: one chat, or everything with `chats.list`.

Knows `result.json`: text is a string or a list of strings and entities; services, forwards and bots are not the
speaker's own talk. Times carry no zone in `date` and are exact in `date_unixtime`, where newer exports have it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from core.messages import Conversation, Kind, Message
from training.exports import jsonfile, markup
from training.exports.items import MAX_MESSAGE, Fault, Item, Part, Skipped

NAME = "telegram"
DIRECT = {"personal_chat", "bot_chat", "saved_messages"}


class _Entity(msgspec.Struct):
    type: str | None = ""
    text: str | None = ""
    document_id: Any = None


class _Message(msgspec.Struct):
    id: int | str
    type: str = "message"
    date: str | None = ""
    date_unixtime: str | int | None = None
    from_name: str | None = msgspec.field(default=None, name="from")
    from_id: str | int | None = None
    text: str | list[str | _Entity] | None = ""
    reply_to_message_id: int | str | None = None
    forwarded_from: Any = None
    via_bot: Any = None


class _Header(msgspec.Struct):
    name: str | None = ""
    type: str | None = ""
    id: int | str | None = ""


_MESSAGES = msgspec.json.Decoder(list[_Message])


def recognises(path: Path, head: str) -> bool:
    start = head.lstrip()
    if not path.is_file() or not start.startswith("{"):
        return False
    return ('"type"' in start[:4096] and '"messages"' in start and '"channel"' not in start[:200]) or (
        '"chats"' in start and '"list"' in start
    )


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    found = False
    for piece in jsonfile.slices(path):
        found = True
        header = _header(piece.header)
        if header is None:
            yield Fault(
                file=label,
                place=f"byte {piece.start}",
                reason="no chat stands in front of these messages; they are left out",
            )
            continue
        context = {"channel": str(header.id or header.name or path.stem), "kind": str(header.type or "")}
        if piece.truncated:
            context["truncated"] = "yes"
            yield Fault(
                file=label,
                place=f"byte {piece.end}",
                reason="the file ends in the middle of its messages; what came before is read",
            )
        yield Part(reader=NAME, path=path, label=label, start=piece.start, end=piece.end, context=context)
    if not found:
        yield Fault(file=label, place="", reason="a Telegram export without messages")


def _header(before: bytes) -> _Header | None:
    """The chat's own fields: the object whose opening bracket is nearest in front of its messages."""
    for start in (before.find(b"{"), before.rfind(b"{")):
        try:
            header = msgspec.json.decode(before[max(start, 0) :], type=_Header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        return header
    return None


def read(part: Part) -> Iterator[Item]:
    kind = part.context["kind"]
    conversation = Conversation(
        platform="telegram", channel=part.context["channel"], kind=Kind.DIRECT if kind in DIRECT else Kind.CHANNEL
    )
    drop_code = part.context.get("code", markup.CodeBlocks.SHORT) == markup.CodeBlocks.DROP
    truncated = "truncated" in part.context
    for raw in jsonfile.elements(part.path, part.label, part.start, part.end, _MESSAGES, truncated=truncated):
        if isinstance(raw, Fault):
            yield raw
            continue
        if raw.type != "message":
            yield Skipped.SYSTEM
            continue
        if raw.via_bot or kind == "bot_chat":
            yield Skipped.BOT
            continue
        if raw.forwarded_from:
            yield Skipped.FORWARDED
            continue
        author = str(raw.from_id or raw.from_name or "")
        if not author:
            yield Skipped.AUTHORLESS
            continue
        text = _text(raw.text, drop_code=drop_code).strip()
        if len(text) > MAX_MESSAGE:
            yield Skipped.TOO_LONG
            continue
        if not text:
            yield Skipped.EMPTY
            continue
        if markup.COMMAND.match(text):
            yield Skipped.COMMAND
            continue
        sent_at = _moment(raw)
        if sent_at is None:
            yield Fault(file=part.label, place=f"message {raw.id}", reason="no readable time; it is left out")
            continue
        yield Message(
            conversation=conversation,
            id=str(raw.id),
            author=author,
            author_name=raw.from_name or "someone",
            text=text,
            sent_at=sent_at,
            reply_to=None if raw.reply_to_message_id is None else str(raw.reply_to_message_id),
        )


def _text(text: str | list[str | _Entity] | None, *, drop_code: bool) -> str:
    if isinstance(text, str) or text is None:
        return text or ""
    pieces = []
    for piece in text:
        if isinstance(piece, str):
            pieces.append(piece)
        elif piece.type == "blockquote":
            continue
        elif piece.type == "pre":
            content = piece.text or ""
            long = content.count("\n") >= markup.SHORT_LINES or len(content) > markup.SHORT_CHARACTERS
            pieces.append(" " if drop_code or long else content)
        else:
            pieces.append(piece.text or "")
    return "".join(pieces)


def _moment(raw: _Message) -> datetime | None:
    try:
        if raw.date_unixtime:
            return datetime.fromtimestamp(int(raw.date_unixtime), UTC)
        return datetime.fromisoformat(raw.date or "").replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
