"""Reading what was said before: windows, reply chains, first posts of threads."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, aliased

from core.memory.rows import (
    Exchange,
    Remembered,
    conversation_of,
    conversation_of_message,
    post_row,
    remembered,
)
from core.memory.store import Store
from core.memory.tables import ConversationRow, MessageRow, PostRow
from core.messages import Conversation, Message


class Queries:
    """Queries for prompts, for buttons and for training."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def window(self, conversation: Conversation, *, limit: int, until: int | None = None) -> list[Remembered]:
        """The newest `limit` messages since the last reset, oldest first; none later than row `until`.

        An answer stands right after its question, whenever it was finished; replaced answers are left out.
        """
        with self._store.session() as session:
            found = session.scalar(select(ConversationRow).where(ConversationRow.key == conversation.key))
            if found is None:
                return []
            query = (
                select(MessageRow)
                .where(
                    MessageRow.conversation_id == found.id,
                    MessageRow.epoch == found.epoch,
                    MessageRow.replaced.is_(False),
                )
                .order_by(MessageRow.place.desc(), MessageRow.id.desc())
                .limit(limit)
            )
            if until is not None:
                # Answers to the message itself are later than it, so they are out too.
                query = query.where(or_(MessageRow.place < until, MessageRow.id == until))
            return [remembered(row, conversation) for row in reversed(session.scalars(query).all())]

    def chain(self, row: int, limit: int) -> list[Remembered]:
        """The message `row` and what it answers, back to the start of the reply chain; oldest first."""
        with self._store.session() as session:
            found: list[MessageRow] = []
            current = session.get(MessageRow, row)
            epoch = current.epoch if current else 0
            while current is not None and len(found) < limit and current.epoch == epoch and current not in found:
                found.append(current)
                current = self._answered(session, current)
            return [remembered(each, conversation_of_message(session, each)) for each in reversed(found)]

    def _answered(self, session: Session, row: MessageRow) -> MessageRow | None:
        if row.answers is not None:
            return session.get(MessageRow, row.answers)
        return None if row.reply_to is None else _message_or_post(session, row.platform, row.channel, row.reply_to)

    def root(self, conversation: Conversation) -> Remembered | None:
        """The message or post of the channel that a thread started from (its id is the thread's), where it is stored
        and the thread was not reset."""
        with self._store.session() as session:
            thread = session.scalar(select(ConversationRow).where(ConversationRow.key == conversation.key))
            if thread is None or thread.epoch > 0:
                return None
            found = _opening(session, conversation)
            return remembered(found, conversation_of_message(session, found)) if found else None

    def knows_opening(self, conversation: Conversation) -> bool:
        """Whether the message that a thread started from is stored, or is no longer context because of a reset."""
        with self._store.session() as session:
            thread = session.scalar(select(ConversationRow).where(ConversationRow.key == conversation.key))
            reset = thread is not None and thread.epoch > 0
            return reset or _opening(session, conversation) is not None

    def exchanges_before(self, message: Message, row: int, *, limit: int) -> list[Exchange]:
        """What the message's author said before row `row` and was answered: in the same conversation, in the channel
        itself and at the beginning of its threads, since the last reset of each. At most `limit`, newest first.
        """
        where, answer = message.conversation, aliased(MessageRow)
        query = (
            select(MessageRow.id, MessageRow.text, MessageRow.sent_at, answer.text)
            .join(answer, answer.answers == MessageRow.id)
            .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
            .where(
                MessageRow.author == message.author,
                MessageRow.platform == where.platform,
                MessageRow.id < row,
                MessageRow.epoch == ConversationRow.epoch,
                ConversationRow.space == where.space,
                ConversationRow.channel == where.channel,
                or_(
                    ConversationRow.key == where.key,
                    ConversationRow.thread.is_(None),
                    ConversationRow.thread == MessageRow.message_id,
                ),
                answer.from_bot.is_(True),
                answer.replaced.is_(False),
            )
            .order_by(MessageRow.id.desc())
            .limit(limit)
        )
        with self._store.session() as session:
            return [
                Exchange(row=found, said=said, sent_at=at, answer=answered)
                for found, said, at, answered in session.execute(query)
            ]

    def said(self, rows: Sequence[int]) -> list[tuple[str, datetime]]:
        """Texts and times of the messages in these rows; those deleted since are left out."""
        query = select(MessageRow.text, MessageRow.sent_at).where(MessageRow.id.in_(rows)).order_by(MessageRow.id)
        with self._store.session() as session:
            return [(text, at) for text, at in session.execute(query)]

    def reply_of(self, conversation: Conversation, post: str) -> int | None:
        """The row of the reply posted as `post`; None if that is not a post of ours."""
        with self._store.session() as session:
            found = post_row(session, conversation, post)
            return found.message_id if found else None

    def details(self, row: int) -> dict[str, str | int | float]:
        """How a reply was made (for “why?”); empty for an unknown row."""
        with self._store.session() as session:
            found = session.get(MessageRow, row)
            return dict(found.details or {}) if found else {}

    def answers(self, question: int) -> list[str]:
        """The bot's answers to the message in a row, replaced ones among them, oldest first."""
        with self._store.session() as session:
            query = select(MessageRow.text).where(MessageRow.answers == question, MessageRow.from_bot.is_(True))
            return list(session.scalars(query.order_by(MessageRow.id)))

    def in_thread(self, conversation: Conversation) -> bool:
        """Whether the bot has spoken in this conversation since its last reset: then it takes part in the thread."""
        with self._store.session() as session:
            query = (
                select(MessageRow.id)
                .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
                .where(
                    ConversationRow.key == conversation.key,
                    MessageRow.epoch == ConversationRow.epoch,
                    MessageRow.from_bot.is_(True),
                )
                .limit(1)
            )
            return session.scalar(query) is not None

    def everything(self, *, batch: int = 1000) -> Iterator[Remembered]:
        """Every stored message except replaced replies, oldest first, in batches; `person2 import log` reads this."""
        last = 0
        while True:
            with self._store.session() as session:
                rows = session.execute(
                    select(MessageRow, ConversationRow)
                    .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
                    .where(MessageRow.id > last, MessageRow.replaced.is_(False))
                    .order_by(MessageRow.id)
                    .limit(batch)
                ).all()
                found = [remembered(row, conversation_of(place)) for row, place in rows]
            if not found:
                return
            yield from found
            last = found[-1].row


def _opening(session: Session, thread: Conversation) -> MessageRow | None:
    return _message_or_post(session, thread.platform, thread.channel, thread.thread)


def _message_or_post(session: Session, platform: str, channel: str, id_: str | None) -> MessageRow | None:
    """The message with this id, or the reply that was posted under it."""
    said = select(MessageRow).where(
        MessageRow.platform == platform, MessageRow.channel == channel, MessageRow.message_id == id_
    )
    posted = (
        select(MessageRow)
        .join(PostRow, PostRow.message_id == MessageRow.id)
        .where(PostRow.platform == platform, PostRow.channel == channel, PostRow.post_id == id_)
    )
    return session.scalar(said) or session.scalar(posted)
