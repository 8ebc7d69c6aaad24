"""DiscordChatExporter's JSON: one file a channel, or several where the exporter partitioned it.

Knows `JsonMessageWriter.cs` of Tyrrrz/DiscordChatExporter (2.x): guild, channel, messages; content raw or already
formatted. Webhooks and bots carry `isBot`; what Discord itself writes has a type other than Default and Reply.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from core.messages import Conversation, Kind, Message
from training.data.formats import identity, jsonfile, markup
from training.data.formats.items import MAX_MESSAGE, Fault, Item, Named, Part, Skipped

NAME = "discord-json"
TALK = {"Default", "Reply", "0", "19"}
"""Message types in which a person speaks. Old exporters wrote the API's numbers."""
RAW_LIMIT = 2 * MAX_MESSAGE
"""Characters with markup; ids make a line longer than what is read."""


class _DiscordAuthor(msgspec.Struct):
    id: str = ""
    name: str | None = ""
    nickname: str | None = None
    isBot: bool | None = False  # noqa: N815 - the exporter's spelling


class _DiscordReference(msgspec.Struct):
    messageId: str | None = None  # noqa: N815 - the exporter's spelling
    type: str | None = None


class _DiscordMessage(msgspec.Struct):
    id: str
    timestamp: str
    type: str | int = "Default"
    content: str | None = ""
    author: _DiscordAuthor | None = None
    mentions: list[_DiscordAuthor] | None = None
    reference: _DiscordReference | None = None
    forwardedMessage: Any = None  # noqa: N815 - the exporter's spelling


class _DiscordGuild(msgspec.Struct):
    id: str = ""
    name: str | None = ""


class _DiscordChannel(msgspec.Struct):
    id: str
    type: str = "GuildTextChat"
    name: str | None = ""


class _DiscordHeader(msgspec.Struct):
    channel: _DiscordChannel
    guild: _DiscordGuild | None = None


_MESSAGES = msgspec.json.Decoder(list[_DiscordMessage])


def recognises(path: Path, head: str) -> bool:
    start = head.lstrip()[:4096]
    return path.is_file() and start.startswith("{") and '"channel"' in start and '"guild"' in start


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    context: dict[str, str] | None = None
    for piece in jsonfile.slices(path):
        if context is None:
            try:
                header = msgspec.json.decode(piece.header.removeprefix(b"\xef\xbb\xbf"), type=_DiscordHeader)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
                yield Fault(
                    file=label,
                    place="byte 0",
                    reason=f"no channel before the messages ({problem}); the file is left out",
                )
                return
            context = _context(header, label)
        if piece.truncated:
            yield jsonfile.cut_short(label, piece)
        yield Part(
            reader=NAME,
            path=path,
            label=label,
            start=piece.start,
            end=piece.end,
            context={**context, "truncated": "yes"} if piece.truncated else context,
        )
    if context is None:
        yield Fault(file=label, place="", reason="a Discord export without messages")


def _context(header: _DiscordHeader, label: str) -> dict[str, str]:
    kind = (
        Kind.THREAD
        if "Thread" in header.channel.type
        else Kind.DIRECT
        if "Direct" in header.channel.type
        else Kind.CHANNEL
    )
    space = header.guild.id if header.guild and header.guild.id != "0" else ""
    channel = identity.discord(label, channel=header.channel.id, guild=space)
    return {
        "channel": channel,
        "id": header.channel.id,
        "space": space,
        "kind": kind,
        "name": header.channel.name or "",
    }


def read(part: Part) -> Iterator[Item]:
    where = part.context
    conversation = Conversation(
        platform="discord", space=where["space"], channel=where["channel"], kind=Kind(where["kind"])
    )
    code = markup.CodeBlocks(where.get("code", markup.CodeBlocks.SHORT))
    known: set[str] = set()
    found = jsonfile.elements(part.path, part.label, part.start, part.end, _MESSAGES, truncated="truncated" in where)
    for raw in found:
        if isinstance(raw, Fault):
            yield raw
            continue
        author = raw.author
        if raw.type not in TALK and str(raw.type) not in TALK:
            yield Skipped.SYSTEM
            continue
        if author is None or not author.id:
            yield Skipped.AUTHORLESS
            continue
        if author.isBot:
            yield Skipped.BOT
            continue
        if raw.forwardedMessage is not None or (raw.reference is not None and raw.reference.type == "Forward"):
            yield Skipped.FORWARDED
            continue
        content = raw.content or ""
        if len(content) > RAW_LIMIT:
            yield Skipped.TOO_LONG
            continue
        if author.id not in known:
            known.add(author.id)
            if author.name and author.nickname and author.name != author.nickname:
                yield Named(platform="discord", author=author.id, name=author.name)
        names: dict[str, str] = {}
        if "<" in content:
            names = {where["id"]: where["name"]}
            for mentioned in raw.mentions or ():
                names[mentioned.id] = mentioned.nickname or mentioned.name or ""
        text = markup.discord(content, names, code).strip()
        if not text:
            yield Skipped.EMPTY
            continue
        if markup.COMMAND.match(text):
            yield Skipped.COMMAND
            continue
        try:
            sent_at = datetime.fromisoformat(raw.timestamp)
            if sent_at.tzinfo is None:
                sent_at = sent_at.replace(tzinfo=UTC)
            message = Message(
                conversation=conversation,
                id=raw.id,
                author=author.id,
                author_name=author.nickname or author.name or "someone",
                text=text,
                sent_at=sent_at,
                reply_to=raw.reference.messageId if raw.reference else None,
            )
        except (ValueError, OverflowError):
            yield Fault(file=part.label, place=f"message {raw.id}", reason=f"no readable time ({raw.timestamp[:40]!r})")
            continue
        yield message
