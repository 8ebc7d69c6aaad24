"""Matrix: the JSON that Element exports of a room, events as the protocol has them.

Knows `m.room.message`, edits, replies, threads and members (spec.matrix.org, client-server API); no other client. What
could not be decrypted is skipped.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from core.messages import Conversation, Kind, Message
from training.data.formats import identity, jsonfile, markup
from training.data.formats.items import MAX_MESSAGE, Fault, Item, Named, Part, Skipped

NAME = "matrix"
_FALLBACK = re.compile(r"(?:> [^\n]*\n?)+\n?")
"""The quotation before a reply, for clients that do not support replies."""
_BOT = re.compile(r".*(?:bot|-hook|webhook)\d*", re.IGNORECASE)
EDITS_WITHIN = 10_000
"""How many messages later an edit still finds the message it changes."""


class _ReplyTo(msgspec.Struct):
    event_id: str | None = None


class _Relation(msgspec.Struct):
    rel_type: str | None = None
    event_id: str | None = None
    in_reply_to: _ReplyTo | None = msgspec.field(default=None, name="m.in_reply_to")
    is_falling_back: bool | None = False


class _Content(msgspec.Struct):
    msgtype: str | None = None
    body: str | None = None
    filename: str | None = None
    displayname: str | None = None
    relates_to: _Relation | None = msgspec.field(default=None, name="m.relates_to")
    new_content: "_Content | None" = msgspec.field(default=None, name="m.new_content")


class _Event(msgspec.Struct):
    type: str = ""
    sender: str | None = None
    event_id: str | None = None
    room_id: str | None = None
    origin_server_ts: int | None = None
    state_key: str | None = None
    content: _Content | None = None


_EVENTS = msgspec.json.Decoder(list[_Event])


def recognises(path: Path, head: str) -> bool:
    start = head.lstrip("\ufeff").lstrip()
    return (
        path.is_file()
        and start.startswith("{")
        and '"messages"' in start
        and ('"room_name"' in start[:4096] or '"origin_server_ts"' in start)
    )


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    found = False
    for piece in jsonfile.slices(path):
        found = True
        context = {"channel": identity.by_path(label)}
        if piece.truncated:
            context["truncated"] = "yes"
            yield jsonfile.cut_short(label, piece)
        yield Part(reader=NAME, path=path, label=label, start=piece.start, end=piece.end, context=context)
    if not found:
        yield Fault(file=label, place="", reason="a Matrix export without messages")


def read(part: Part) -> Iterator[Item]:
    conversations: dict[tuple[str, str | None], Conversation] = {}
    times: dict[str, datetime] = {}
    code = markup.CodeBlocks(part.context.get("code", markup.CodeBlocks.SHORT))
    truncated = "truncated" in part.context
    for event in jsonfile.elements(part.path, part.label, part.start, part.end, _EVENTS, truncated=truncated):
        if isinstance(event, Fault):
            yield event
            continue
        content = event.content or _Content()
        if event.type == "m.room.member" and content.displayname and event.state_key:
            yield Named(platform="matrix", author=event.state_key, name=content.displayname)
        if event.type != "m.room.message":
            yield Skipped.SYSTEM
            continue
        relation = content.relates_to or _Relation()
        edited = relation.event_id if relation.rel_type == "m.replace" else None
        said = _text(event, content.new_content if edited and content.new_content else content, relation, code)
        if isinstance(said, Skipped):
            yield said
            continue
        try:
            sent_at = datetime.fromtimestamp((event.origin_server_ts or 0) / 1000, UTC)
        except (ValueError, OverflowError, OSError):
            yield Fault(file=part.label, place=f"event {event.event_id}", reason="no readable time; it is left out")
            continue
        id_ = event.event_id or ""
        if edited:
            if edited not in times:
                yield Skipped.SYSTEM  # an edit of what this export does not hold
                continue
            id_, sent_at = edited, times[edited]
        elif id_:
            times[id_] = sent_at
            if len(times) > EDITS_WITHIN:
                del times[next(iter(times))]
        thread = relation.event_id if relation.rel_type == "m.thread" else None
        key = (event.room_id or part.context["channel"], thread)
        if key not in conversations:
            kind = Kind.CHANNEL if thread is None else Kind.THREAD
            conversations[key] = Conversation(platform="matrix", channel=key[0], thread=thread, kind=kind)
        reply = relation.in_reply_to.event_id if relation.in_reply_to and not relation.is_falling_back else None
        author = event.sender or ""
        yield Message(
            conversation=conversations[key],
            id=id_,
            author=author,
            author_name=author.removeprefix("@").split(":", 1)[0] or author,
            text=said,
            sent_at=sent_at,
            reply_to=reply,
        )


def _text(event: _Event, content: _Content, relation: _Relation, code: markup.CodeBlocks) -> str | Skipped:
    """The words of a message, or why there are none to use."""
    if not event.sender:
        return Skipped.AUTHORLESS
    if content.msgtype == "m.notice" or _BOT.fullmatch(event.sender.split(":", 1)[0]):
        return Skipped.BOT
    if content.msgtype == "m.emote":
        return Skipped.ACTION
    body = content.body or ""
    if content.msgtype != "m.text" and (content.filename or body) == body:
        return Skipped.EMPTY  # the name of a picture or a file
    if len(body) > 2 * MAX_MESSAGE:
        return Skipped.TOO_LONG
    if relation.in_reply_to is not None:
        body = _FALLBACK.sub("", body, count=1) if body.startswith("> ") else body
    text = markup.discord(body, {}, code).strip()  # Matrix clients write the same Markdown
    if len(text) > MAX_MESSAGE:
        return Skipped.TOO_LONG
    if not text:
        return Skipped.EMPTY
    return Skipped.COMMAND if markup.COMMAND.match(text) else text
