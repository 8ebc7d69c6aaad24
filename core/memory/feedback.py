"""Members' feedback on replies: stored, counted, and read for training."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session, aliased

from core.memory.rows import CHUNK, JudgedQuestion, conversation_of_message, post_row, remembered
from core.memory.store import Store
from core.memory.tables import ChannelRow, ConversationRow, FeedbackRow, MessageRow
from core.messages import Conversation

WINDOW = 20
"""Messages before a judged question: as many as fit into a small model's prompt."""


class Feedback:
    """👍 and 👎, one per member and reply."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def feedback(
        self,
        conversation: Conversation,
        post: str,
        member: str | None,
        liked: bool | None,
        at: datetime,
        *,
        was: bool | None = None,
    ) -> bool:
        """Store a member's 👍 (True) or 👎 (False) on a post of ours, or take it back (None). False if not our post.

        With `was` only that one is taken back: a member who changed 👍 to 👎 and then removes the 👍 keeps the 👎.
        Without a member everybody's are taken back.
        """

        def vote(session: Session) -> bool:
            found = post_row(session, conversation, post)
            if found is None:
                return False
            taken = [FeedbackRow.message_id == found.message_id, FeedbackRow.platform == conversation.platform]
            if member is not None:
                taken.append(FeedbackRow.member == member)
            if liked is None and was is not None:
                taken.append(FeedbackRow.liked.is_(was))
            session.execute(delete(FeedbackRow).where(*taken))
            if liked is not None and member is not None:
                session.add(
                    FeedbackRow(
                        message_id=found.message_id,
                        platform=conversation.platform,
                        member=member,
                        liked=liked,
                        given_at=at,
                    )
                )
            return True

        return self._store.write(vote)

    def feedback_counts(self, platform: str, space: str | None = None) -> tuple[int, int]:
        """How many 👍 and 👎 were given, on a platform or in one of its spaces."""
        with self._store.session() as session:
            query = select(FeedbackRow.liked, func.count()).where(FeedbackRow.platform == platform)
            if space is not None:
                query = (
                    query.join(MessageRow, MessageRow.id == FeedbackRow.message_id)
                    .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
                    .where(ConversationRow.space == space)
                )
            counts = {row[0]: row[1] for row in session.execute(query.group_by(FeedbackRow.liked))}
            return counts.get(True, 0), counts.get(False, 0)

    def judgements(self, adapter: str | None, since: datetime) -> tuple[int, int]:
        """How many answers of an adapter (None for the bare base) since then were liked, and how many disliked.

        A dislike outweighs likes, and a replaced answer counts as disliked. Channels with an adapter of their own do
        not count: their admins chose it.
        """
        liked, disliked = (
            select(FeedbackRow.id).where(FeedbackRow.message_id == MessageRow.id, FeedbackRow.liked.is_(good)).exists()
            for good in (True, False)
        )
        own_adapter = select(ChannelRow.id).where(
            ChannelRow.platform == ConversationRow.platform,
            ChannelRow.space == ConversationRow.space,
            ChannelRow.channel == ConversationRow.channel,
            ChannelRow.voice.is_not(None),
        )
        bad = or_(MessageRow.replaced, disliked)
        query = (
            select(func.count().filter(liked, ~bad), func.count().filter(bad))
            .select_from(MessageRow)
            .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
            .where(
                MessageRow.from_bot.is_(True),
                MessageRow.sent_at >= since,
                MessageRow.adapter.is_(None) if adapter is None else MessageRow.adapter == adapter,
                ~own_adapter.exists(),
            )
        )
        with self._store.session() as session:
            good_ones, bad_ones = session.execute(query).one()
            return good_ones, bad_ones

    def judged(self) -> tuple[list[str], list[str]]:
        """Message ids of the bot's replies that members liked, and that they disliked; one dislike outweighs likes."""
        with self._store.session() as session:
            query = select(MessageRow.message_id, func.count(FeedbackRow.id).filter(FeedbackRow.liked.is_(False))).join(
                FeedbackRow, FeedbackRow.message_id == MessageRow.id
            )
            rows = session.execute(query.group_by(MessageRow.message_id)).all()
            return [row[0] for row in rows if not row[1]], [row[0] for row in rows if row[1]]

    def questions(self, replies: Sequence[str]) -> frozenset[str]:
        """Message ids of what these replies (by message id) answered."""
        question = aliased(MessageRow)
        found: set[str] = set()
        with self._store.session() as session:
            for start in range(0, len(replies), CHUNK):
                query = (
                    select(question.message_id)
                    .join(MessageRow, MessageRow.answers == question.id)
                    .where(MessageRow.message_id.in_(replies[start : start + CHUNK]))
                )
                found.update(session.scalars(query))
        return frozenset(found)

    def judged_questions(self, *, window: int = WINDOW) -> Iterator[JudgedQuestion]:
        """Every question with one answer that was liked and one that was not, oldest first, each with at most `window`
        messages before it."""
        with self._store.session() as session:
            likes, dislikes = (
                func.count(FeedbackRow.id).filter(FeedbackRow.liked.is_(liked)) for liked in (True, False)
            )
            rows = session.execute(
                select(MessageRow.answers, MessageRow.text, MessageRow.replaced, likes, dislikes)
                .outerjoin(FeedbackRow, FeedbackRow.message_id == MessageRow.id)
                .where(MessageRow.answers.is_not(None), MessageRow.from_bot.is_(True))
                .group_by(MessageRow.id)
                .order_by(MessageRow.answers, MessageRow.id)
            ).all()
            for question, answers in groupby(rows, key=lambda row: row[0]):
                liked, others = list[str](), list[str]()
                for _, text, replaced, up, down in answers:
                    if up and not down:
                        liked.append(text)
                    elif down or replaced:
                        others.append(text)
                asked = session.get(MessageRow, question) if liked and others else None
                if asked is not None:
                    where = conversation_of_message(session, asked)
                    before = session.scalars(
                        select(MessageRow)
                        .where(
                            MessageRow.conversation_id == asked.conversation_id,
                            MessageRow.epoch == asked.epoch,
                            MessageRow.place < asked.place,
                            MessageRow.replaced.is_(False),
                        )
                        .order_by(MessageRow.place.desc(), MessageRow.id.desc())
                        .limit(window)
                    ).all()
                    yield JudgedQuestion(
                        question=remembered(asked, where).message,
                        before=tuple(remembered(row, where).message for row in reversed(before)),
                        liked=tuple(liked),
                        others=tuple(others),
                    )
