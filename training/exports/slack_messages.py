"""Slack's messages and users as its API writes them, whatever export holds them.

Knows the API's fields, no folder layout: `slack` and `slackdump` know those. `thread_ts` makes threads; the message a
thread hangs from belongs to the thread. Edited messages stand in their last form.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import msgspec

from core.messages import Conversation, Kind, Message
from training.exports import markup
from training.exports.items import MAX_MESSAGE, Fault, Item, Skipped

TALK = {"", "file_share", "thread_broadcast", "me_message", "message_replied", "file_comment"}
"""Subtypes in which a person speaks; every other one is the platform's own line."""
SERVICE_USERS = {"USLACKBOT"}
RAW_LIMIT = 2 * MAX_MESSAGE
"""Characters with markup; ids and link targets make a line longer than what is read."""


class Edit(msgspec.Struct):
    """The new form inside a `message_changed` line of a compliance export."""

    ts: str = ""
    user: str | None = None
    text: str | None = ""
    subtype: str | None = None
    thread_ts: str | None = None
    bot_id: str | None = None


class RawMessage(msgspec.Struct):
    """One entry of a day file; slackdump puts the replies of a thread inside its first message."""

    ts: str = ""
    user: str | None = None
    text: str | None = ""
    type: str | None = "message"
    subtype: str | None = None
    thread_ts: str | None = None
    reply_count: int | None = 0
    bot_id: str | None = None
    hidden: bool | None = False
    message: Edit | None = None
    slackdump_thread_replies: "list[RawMessage] | None" = None


class Profile(msgspec.Struct):
    display_name: str | None = ""
    real_name: str | None = ""


class User(msgspec.Struct):
    id: str
    name: str | None = ""
    real_name: str | None = ""
    is_bot: bool | None = False
    profile: Profile | None = None

    def names(self) -> list[str]:
        """Every name, the one that Slack shows beside a message first."""
        profile = self.profile or Profile()
        found = (profile.display_name, profile.real_name, self.real_name, self.name)
        return list(dict.fromkeys(name for name in found if name)) or ["someone"]


def users(path: Path) -> Mapping[str, User]:
    """users.json by id; empty where it is missing or damaged (`parts` reports that once)."""
    try:
        status = path.stat()
    except OSError:
        return {}
    return _users(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)
def _users(path: Path, changed: int, size: int) -> Mapping[str, User]:
    """Loaded once a process and version of the file."""
    try:
        return {user.id: user for user in msgspec.json.decode(path.read_bytes(), type=list[User])}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def said(
    raw: RawMessage | Edit,
    *,
    label: str,
    channel: str,
    kind: Kind,
    people: Mapping[str, User],
    names: Mapping[str, str],
    code: markup.CodeBlocks,
) -> Iterator[Item]:
    """The message an entry holds, after its replies' entries are taken apart too."""
    if isinstance(raw, RawMessage):
        if raw.subtype == "message_changed" and raw.message is not None:
            raw = raw.message
        else:
            yield from _entry(raw, label, channel, kind, people, names, code, root=bool(raw.reply_count))
            for reply in raw.slackdump_thread_replies or ():
                if reply.ts != raw.ts:
                    reply.slackdump_thread_replies = None
                    yield from _entry(reply, label, channel, kind, people, names, code, root=False)
            return
    yield from _entry(raw, label, channel, kind, people, names, code, root=False)


def _entry(
    raw: RawMessage | Edit,
    label: str,
    channel: str,
    kind: Kind,
    people: Mapping[str, User],
    names: Mapping[str, str],
    code: markup.CodeBlocks,
    *,
    root: bool,
) -> Iterator[Item]:
    subtype = raw.subtype or ""
    user = people.get(raw.user or "")
    if raw.bot_id or subtype == "bot_message" or raw.user in SERVICE_USERS or (user is not None and user.is_bot):
        yield Skipped.BOT
        return
    if subtype not in TALK or (isinstance(raw, RawMessage) and (raw.hidden or raw.type != "message")):
        yield Skipped.SYSTEM
        return
    if not raw.user:
        yield Skipped.AUTHORLESS
        return
    content = raw.text or ""
    if len(content) > RAW_LIMIT:
        yield Skipped.TOO_LONG
        return
    if subtype in {"file_share", "file_comment"}:
        content = uploaded(content)
    text = markup.slack(content, names, code).strip()
    if not text:
        yield Skipped.EMPTY
        return
    if markup.COMMAND.match(text):
        yield Skipped.COMMAND
        return
    try:
        sent_at = datetime.fromtimestamp(float(raw.ts), UTC)
    except (ValueError, OverflowError, OSError):
        yield Fault(file=label, place=f"message {raw.ts[:40] or '?'}", reason="no readable time in ts; it is left out")
        return
    threaded = bool(raw.thread_ts) and (raw.thread_ts != raw.ts or root)
    yield Message(
        conversation=Conversation(
            platform="slack",
            channel=channel,
            thread=raw.thread_ts if threaded else None,
            kind=Kind.THREAD if threaded else kind,
        ),
        id=raw.ts,
        author=raw.user,
        author_name=user.names()[0] if user else "someone",
        text=text,
        sent_at=sent_at,
    )


def uploaded(text: str) -> str:
    """What a person said with a file: exports before 2018 put it behind “… uploaded a file: <…> and commented:”."""
    head, mark, comment = text.partition(" and commented: ")
    if " uploaded a file: " in head or " commented on " in head:
        return comment if mark else ""
    return text
