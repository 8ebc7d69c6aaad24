"""What the parts of the memory share: its values, finding and making rows, deleting messages with what depends on them.

Knows the tables and works in the caller's session; begins and ends no transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from core.memory.tables import ChannelRow, ConversationRow, FeedbackRow, MessageRow, PostRow, QuestionRow
from core.messages import Conversation, Kind, Message

PERSON2 = "person2"
"""The author id of the bot's own replies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    row: int
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A member's message and the current answer to it."""

    row: int
    """Of the message."""
    said: str
    sent_at: datetime
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedQuestion:
    """A question with an answer that members liked and one that they did not."""

    question: Message
    before: tuple[Message, ...]
    """The messages before it in its conversation since the last reset, oldest first."""
    liked: tuple[str, ...]
    """Answers that were liked and disliked by nobody."""
    others: tuple[str, ...]
    """Answers that were disliked, or not liked and replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """A question that was stored and whose answer was never posted: the process ended in between."""

    row: int
    message: Message
    by_command: bool
    """Asked by a command: nobody sees the question unless the answer shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    messages: int = 0
    replies: int = 0
    feedback: int = 0
    left: str = ""
    """What could not be deleted yet and what to do about it, in a sentence; empty where all is gone."""

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(
            messages=self.messages + other.messages,
            replies=self.replies + other.replies,
            feedback=self.feedback + other.feedback,
            left=" ".join(filter(None, (self.left, other.left))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """A channel's own settings; None leaves a setting to the operator."""

    ambient_chance: float | None = None
    allowed: bool | None = None
    voice: str | None = None
    temperature: float | None = None
    retention_days: int | None = None
    answers: str | None = None
    """What is answered besides commands: a `core.policy.Answers`."""
    cool_down: float | None = None
    """Minutes between two answers nobody asked for."""
    ignored: str | None = None
    """Members and roles that are neither heard nor answered, as in `core.policy.Rules.ignored`, separated by spaces."""
    again_by: str | None = None
    """`anyone` lets members have the questions of others answered again; else only their own."""
    reset_by: str | None = None
    """`admins` leaves `reset` to who may manage the channel; else anyone may."""
    persona: str | None = None
    recall: bool | None = None
    """Whether what a member said long ago is recalled."""


def conversation_row(session: Session, where: Conversation) -> ConversationRow:
    found = session.scalar(select(ConversationRow).where(ConversationRow.key == where.key))
    if found is None:
        found = ConversationRow(
            key=where.key,
            platform=where.platform,
            space=where.space,
            channel=where.channel,
            thread=where.thread,
            kind=str(where.kind),
            epoch=0,
        )
        session.add(found)
        session.flush()
    return found


def matching(where: Conversation, *, whole_channel: bool) -> tuple[ColumnElement[bool], ...]:
    """Conditions on ConversationRow: this conversation, or the channel it is in with all its threads."""
    if not whole_channel:
        return (ConversationRow.key == where.key,)
    return (
        ConversationRow.platform == where.platform,
        ConversationRow.space == where.space,
        ConversationRow.channel == where.channel,
    )


def conversation_of(row: ConversationRow) -> Conversation:
    return Conversation(
        platform=row.platform, space=row.space, channel=row.channel, thread=row.thread, kind=Kind(row.kind)
    )


def conversation_of_message(session: Session, row: MessageRow) -> Conversation:
    found = session.get_one(ConversationRow, row.conversation_id)
    return conversation_of(found)


def remembered(row: MessageRow, where: Conversation) -> Remembered:
    return Remembered(
        row=row.id,
        message=Message(
            conversation=where,
            id=row.message_id,
            author=row.author,
            author_name=row.author_name,
            text=row.text,
            sent_at=row.sent_at,
            from_bot=row.from_bot,
            reply_to=row.reply_to,
        ),
    )


def post_row(session: Session, where: Conversation, post: str) -> PostRow | None:
    return session.scalar(
        select(PostRow).where(
            PostRow.platform == where.platform, PostRow.channel == where.channel, PostRow.post_id == post
        )
    )


def channel_row(session: Session, where: Conversation) -> ChannelRow | None:
    return session.scalar(
        select(ChannelRow).where(
            ChannelRow.platform == where.platform,
            ChannelRow.space == where.space,
            ChannelRow.channel == where.channel,
        )
    )


def settings_of(row: ChannelRow) -> ChannelSettings:
    return ChannelSettings(
        ambient_chance=row.ambient_chance,
        allowed=row.allowed,
        voice=row.voice,
        temperature=row.temperature,
        retention_days=row.retention_days,
        answers=row.answers,
        cool_down=row.cool_down,
        ignored=row.ignored,
        again_by=row.again_by,
        reset_by=row.reset_by,
        persona=row.persona,
        recall=row.recall,
    )


CHUNK = 500
"""Rows named in one statement; SQLite allowed 999 variables before 3.32 (https://sqlite.org/limits.html)."""


def delete_messages(session: Session, rows: Sequence[int]) -> None:
    """Delete message rows with their posts, questions and feedback; answers to them stay, without their question."""
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        session.execute(delete(PostRow).where(PostRow.message_id.in_(some)))
        session.execute(delete(QuestionRow).where(QuestionRow.message_id.in_(some)))
        session.execute(delete(FeedbackRow).where(FeedbackRow.message_id.in_(some)))
        session.execute(update(MessageRow).where(MessageRow.answers.in_(some)).values(answers=None))
        session.execute(delete(MessageRow).where(MessageRow.id.in_(some)))
