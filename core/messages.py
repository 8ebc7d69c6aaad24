"""The values everything passes around: where something was said, and what.

Knows no platform, no database, no model: standard library only. Platform types are converted to these at the edge
(`bots/*.py`, `training/data/formats/*.py`) by pure functions, and nothing behind that edge sees anything else.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum


class Kind(StrEnum):
    """What sort of place a conversation is in; the policy answers each differently."""

    CHANNEL = "channel"
    """Many people, not all of them talking to the bot."""

    THREAD = "thread"
    """A side conversation hanging from one message of a channel."""

    DIRECT = "direct"
    """One person and the bot; everything said is said to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A place where talk has a common context. Ids are the platform's own, as text."""

    platform: str
    """`discord`, `slack`, `terminal`, …: a short lower-case word."""
    channel: str
    """The platform's channel id."""
    space: str = ""
    """The server (Discord guild) or workspace (Slack team) id; empty for none."""
    thread: str | None = None
    """The platform's thread id within the channel, or None for the channel itself."""
    kind: Kind = Kind.CHANNEL

    @property
    def key(self) -> str:
        """A stable name: `platform/space/channel/thread`. The kind is not part of it."""
        return "/".join((self.platform, self.space, self.channel, self.thread or ""))

    @property
    def channel_key(self) -> tuple[str, str, str]:
        """Names the channel, whose threads have the same one."""
        return self.platform, self.space, self.channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One thing said by one author. Mentions are already names, markup already what a person reads."""

    conversation: Conversation
    id: str
    """The platform's message id; unique within platform and channel, so a redelivered event is the same message."""
    author: str
    """The platform's id of the member who wrote it."""
    author_name: str
    text: str
    sent_at: datetime
    """Timezone-aware, UTC."""
    from_bot: bool = False
    """True for posts of Person2 itself, never for other bots (those stop at the edge)."""
    reply_to: str | None = None
    """Id of the message this one answers, where the platform says so."""
    mentions_bot: bool = False
    mentions_others: bool = False
    """It names, or answers, a member other than the bot: in a thread that is not for the bot."""
    author_roles: frozenset[str] | None = frozenset()
    """Ids of the roles that the author has, none on platforms without roles; None where the platform has roles and does
    not say which. Not stored."""
    replies_to_bot: bool = False
    """It answers a post of the bot, as far as the platform says so; `Chat.hear` looks up the rest by `reply_to`."""
    joined_thread: bool = False
    """The bot already takes part in the thread of this message; `Chat.hear` looks it up."""

    def __post_init__(self) -> None:
        if self.sent_at.tzinfo is None:
            raise ValueError("sent_at must carry a timezone")
        object.__setattr__(self, "sent_at", self.sent_at.astimezone(UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the bot says, before a platform posts it."""

    text: str
    """Cleaned, mention-free plain text; may be longer than a platform's limit (`core.replies.split`)."""
    answers: str | None = None
    """Id of the message it answers."""
    row: int | None = None
    """The memory row of the stored reply; None for a notice. The same reply keeps its row when it is posted again after
    a restart, so that a platform can tell the two apart from two replies."""
    resumed: bool = False
    """Composed by an earlier process, which may have posted it and ended before it could note that."""
    notice: bool = False
    """True for sentences about the bot (errors, “a few people are ahead of you”): show them to the asker alone
    where the platform can, and they are neither remembered nor learned from."""
    adapter: str | None = None
    """Id of the adapter that spoke; None for the bare base model."""
    question: Message | None = None
    """What it answers, and so where it belongs: a command may want another answer to what was said in a thread."""
    details: dict[str, str | int | float] = field(default_factory=dict)
    """Settings that made it, for “why?”: temperature, turns of context, seconds, …"""
