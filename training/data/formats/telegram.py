"""Telegram Desktop's JSON: one chat, or everything with `chats.list`.

Knows `result.json`: text is a string or a list of strings and entities; services, forwards and bots are not the
speaker's own talk; each topic of a forum is a conversation. Times carry no zone in `date` and are exact in
`date_unixtime`, where newer exports have it.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from core.messages import Conversation, Kind, Message
from training.data.formats import identity, jsonfile, markup
from training.data.formats.items import MAX_MESSAGE, Fault, Item, Part, Skipped

NAME = "telegram"
DIRECT = {"personal_chat", "bot_chat", "saved_messages"}
EVERYWHERE = {"private_supergroup", "public_supergroup", "private_channel", "public_channel"}
"""Chats whose id is the same for everybody; a personal chat is known by the other's, whoever exports it."""
MAX_KNOWN = 200_000
"""Messages of a forum whose topics are remembered."""
_ACCOUNT = ("chats", "left_chats", "personal_information", "profile_pictures", "contacts", "sessions", "stories")
"""What the export of a whole account may begin with."""
_DISCORD = re.compile(r'"channel"\s*:')
"""A field of its exports; a chat of Telegram's may be named so."""
_BOT = re.compile(r".*(?:[_\s.-]bot|[a-z\d]Bot|BOT)\d*|Bot\d*")
"""Names of bots; exports do not say who is one. “Talbot” does not match."""


class _TextEntity(msgspec.Struct):
    type: str | None = ""
    text: str | None = ""


class _TelegramMessage(msgspec.Struct):
    id: int | str
    type: str = "message"
    date: str | None = ""
    date_unixtime: str | int | None = None
    from_name: str | None = msgspec.field(default=None, name="from")
    from_id: str | int | None = None
    text: str | list[str | _TextEntity] | None = ""
    text_entities: list[str | _TextEntity] | None = None
    """The same in pieces; some programs that shorten exports keep only this."""
    reply_to_message_id: int | str | None = None
    forwarded_from: Any = None
    via_bot: Any = None
    inline_bot_buttons: Any = None
    """Only bots can put buttons under a message."""
    reply_to_peer_id: Any = None
    """The other chat, where a reply answers a message there."""
    action: str | None = None


class _TelegramHeader(msgspec.Struct):
    name: str | None = ""
    type: str | None = ""
    id: int | str | None = ""


_MESSAGES = msgspec.json.Decoder(list[_TelegramMessage])


def recognises(path: Path, head: str) -> bool:
    start = head.lstrip("\ufeff").lstrip()
    if not path.is_file() or not start.startswith("{"):
        return False
    if '"type"' in start[:4096] and '"messages"' in start and _DISCORD.search(start, 0, 200) is None:
        return True
    return start[1:100].lstrip().startswith('"about"') and any(f'"{section}"' in start for section in _ACCOUNT)


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    found = False
    for _, chat in groupby(jsonfile.slices(path), key=lambda piece: piece.array):
        found = True
        yield from _chat(path, label, list(chat))
    if not found:
        yield Fault(file=label, place="", reason="a Telegram export without messages")


def _chat(path: Path, label: str, pieces: list[jsonfile.Slice]) -> Iterator[Part | Fault]:
    header = _header(pieces[0].header)
    if header is None:
        reason = "no chat is named before these messages; they are left out"
        yield Fault(file=label, place=f"byte {pieces[0].start}", reason=reason)
        return
    kind = str(header.type or "")
    own = str(header.id or header.name or path.stem)
    context = {"channel": own if kind in EVERYWHERE else identity.within(label, own), "kind": kind}
    if pieces[-1].truncated:
        context["truncated"] = "yes"
        yield jsonfile.cut_short(label, pieces[-1])
    if _has_topics(path, pieces):  # which topic a message is of depends on all before it
        context["cuts"] = " ".join(f"{piece.start}-{piece.end}" for piece in pieces)
        yield Part(reader=NAME, path=path, label=label, start=pieces[0].start, end=pieces[-1].end, context=context)
        return
    for piece in pieces:
        yield Part(reader=NAME, path=path, label=label, start=piece.start, end=piece.end, context=context)


