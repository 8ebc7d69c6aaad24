"""Slack's messages and users as its API writes them, whatever export holds them.

Knows the API's fields, no folder layout: `slack` and `slackdump` know those. `thread_ts` makes threads; the message a
thread hangs from belongs to the thread. Edited messages stand in their last form.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from core.messages import Conversation, Kind, Message
from training.data.formats import markup
from training.data.formats.items import MAX_MESSAGE, Fault, Item, Named, Skipped
from training.data.formats.slack_blocks import STAND_INS, text_of

TALK = {"", "file_share", "thread_broadcast", "reply_broadcast", "me_message", "message_replied", "file_comment"}
"""Subtypes in which a person speaks; every other one is the platform's own line."""
SERVICE_USERS = {"USLACKBOT"}
RAW_LIMIT = 2 * MAX_MESSAGE
"""Characters with markup; ids and link targets make a line longer than what is read."""


class Edit(msgspec.Struct):
    """The new form inside a `message_changed` line of a compliance export."""

    ts: str | float = ""
    user: str | None = None
    text: str | None = ""
    subtype: str | None = None
    thread_ts: str | float | None = None
    bot_id: str | None = None
    blocks: Any = None
    user_profile: "Profile | None" = None


class RawMessage(msgspec.Struct):
    """One entry of a day file; slackdump puts the replies of a thread inside its first message."""

    ts: str | float = ""
    user: str | None = None
    text: str | None = ""
    type: str | None = "message"
    subtype: str | None = None
    thread_ts: str | float | None = None
    reply_count: int | None = 0
    bot_id: str | None = None
    hidden: bool | None = False
    message: Edit | None = None
    blocks: Any = None
    user_profile: "Profile | None" = None
    """Of members of other workspaces (Slack Connect), whom users.json lacks."""
    slackdump_thread_replies: "list[RawMessage] | None" = None


class Profile(msgspec.Struct):
    display_name: str | None = ""
    real_name: str | None = ""
    name: str | None = ""


class User(msgspec.Struct):
    id: str
    name: str | None = ""
    real_name: str | None = ""
    is_bot: bool | None = False
    profile: Profile | None = None

    def names(self) -> list[str]:
        """Every name, the one that Slack shows beside a message first."""
        profile = self.profile or Profile()
        found = (profile.display_name, profile.real_name, self.real_name, self.name, profile.name)
        return list(dict.fromkeys(name for name in found if name)) or ["someone"]


USER_LISTS = ("users.json", "org_users.json")
"""A workspace's members, and of an Enterprise organisation everybody's."""


def users(folder: Path) -> Mapping[str, User]:
    """The members an export lists, by id; a list that is missing or damaged is empty (`parts` reports that once)."""
    found: dict[str, User] = {}
    for name in USER_LISTS:
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        found |= _users(folder / name, status.st_mtime_ns, status.st_size)
    return found


@lru_cache(maxsize=4)
def _users(path: Path, changed: int, size: int) -> Mapping[str, User]:
    """Loaded once a process and version of the file."""
    try:
        return {user.id: user for user in msgspec.json.decode(path.read_bytes(), type=list[User])}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the messages of one export share."""

    label: str
    people: Mapping[str, User]
    names: Mapping[str, str]
    """Of users and channels by id, for mentions."""
    code: markup.CodeBlocks
    named: set[str] = field(default_factory=set)
    """Users whose names were given already."""

    def names_of(self, user: User | None) -> Iterator[Named]:
        """The other names of a user, once."""
        if user is not None and user.id not in self.named:
            self.named.add(user.id)
            for name in user.names()[1:]:
                yield Named(platform="slack", author=user.id, name=name)


def said(raw: RawMessage | Edit, source: Source, channel: str, kind: Kind) -> Iterator[Item]:
    """The messages of an entry: its own, and the replies that slackdump puts inside it."""
    if isinstance(raw, RawMessage):
        if raw.subtype == "message_changed" and raw.message is not None:
            raw = raw.message
        else:
            yield from _entry(raw, source, channel, kind, root=bool(raw.reply_count))
            for reply in raw.slackdump_thread_replies or ():
                if reply.ts != raw.ts:
                    reply.slackdump_thread_replies = None
                    yield from _entry(reply, source, channel, kind, root=False)
            return
    yield from _entry(raw, source, channel, kind, root=False)


def _entry(raw: RawMessage | Edit, source: Source, channel: str, kind: Kind, *, root: bool) -> Iterator[Item]:
    subtype = raw.subtype or ""
    user = source.people.get(raw.user or "")
    if raw.bot_id or subtype == "bot_message" or raw.user in SERVICE_USERS or (user is not None and user.is_bot):
        yield Skipped.BOT
        return
    if subtype not in TALK or (isinstance(raw, RawMessage) and (raw.hidden or raw.type != "message")):
        yield Skipped.SYSTEM
        return
    if not raw.user:
        yield Skipped.AUTHORLESS
        return
    if user is None and raw.user_profile is not None:
        user = User(id=raw.user, profile=raw.user_profile)
        yield from (Named(platform="slack", author=raw.user, name=name) for name in user.names()[1:])
    content = raw.text or ""
    if not content.strip() or content.strip().lower() in STAND_INS:
        content = text_of(raw.blocks)
    if len(content) > RAW_LIMIT:
        yield Skipped.TOO_LONG
        return
    if subtype in {"file_share", "file_comment"}:
        content = uploaded(content)
    text = markup.slack(content, source.names, source.code).strip()
    if not text:
        yield Skipped.EMPTY
        return
    if markup.COMMAND.match(text):
        yield Skipped.COMMAND
        return
    id_, thread = _ts(raw.ts), _ts(raw.thread_ts)
    try:
        sent_at = datetime.fromtimestamp(float(id_), UTC)
    except (ValueError, OverflowError, OSError):
        yield Fault(
            file=source.label, place=f"message {id_[:40] or '?'}", reason="no readable time in ts; it is left out"
        )
        return
    threaded = bool(thread) and (thread != id_ or root)
    yield Message(
        conversation=Conversation(
            platform="slack",
            channel=channel,
            thread=thread if threaded else None,
            kind=Kind.THREAD if threaded else kind,
        ),
        id=id_,
        author=raw.user,
        author_name=user.names()[0] if user else "someone",
        text=text,
        sent_at=sent_at,
    )


def _ts(value: str | float | None) -> str:
    """Slack's timestamps are texts with six decimals; programs that copy exports make numbers of them."""
    return value if isinstance(value, str) else "" if value is None else f"{value:.6f}"


def uploaded(text: str) -> str:
    """What a person wrote with a file: exports before 2018 put it after “… uploaded a file: <…> and commented:”."""
    head, mark, comment = text.partition(" and commented: ")
    if " uploaded a file: " in head or " commented on " in head:
        return comment if mark else ""
    return text
