"""Instagram's and Messenger's JSON: `message_1.json` files with participants and messages, the newest first.

Knows Meta's download: names and words are UTF-8 bytes written as Latin-1 escapes and are mended here.
"""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from core.messages import Conversation, Kind, Message
from training.exports import jsonfile, markup
from training.exports.items import MAX_MESSAGE, Fault, Item, Part, Skipped

NAME = "instagram"
_SYSTEM = re.compile(
    r"(?:liked a message|reacted \S+ to your message ?|.{1,80} sent an attachment\.|you unsent a message|"
    r".{1,80} (?:started|missed) (?:a|your) (?:video |audio )?(?:chat|call)\.?|"
    r".{1,80} (?:named|left|created|changed) the (?:group|chat).*)",
    re.IGNORECASE,
)


class _Message(msgspec.Struct):
    sender_name: str | None = None
    timestamp_ms: int = 0
    content: str | None = None
    type: str | None = None
    call_duration: Any = None
    is_unsent: bool | None = False


class _Person(msgspec.Struct):
    name: str | None = ""


class _Header(msgspec.Struct):
    participants: list[_Person]


_MESSAGES = msgspec.json.Decoder(list[_Message])


def recognises(path: Path, head: str) -> bool:
    start = head.lstrip()
    return path.is_file() and start.startswith("{") and '"participants"' in start[:4096]


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    found = False
    for piece in jsonfile.slices(path):
        found = True
        try:
            header = msgspec.json.decode(piece.header.removeprefix(b"\xef\xbb\xbf"), type=_Header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            yield Fault(file=label, place="byte 0", reason=f"no participants in front of the messages ({problem})")
            return
        # All parts of a chat lie in one folder; by itself a chat is known by who is in it.
        people = "\n".join(sorted(person.name or "" for person in header.participants))
        channel = hashlib.sha256(people.encode("utf-8", "replace")).hexdigest()[:16]
        context = {"channel": channel, "direct": "yes" if len(header.participants) <= 2 else ""}
        if piece.truncated:
            context["truncated"] = "yes"
            yield Fault(
                file=label,
                place=f"byte {piece.end}",
                reason="the file ends in the middle of its messages; what came before is read",
            )
        yield Part(reader=NAME, path=path, label=label, start=piece.start, end=piece.end, context=context)
    if not found:
        yield Fault(file=label, place="", reason="an Instagram export without messages")


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
        if raw.call_duration is not None or raw.is_unsent or (raw.type not in (None, "Generic", "Share")):
            yield Skipped.SYSTEM
            continue
        if not raw.sender_name:
            yield Skipped.AUTHORLESS
            continue
        content = raw.content or ""
        if len(content) > 2 * MAX_MESSAGE:
            yield Skipped.TOO_LONG
            continue
        text = mend(content).strip()
        if not text:
            yield Skipped.EMPTY
            continue
        if _SYSTEM.fullmatch(text):
            yield Skipped.SYSTEM
            continue
        if markup.COMMAND.match(text):
            yield Skipped.COMMAND
            continue
        try:
            sent_at = datetime.fromtimestamp(raw.timestamp_ms / 1000, UTC)
        except (ValueError, OverflowError, OSError):
            yield Fault(
                file=part.label, place=f"time {raw.timestamp_ms}", reason="no readable time; the message is left out"
            )
            continue
        name = mend(raw.sender_name)
        digest = hashlib.sha256(f"{raw.timestamp_ms}\n{name}\n{text}".encode("utf-8", "replace")).hexdigest()[:16]
        yield Message(conversation=conversation, id=digest, author=name, author_name=name, text=text, sent_at=sent_at)


def mend(text: str) -> str:
    """`Ã¼` → `ü`, where the whole text is UTF-8 read as Latin-1; anything else stays as it is."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        return text
