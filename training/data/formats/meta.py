"""Instagram's and Messenger's JSON: `message_1.json` files with participants and messages, the newest first.

Knows Meta's download, in which names and words are UTF-8 bytes written as Latin-1 escapes and are mended here, and the
download of end-to-end encrypted chats, in which they are not.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from core.messages import Conversation, Kind, Message
from training.data.formats import identity, jsonfile, markup
from training.data.formats.items import MAX_MESSAGE, Fault, Item, Part, Skipped

NAME = "instagram"
_SYSTEM = re.compile(
    r"(?:liked a message|you unsent a message|gefällt eine nachricht|"
    r"hat eine nachricht mit .{1,3}gefällt mir.{1,3} markiert|"
    r"le gust[óa] un mensaje|a aimé un message|ha messo .{0,3}mi piace.{0,3} a un messaggio|curtiu uma mensagem|"
    r"gostou de uma mensagem|vond een bericht leuk|heeft een bericht geliket|polubił\(?a?\)? wiadomość|"
    r"bir mesajı beğendi|понравилось сообщение|menyukai pesan|メッセージに「いいね！」しました)\.?|"
    r".{1,80} (?:started|missed) (?:a|your) (?:video |audio )?(?:chat|call)\.?|"
    r".{1,80} (?:named|left|created|changed) the (?:group|chat).*",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"message_\d+(?: ?\(\d+\))?\.json")
_TALK = {"Generic", "Share", "text", "link"}
_EMOJI = re.compile("[\u2600-\u27bf\U0001f300-\U0001faff]\ufe0f?")
MAX_REACTION = 60
"""Characters of `Reacted ❤️ to your message `, in any language."""


class _MetaMessage(msgspec.Struct):
    sender_name: str | None = None
    timestamp_ms: int = 0
    content: str | None = None
    type: str | None = None
    call_duration: Any = None
    is_unsent: bool | None = False
    # the same fields in end-to-end encrypted chats
    senderName: str | None = None  # noqa: N815 - Meta's spelling
    timestamp: int = 0
    text: str | None = None
    isUnsent: bool | None = False  # noqa: N815 - Meta's spelling


class _Participant(msgspec.Struct):
    name: str | None = ""


class _MetaHeader(msgspec.Struct):
    participants: list[_Participant | str] = []


_MESSAGES = msgspec.json.Decoder(list[_MetaMessage])


def recognises(path: Path, head: str) -> bool:
    start = head.lstrip("\ufeff").lstrip()
    if not path.is_file() or not start.startswith("{") or '"messages"' not in start:
        return False
    return '"participants"' in start[:4096] or ('"senderName"' in start and '"timestamp"' in start)


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    found = False
    for piece in jsonfile.slices(path):
        found = True
        try:
            header = msgspec.json.decode(piece.header.removeprefix(b"\xef\xbb\xbf"), type=_MetaHeader)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            yield Fault(file=label, place="byte 0", reason=f"no participants before the messages ({problem})")
            return
        names = sorted(person if isinstance(person, str) else person.name or "" for person in header.participants)
        context = {"channel": _chat(label, names), "direct": "yes" if len(names) <= 2 else ""}
        if piece.truncated:
            context["truncated"] = "yes"
            yield jsonfile.cut_short(label, piece)
        yield Part(reader=NAME, path=path, label=label, start=piece.start, end=piece.end, context=context)
    if not found:
        yield Fault(file=label, place="", reason="a Meta download without messages")


def _chat(label: str, people: list[str]) -> str:
    """`message_1.json`, `message_2.json` … of a folder are one chat; any other name is a chat of its own."""
    folder, name = identity.split(label)
    place = folder if _NUMBERED.fullmatch(name) else identity.by_path(label)
    return f"{place} {identity.short(' '.join(people))}"


def read(part: Part) -> Iterator[Item]:
    conversation = Conversation(
        platform="instagram",
        channel=part.context["channel"],
        kind=Kind.DIRECT if part.context["direct"] else Kind.CHANNEL,
    )
    truncated = "truncated" in part.context
    for raw in jsonfile.elements(part.path, part.label, part.start, part.end, _MESSAGES, truncated=truncated):
        if isinstance(raw, Fault):
            yield raw
            continue
        if raw.call_duration is not None or raw.is_unsent or raw.isUnsent or (raw.type or "Generic") not in _TALK:
            yield Skipped.SYSTEM
            continue
        name = mend(raw.sender_name or raw.senderName or "")
        if not name:
            yield Skipped.AUTHORLESS
            continue
        content = raw.content or raw.text or ""
        if len(content) > 2 * MAX_MESSAGE:
            yield Skipped.TOO_LONG
            continue
        content = mend(content)
        text = content.strip()
        if not text:
            yield Skipped.EMPTY
            continue
        if _SYSTEM.fullmatch(text) or _is_report(content, name):
            yield Skipped.SYSTEM
            continue
        if markup.COMMAND.match(text):
            yield Skipped.COMMAND
            continue
        milliseconds = raw.timestamp_ms or raw.timestamp
        try:
            sent_at = datetime.fromtimestamp(milliseconds / 1000, UTC)
        except (ValueError, OverflowError, OSError):
            yield Fault(
                file=part.label, place=f"time {milliseconds}", reason="no readable time; the message is left out"
            )
            continue
        yield Message(conversation=conversation, id="", author=name, author_name=name, text=text, sent_at=sent_at)


def _is_report(content: str, name: str) -> bool:
    """Whether Meta reports what somebody did, in any language: it begins with their name, or names a reaction."""
    if content.startswith(f"{name} "):
        return True
    return len(content) <= MAX_REACTION and content.endswith(" ") and _EMOJI.search(content) is not None


def mend(text: str) -> str:
    """`Ã¼` → `ü`, where the whole text is UTF-8 read as Latin-1; anything else stays as it is."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        return text
