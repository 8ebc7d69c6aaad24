"""Messages and replies: storing them, the ids of their posts, edits, deletions and resets."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import case, delete, select, update
from sqlalchemy.orm import Session

from core.memory.rows import (
    CHUNK,
    PERSON2,
    Removed,
    channel_row,
    conversation_of_message,
    conversation_row,
    matching,
    post_row,
)
from core.memory.store import Store
from core.memory.tables import ConversationRow, MessageRow, PostRow, QuestionRow
from core.messages import Conversation, Message


class Messages:
    """Messages of people, replies of the bot."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def remember(self, message: Message, *, why: str | None = None, owed: bool = False) -> int | None:
        """Store what was said; the new row, or None if this message is already stored (redelivered).

        `why` is the rule by which it is to be answered, None where it is not; `owed` says whether the next process is
        to answer it if this one ends before.
        """
        return self._store.write(lambda session: self._insert(session, message, why=why, owed=owed))

    def remember_opening(self, message: Message) -> None:
        """Store the first post of a thread before all its other messages; not where the thread was reset."""

        def insert(session: Session) -> None:
            if conversation_row(session, message.conversation).epoch == 0:
                row = self._insert(session, message)
                if row is not None:
                    session.get_one(MessageRow, row).place = 0

        self._store.write(insert)

    def _insert(self, session: Session, message: Message, *, why: str | None = None, owed: bool = False) -> int | None:
        where = message.conversation
        known = select(MessageRow.id).where(
            MessageRow.platform == where.platform,
            MessageRow.channel == where.channel,
            MessageRow.message_id == message.id,
        )
        if session.scalar(known) is not None:
            return None
        conversation = conversation_row(session, where)
        row = MessageRow(
            conversation_id=conversation.id,
            platform=where.platform,
            channel=where.channel,
            message_id=message.id,
            epoch=conversation.epoch,
            place=0,
            author=message.author,
            author_name=message.author_name[:200],
            text=message.text,
            sent_at=message.sent_at,
            from_bot=message.from_bot,
            reply_to=message.reply_to,
        )
        session.add(row)
        session.flush()
        row.place = row.id
        if why is not None:
            session.add(QuestionRow(message_id=row.id, why=why, owed=int(owed)))
        return row.id

    def complete(self, row: int, said: str, message: Message) -> None:
        """Store the names in a message that was stored as `said` before they were known; an edit that came meanwhile
        stays."""
        with self._store.session() as session:
            session.execute(
                update(MessageRow)
                .where(MessageRow.id == row)
                .values(
                    author_name=message.author_name[:200],
                    text=case((MessageRow.text == said, message.text), else_=MessageRow.text),
                )
            )

    def remember_reply(
        self,
        text: str,
        *,
        answers: int,
        sent_at: datetime,
        adapter: str | None,
        details: Mapping[str, str | int | float],
        replaces: int | None = None,
        question: str | None = None,
    ) -> int | None:
        """Store Person2's reply to row `answers`; its row, or None where the question was deleted meanwhile or the row
        does not hold the message whose id is `question`.

        `replaces` is the row of an earlier answer that this one takes the place of.
        """

        def store(session: Session) -> int | None:
            asked = session.get(MessageRow, answers)
            if asked is None or question not in (None, asked.message_id):
                return None
            if replaces is not None:
                session.execute(update(MessageRow).where(MessageRow.id == replaces).values(replaced=True))
            row = MessageRow(
                conversation_id=asked.conversation_id,
                platform=asked.platform,
                channel=asked.channel,
                message_id=f"{PERSON2}-{secrets.token_hex(8)}",
                epoch=asked.epoch,
                place=asked.place,
                author=PERSON2,
                author_name="Person2",
                text=text,
                sent_at=sent_at,
                from_bot=True,
                reply_to=asked.message_id,
                answers=answers,
                adapter=adapter,
                details=dict(details),
            )
            session.add(row)
            session.flush()
            return row.id

        return self._store.write(store)

    def posted(self, row: int, conversation: Conversation, posts: Sequence[str]) -> None:
        """Store the platform's ids of a posted reply, which is owed no more. Ids that are stored already keep their
        reply, unless it was replaced: then the new reply was put in its place by editing the post."""

        def note(session: Session) -> None:
            reply = session.get(MessageRow, row)
            if reply is None:
                return
            session.execute(update(QuestionRow).where(QuestionRow.message_id == reply.answers).values(owed=0))
            for post in posts:
                found = post_row(session, conversation, post)
                if found is None:
                    session.add(
                        PostRow(
                            message_id=row, platform=conversation.platform, channel=conversation.channel, post_id=post
                        )
                    )
                elif session.get_one(MessageRow, found.message_id).replaced:
                    found.message_id = row

        self._store.write(note)

    def reset(self, conversation: Conversation, *, whole_channel: bool = False) -> None:
        """Start a new epoch, with `whole_channel` in the channel's threads too: what was said stays stored but is no
        longer context."""

        def begin(session: Session) -> None:
            conversation_row(session, conversation)
            here = matching(conversation, whole_channel=whole_channel)
            session.execute(update(ConversationRow).where(*here).values(epoch=ConversationRow.epoch + 1))

        self._store.write(begin)

    def edit(self, conversation: Conversation, message_id: str, text: str) -> bool:
        """Store the new text of an edited message; False if the message is not stored."""
        with self._store.session() as session:
            changed = session.execute(
                update(MessageRow)
                .where(
                    MessageRow.platform == conversation.platform,
                    MessageRow.channel == conversation.channel,
                    MessageRow.message_id == message_id,
                )
                .values(text=text)
                .returning(MessageRow.id)
            )
            return changed.first() is not None

    def edit_message(self, message: Message) -> tuple[int, bool] | None:
        """Store the new text of an edited message, and its conversation: mentioning the bot may open a thread. Returns
        its row and whether an answer was ever decided on; None if it is not stored."""

        def take_over(session: Session) -> tuple[int, bool] | None:
            where = message.conversation
            row = session.scalar(
                select(MessageRow).where(
                    MessageRow.platform == where.platform,
                    MessageRow.channel == where.channel,
                    MessageRow.message_id == message.id,
                    MessageRow.from_bot.is_(False),
                )
            )
            if row is None:
                return None
            row.text = message.text
            asked = session.get(QuestionRow, row.id) is not None
            if not asked and conversation_of_message(session, row).key != where.key:
                conversation = conversation_row(session, where)
                row.conversation_id, row.epoch = conversation.id, conversation.epoch
            return row.id, asked

        return self._store.write(take_over)

    def remove(self, conversation: Conversation, message_ids: Sequence[str]) -> Removed:
        """Delete messages that were deleted on the platform; a deleted post of ours takes the stored reply with it.

        As with `forget`, their words are gone from SQLite's files too, at the latest when the next are deleted.
        """
        here = MessageRow.platform == conversation.platform, MessageRow.channel == conversation.channel
        posted = PostRow.platform == conversation.platform, PostRow.channel == conversation.channel
        removed = Removed()
        for start in range(0, len(message_ids), CHUNK):
            some = message_ids[start : start + CHUNK]
            replies = select(PostRow.message_id).where(*posted, PostRow.post_id.in_(some))
            removed += self._store.delete(MessageRow.id.in_(replies))
            removed += self._store.delete(*here, MessageRow.message_id.in_(some))
        if removed != Removed():
            self._store.scrub()
        return removed

    def remove_place(self, conversation: Conversation) -> Removed:
        """Delete all that was said in a thread, or in a channel with its threads, and the channel's settings."""
        thread = conversation.thread is not None
        removed = Removed()
        for some in self._store.conversation_ids(*matching(conversation, whole_channel=not thread)):
            removed += self._store.delete(MessageRow.conversation_id.in_(some))
            with self._store.session() as session:
                left = select(MessageRow.id).where(MessageRow.conversation_id == ConversationRow.id).exists()
                session.execute(delete(ConversationRow).where(ConversationRow.id.in_(some), ~left))
        if not thread:
            with self._store.session() as session:
                chosen = channel_row(session, conversation)
                if chosen is not None:
                    session.delete(chosen)
        if removed != Removed():
            self._store.scrub()
        return removed