def _has_topics(path: Path, pieces: list[jsonfile.Slice]) -> bool:
    with path.open("rb") as file:
        for piece in pieces:
            file.seek(piece.start)
            if b'"topic_created"' in file.read(piece.end - piece.start):
                return True
    return False


def _header(before: bytes) -> _TelegramHeader | None:
    """The chat's own fields: the object whose opening bracket is nearest before its messages."""
    for start in (before.find(b"{"), before.rfind(b"{")):
        try:
            header = msgspec.json.decode(before[max(start, 0) :], type=_TelegramHeader)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        return header
    return None


def _messages(part: Part) -> Iterator[_TelegramMessage | Fault]:
    cuts = [(part.start, part.end or 0)]
    if "cuts" in part.context:
        cuts = [(int(start), int(end)) for start, end in (cut.split("-") for cut in part.context["cuts"].split(" "))]
    for start, end in cuts:
        truncated = "truncated" in part.context and end == cuts[-1][1]
        yield from jsonfile.elements(part.path, part.label, start, end, _MESSAGES, truncated=truncated)


class _Topics:
    """Which topic of a forum each message is of: a topic's root, or what a message of it answers, says so."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def open(self, id_: str) -> None:
        self._known[id_] = id_

    def of(self, id_: str, answers: str | None) -> str | None:
        topic = self._known.get(answers or "")
        if topic is not None:
            self._known[id_] = topic
            if len(self._known) > MAX_KNOWN:
                first = next(known for known, root in self._known.items() if known != root)
                del self._known[first]
        return topic


def read(part: Part) -> Iterator[Item]:
    kind = part.context["kind"]
    main = Kind.DIRECT if kind in DIRECT else Kind.CHANNEL
    conversations: dict[str | None, Conversation] = {}
    drop_code = part.context.get("code", markup.CodeBlocks.SHORT) == markup.CodeBlocks.DROP
    topics = _Topics()
    bots: set[str] = set()
    for raw in _messages(part):
        if isinstance(raw, Fault):
            yield raw
            continue
        if raw.type != "message":
            if raw.action == "topic_created":
                topics.open(str(raw.id))
            yield Skipped.SYSTEM
            continue
        answers = None if raw.reply_to_message_id is None or raw.reply_to_peer_id else str(raw.reply_to_message_id)
        topic = topics.of(str(raw.id), answers)
        author = str(raw.from_id or raw.from_name or "")
        if raw.inline_bot_buttons:
            bots.add(author)
        if raw.via_bot or kind == "bot_chat" or author in bots or _BOT.fullmatch(raw.from_name or ""):
            yield Skipped.BOT
            continue
        if raw.forwarded_from:
            yield Skipped.FORWARDED
            continue
        if not author:
            yield Skipped.AUTHORLESS
            continue
        text = _text(raw.text or raw.text_entities, drop_code=drop_code).strip()
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
        if topic not in conversations:
            conversations[topic] = Conversation(
                platform="telegram", channel=part.context["channel"], thread=topic, kind=main
            )
        yield Message(
            conversation=conversations[topic],
            id=str(raw.id),
            author=author,
            author_name=raw.from_name or "someone",
            text=text,
            sent_at=sent_at,
            reply_to=None if answers == topic else answers,
        )


def _text(text: str | list[str | _TextEntity] | None, *, drop_code: bool) -> str:
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


def _moment(raw: _TelegramMessage) -> datetime | None:
    try:
        if raw.date_unixtime:
            return datetime.fromtimestamp(int(raw.date_unixtime), UTC)
        return datetime.fromisoformat(raw.date or "").replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
