"""Questions to the bot, and the state of their answers: posted, still owed, replaced, or never seen by anybody."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session, aliased

from core.memory.rows import Remembered, Unanswered, conversation_of_message, delete_messages, matching, remembered
from core.memory.store import Store
from core.memory.tables import ConversationRow, MessageRow, PostRow, QuestionRow
from core.messages import Conversation

MAX_TRIES = 5
"""Processes that may end while they answer one question after a restart: the question may be what ends them, but far
more often somebody restarted the bot again."""


class Questions:
    """Messages that are, or were, to be answered, by their rows."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def ask(self, row: int, why: str) -> None:
        """A stored message is to be answered after all; its answer is owed from now on."""

        def owe(session: Session) -> None:
            if session.get(MessageRow, row) is not None and session.get(QuestionRow, row) is None:
                session.add(QuestionRow(message_id=row, why=why, owed=1))

        self._store.write(owe)

    def settle(self, question: int) -> None:
        """No answer is owed any more: it was posted, or its asker was told why not."""
        with self._store.session() as session:
            session.execute(update(QuestionRow).where(QuestionRow.message_id == question).values(owed=0))

    def newest_row(self) -> int:
        """The row of what was stored last; 0 where nothing is."""
        with self._store.session() as session:
            return session.scalar(select(func.max(MessageRow.id))) or 0

    def unanswered(self, platform: str, *, since: datetime, until: int, command: str) -> list[Unanswered]:
        """Questions of a platform, up to row `until`, whose answers an earlier process owed when it ended; those
        that were tried least come first, then the oldest.

        Those said before `since` are given up, as are those that `MAX_TRIES` processes have taken on.
        `command` is the rule of those asked by command.
        """
        with self._store.session() as session:
            rows = session.execute(
                select(MessageRow, QuestionRow)
                .join(QuestionRow, QuestionRow.message_id == MessageRow.id)
                .where(QuestionRow.owed > 0, MessageRow.platform == platform, MessageRow.id <= until)
                .order_by(QuestionRow.owed, MessageRow.id)
            ).all()
            found: list[Unanswered] = []
            for said, question in rows:
                if question.owed <= MAX_TRIES and said.sent_at >= since:
                    message = remembered(said, conversation_of_message(session, said)).message
                    found.append(Unanswered(row=said.id, message=message, by_command=question.why == command))
                else:
                    question.owed = 0
                    delete_messages(session, self._unseen(session, said.id))
            return found

    def take_on(self, question: int) -> None:
        """Count that this process begins to answer a question of an earlier one."""
        with self._store.session() as session:
            owed = QuestionRow.owed
            session.execute(
                update(QuestionRow).where(QuestionRow.message_id == question, owed > 0).values(owed=owed + 1)
            )

    def _unseen(self, session: Session, question: int) -> Sequence[int]:
        """Replies to a question that were composed and never posted."""
        posted = exists().where(PostRow.message_id == MessageRow.id)
        return session.scalars(
            select(MessageRow.id).where(MessageRow.answers == question, MessageRow.from_bot.is_(True), ~posted)
        ).all()

    def question_of(self, conversation: Conversation, post: str) -> Remembered | None:
        """The question that the reply posted as `post` answers; None if that is no reply of ours, or a replaced one."""
        with self._store.session() as session:
            reply = aliased(MessageRow)
            found = session.scalar(
                select(MessageRow)
                .join(reply, reply.answers == MessageRow.id)
                .join(PostRow, PostRow.message_id == reply.id)
                .where(
                    reply.replaced.is_(False),
                    PostRow.platform == conversation.platform,
                    PostRow.channel == conversation.channel,
                    PostRow.post_id == post,
                )
            )
            return remembered(found, conversation_of_message(session, found)) if found else None

    def newest_question(
        self, conversation: Conversation, *, author: str | None = None, whole_channel: bool = False
    ) -> Remembered | None:
        """The newest question since the last reset, of one member or of anybody; with `whole_channel` also in the
        channel's threads."""
        with self._store.session() as session:
            query = (
                select(MessageRow)
                .join(QuestionRow, QuestionRow.message_id == MessageRow.id)
                .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
                .where(*matching(conversation, whole_channel=whole_channel), MessageRow.epoch == ConversationRow.epoch)
                .order_by(MessageRow.id.desc())
                .limit(1)
            )
            if author is not None:
                query = query.where(MessageRow.author == author)
            found = session.scalar(query)
            return remembered(found, conversation_of_message(session, found)) if found else None

    def live_reply(self, question: int) -> tuple[Remembered, tuple[str, ...]] | None:
        """The current reply to a question and the ids of its posts; None where there is none."""
        with self._store.session() as session:
            reply = session.scalar(
                select(MessageRow)
                .where(MessageRow.answers == question, MessageRow.from_bot.is_(True), MessageRow.replaced.is_(False))
                .order_by(MessageRow.id.desc())
                .limit(1)
            )
            if reply is None:
                return None
            posts = session.scalars(select(PostRow.post_id).where(PostRow.message_id == reply.id).order_by(PostRow.id))
            return remembered(reply, conversation_of_message(session, reply)), tuple(posts)

    def withdraw(self, reply: int, *, restored: int | None = None) -> None:
        """Delete a reply that nobody saw, which is owed no more; the one that it had replaced is `restored`."""
        with self._store.session() as session:
            found = session.get(MessageRow, reply)
            if found is None or session.scalar(select(exists().where(PostRow.message_id == reply))):
                return
            session.execute(update(QuestionRow).where(QuestionRow.message_id == found.answers).values(owed=0))
            delete_messages(session, [reply])
            if restored is not None:
                session.execute(update(MessageRow).where(MessageRow.id == restored).values(replaced=False))
