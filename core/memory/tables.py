"""The tables. Migrations create them; a test compares the two.

Platform ids are text, times are UTC without a timezone (SQLite stores none), messages are plain text.
"""

import re
from datetime import UTC, datetime

from sqlalchemy import JSON, DateTime, ForeignKey, Index, MetaData, String, Text, TypeDecorator, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware UTC in Python, a bare timestamp in the database."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class SafeText(TypeDecorator[str]):
    """Text without what some database cannot store: PostgreSQL takes no NUL
    (https://www.postgresql.org/docs/current/datatype-character.html), and none takes half a surrogate pair."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else _UNSTORABLE.sub("\ufffd", value)


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class Table(DeclarativeBase):
    # Named constraints, so that later migrations can alter them on every database (Alembic's advice for SQLite).
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


NEVER_REUSED = {"sqlite_autoincrement": True}
"""For keys that are stored elsewhere: SQLite would give a deleted row's number to the next row."""


class ConversationRow(Table):
    __tablename__ = "conversations"
    __table_args__ = (UniqueConstraint("key"), NEVER_REUSED)

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(400))
    platform: Mapped[str] = mapped_column(String(40))
    space: Mapped[str] = mapped_column(String(100))
    channel: Mapped[str] = mapped_column(String(100))
    thread: Mapped[str | None] = mapped_column(String(100))
    kind: Mapped[str] = mapped_column(String(20))
    epoch: Mapped[int] = mapped_column(default=0)
    """Counts resets; only messages of the newest epoch are context."""


class MessageRow(Table):
    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("platform", "channel", "message_id"),
        Index(None, "conversation_id", "epoch", "place"),
        Index(None, "author", "platform"),
        Index(None, "author_name"),
        Index(None, "answers"),
        Index(None, "conversation_id", "sent_at"),
        NEVER_REUSED,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"))
    platform: Mapped[str] = mapped_column(String(40))
    channel: Mapped[str] = mapped_column(String(100))
    message_id: Mapped[str] = mapped_column(String(100))
    epoch: Mapped[int]
    place: Mapped[int]
    """Order within a conversation: an answer has the place of its question, whenever it was finished."""
    author: Mapped[str] = mapped_column(String(100))
    author_name: Mapped[str] = mapped_column(SafeText(200))
    text: Mapped[str] = mapped_column(SafeText)
    sent_at: Mapped[datetime] = mapped_column(UtcDateTime)
    from_bot: Mapped[bool] = mapped_column(default=False)
    reply_to: Mapped[str | None] = mapped_column(String(100))
    answers: Mapped[int | None] = mapped_column(ForeignKey("messages.id"))
    """For the bot's replies: the row of the message answered."""
    replaced: Mapped[bool] = mapped_column(default=False)
    """A reply that `again` replaced; kept, but neither context nor training data."""
    adapter: Mapped[str | None] = mapped_column(String(200))
    details: Mapped[dict[str, str | int | float] | None] = mapped_column(JSON)


class QuestionRow(Table):
    """A message that is, or was, to be answered."""

    __tablename__ = "questions"
    __table_args__ = (Index(None, "owed"),)

    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id"), primary_key=True, autoincrement=False)
    why: Mapped[str] = mapped_column(String(40))
    """The rule that decided (`core.policy.Why`)."""
    owed: Mapped[int] = mapped_column(default=0)
    """1 while the answer is neither posted nor given up, and 1 more for each later process that tried to answer; 0
    afterwards."""


class PostRow(Table):
    """Platform ids under which a reply was posted: one for each part of a long reply."""

    __tablename__ = "posts"
    __table_args__ = (UniqueConstraint("platform", "channel", "post_id"), Index(None, "message_id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id"))
    platform: Mapped[str] = mapped_column(String(40))
    channel: Mapped[str] = mapped_column(String(100))
    post_id: Mapped[str] = mapped_column(String(100))


class MemberRow(Table):
    __tablename__ = "members"
    __table_args__ = (UniqueConstraint("platform", "member"), Index(None, "member"))

    id: Mapped[int] = mapped_column(primary_key=True)
    platform: Mapped[str] = mapped_column(String(40))
    member: Mapped[str] = mapped_column(String(100))
    consent: Mapped[bool | None]
    consent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ForgottenRow(Table):
    """A keyed hash of a forgotten member's id, or of a name of theirs."""

    __tablename__ = "forgotten"
    __table_args__ = (UniqueConstraint("platform", "digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    platform: Mapped[str] = mapped_column(String(40))
    digest: Mapped[str] = mapped_column(String(64))
    everyday: Mapped[bool | None]
    """Of a name: whether it is an everyday word, too. Null for a member."""
    forgotten_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FeedbackRow(Table):
    __tablename__ = "feedback"
    __table_args__ = (UniqueConstraint("message_id", "platform", "member"), Index(None, "member", "platform"))

    id: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id"))
    platform: Mapped[str] = mapped_column(String(40))
    member: Mapped[str] = mapped_column(String(100))
    liked: Mapped[bool]
    given_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ChannelRow(Table):
    """A channel's settings; null leaves a setting to the operator."""

    __tablename__ = "channels"
    __table_args__ = (UniqueConstraint("platform", "space", "channel"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    platform: Mapped[str] = mapped_column(String(40))
    space: Mapped[str] = mapped_column(String(100))
    channel: Mapped[str] = mapped_column(String(100))
    ambient_chance: Mapped[float | None]
    allowed: Mapped[bool | None]
    voice: Mapped[str | None] = mapped_column(String(200))
    temperature: Mapped[float | None]
    retention_days: Mapped[int | None]
    answers: Mapped[str | None] = mapped_column(String(10))
    cool_down: Mapped[float | None]
    ignored: Mapped[str | None] = mapped_column(Text)
    again_by: Mapped[str | None] = mapped_column(String(10))
    reset_by: Mapped[str | None] = mapped_column(String(10))
    persona: Mapped[str | None] = mapped_column(Text)
    recall: Mapped[bool | None]
