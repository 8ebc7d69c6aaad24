"""Remember, recall, forget: every question the bot asks its database. Raises StorageError, nothing of SQLAlchemy's."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, aliased, sessionmaker

from core.errors import StorageError
from core.memory.rows import (
    CHUNK,
    PERSON2,
    ChannelSettings,
    Remembered,
    Removed,
    channel_row,
    choices,
    conversation_of,
    conversation_row,
    delete_messages,
    matching,
    orphan_answers,
    place_of,
    post_row,
    remembered,
)
from core.memory.tables import ChannelRow, ConversationRow, FeedbackRow, MemberRow, MessageRow, PostRow
from core.messages import Conversation, Message

RACES = 5
"""How often a write that lost a race with another worker is tried again."""


class Memory:
    """Open with `open_memory`. Safe to use from several threads; each call is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sessions = sessionmaker(engine, expire_on_commit=False)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def borrowed(self) -> Iterator[Engine]:
        """The engine, for a library that keeps tables of its own in this database (migrations make them too); what
        fails within becomes StorageError."""
        try:
            yield self._engine
        except SQLAlchemyError as error:
            raise StorageError(storage_sentence(error)) from error

    @contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            with self._sessions.begin() as session:
                yield session
        except SQLAlchemyError as error:
            raise StorageError(storage_sentence(error)) from error

    # Hearing

    def remember(self, message: Message) -> int | None:
        """Store what was said; the new row, or None if this message is already stored (redelivered)."""
        for _ in range(RACES):
            try:
                with self._sessions.begin() as session:
                    return self._insert(session, message)
            except IntegrityError as error:
                # Another worker stored the same event, or opened the same conversation, between our look and our
                # insert: look again.
                failure: SQLAlchemyError = error
            except SQLAlchemyError as error:
                raise StorageError(storage_sentence(error)) from error
        raise StorageError(storage_sentence(failure)) from failure

    def _insert(self, session: Session, message: Message) -> int | None:
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
        return row.id

    def remember_reply(
        self,
        text: str,
        *,
        answers: int,
        sent_at: datetime,
        adapter: str | None,
        details: Mapping[str, str | int | float],
        replaces: int | None = None,
    ) -> int | None:
        """Store what Person2 says in answer to row `answers`; the row, or None if the question was deleted meanwhile.

        `replaces` is the row of an earlier answer that this one takes the place of.
        """
        with self._session() as session:
            question = session.get(MessageRow, answers)
            if question is None:
                return None
            if replaces is not None:
                session.execute(update(MessageRow).where(MessageRow.id == replaces).values(replaced=True))
            row = MessageRow(
                conversation_id=question.conversation_id,
                platform=question.platform,
                channel=question.channel,
                message_id=f"{PERSON2}-{secrets.token_hex(8)}",
                epoch=question.epoch,
                place=question.place,
                author=PERSON2,
                author_name="Person2",
                text=text,
                sent_at=sent_at,
                from_bot=True,
                reply_to=question.message_id,
                answers=answers,
                adapter=adapter,
                details=dict(details),
            )
            session.add(row)
            session.flush()
            return row.id

    def posted(self, row: int, conversation: Conversation, posts: Sequence[str]) -> None:
        """Note the platform's ids of a posted reply. Ids already noted stay, but for those of a replaced answer: the
        new one was put in its place by editing the post."""
        with self._session() as session:
            if session.get(MessageRow, row) is None:
                return
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

    # Recalling

    def window(self, conversation: Conversation, *, limit: int, until: int | None = None) -> list[Remembered]:
        """The newest `limit` messages since the last reset, oldest first; up to and with row `until` and no later.

        An answer stands right after its question, whenever it was finished; replaced answers are left out.
        """
        with self._session() as session:
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
        with self._session() as session:
            found: list[MessageRow] = []
            current = session.get(MessageRow, row)
            epoch = current.epoch if current else 0
            while current is not None and len(found) < limit and current.epoch == epoch and current not in found:
                found.append(current)
                current = self._answered(session, current)
            return [remembered(each, place_of(session, each)) for each in reversed(found)]

    def _answered(self, session: Session, row: MessageRow) -> MessageRow | None:
        if row.answers is not None:
            return session.get(MessageRow, row.answers)
        if row.reply_to is None:
            return None
        said = select(MessageRow).where(
            MessageRow.platform == row.platform,
            MessageRow.channel == row.channel,
            MessageRow.message_id == row.reply_to,
        )
        posted = (
            select(MessageRow)
            .join(PostRow, PostRow.message_id == MessageRow.id)
            .where(PostRow.platform == row.platform, PostRow.channel == row.channel, PostRow.post_id == row.reply_to)
        )
        return session.scalar(said) or session.scalar(posted)

    def last_reply(
        self, conversation: Conversation, post: str | None = None, *, whole_channel: bool = False
    ) -> tuple[Remembered, int, tuple[str, ...]] | None:
        """The question, the reply's row and its post ids: of `post`, or of the newest reply since the last reset, with
        `whole_channel` in the channel's threads too."""
        question = aliased(MessageRow)
        with self._session() as session:
            query = (
                select(MessageRow, question)
                .join(question, question.id == MessageRow.answers)
                .where(MessageRow.from_bot.is_(True), MessageRow.replaced.is_(False))
            )
            if post is not None:
                query = query.join(PostRow, PostRow.message_id == MessageRow.id).where(
                    PostRow.platform == conversation.platform,
                    PostRow.channel == conversation.channel,
                    PostRow.post_id == post,
                )
            else:
                query = query.join(ConversationRow, ConversationRow.id == MessageRow.conversation_id).where(
                    *matching(conversation, whole_channel=whole_channel), MessageRow.epoch == ConversationRow.epoch
                )
            pair = session.execute(query.order_by(MessageRow.place.desc(), MessageRow.id.desc()).limit(1)).first()
            if pair is None:
                return None
            reply, asked = pair[0], pair[1]
            posts = session.scalars(select(PostRow.post_id).where(PostRow.message_id == reply.id).order_by(PostRow.id))
            return remembered(asked, place_of(session, asked)), reply.id, tuple(posts)

    def root(self, conversation: Conversation) -> Remembered | None:
        """The message or post of the channel that a thread hangs from (its id is the thread's), where it is stored
        and the thread was not reset."""
        with self._session() as session:
            thread = session.scalar(select(ConversationRow).where(ConversationRow.key == conversation.key))
            if thread is None or thread.epoch > 0:
                return None
            said = select(MessageRow).where(
                MessageRow.platform == conversation.platform,
                MessageRow.channel == conversation.channel,
                MessageRow.message_id == conversation.thread,
            )
            posted = (
                select(MessageRow)
                .join(PostRow, PostRow.message_id == MessageRow.id)
                .where(
                    PostRow.platform == conversation.platform,
                    PostRow.channel == conversation.channel,
                    PostRow.post_id == conversation.thread,
                )
            )
            found = session.scalar(said) or session.scalar(posted)
            return remembered(found, place_of(session, found)) if found else None

    def reply_of(self, conversation: Conversation, post: str) -> int | None:
        """The row of the reply posted as `post`; None if that is not a post of ours."""
        with self._session() as session:
            found = post_row(session, conversation, post)
            return found.message_id if found else None

    def details(self, row: int) -> dict[str, str | int | float]:
        """How a reply was made (for “why?”); empty for an unknown row."""
        with self._session() as session:
            found = session.get(MessageRow, row)
            return dict(found.details or {}) if found else {}

    def texts(self, rows: Sequence[int]) -> list[str]:
        with self._session() as session:
            return list(session.scalars(select(MessageRow.text).where(MessageRow.id.in_(rows))))

    def in_thread(self, conversation: Conversation) -> bool:
        """Whether the bot has spoken in this conversation: then it takes part in the thread."""
        with self._session() as session:
            query = (
                select(MessageRow.id)
                .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
                .where(ConversationRow.key == conversation.key, MessageRow.from_bot.is_(True))
                .limit(1)
            )
            return session.scalar(query) is not None

    # Changing

    def reset(self, conversation: Conversation, *, whole_channel: bool = False) -> None:
        """Start a new epoch, with `whole_channel` in the channel's threads too: what was said stays stored but is no
        longer context."""
        with self._session() as session:
            conversation_row(session, conversation)
            here = matching(conversation, whole_channel=whole_channel)
            session.execute(update(ConversationRow).where(*here).values(epoch=ConversationRow.epoch + 1))

    def edit(self, conversation: Conversation, message_id: str, text: str) -> bool:
        """Take over an edited message; False if it is not stored."""
        with self._session() as session:
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

    def remove(self, conversation: Conversation, message_ids: Sequence[str]) -> Removed:
        """Delete messages that were deleted on the platform; a deleted post of ours takes the stored reply with it."""
        with self._session() as session:
            said = session.scalars(
                select(MessageRow.id).where(
                    MessageRow.platform == conversation.platform,
                    MessageRow.channel == conversation.channel,
                    MessageRow.message_id.in_(message_ids),
                )
            ).all()
            posted = session.scalars(
                select(PostRow.message_id).where(
                    PostRow.platform == conversation.platform,
                    PostRow.channel == conversation.channel,
                    PostRow.post_id.in_(message_ids),
                )
            ).all()
            delete_messages(session, posted)
            orphan_answers(session, said)
            delete_messages(session, said)
            return Removed(messages=len(said), replies=len(set(posted)))

    def remove_place(self, conversation: Conversation) -> Removed:
        """Delete all that was said in a thread, or in a channel with its threads, and the channel's settings."""
        thread = conversation.thread is not None
        with self._session() as session:
            places = session.scalars(
                select(ConversationRow.id).where(*matching(conversation, whole_channel=not thread))
            ).all()
            said = session.execute(
                select(MessageRow.id, MessageRow.from_bot).where(MessageRow.conversation_id.in_(places))
            ).all()
            rows = [row.id for row in said]
            orphan_answers(session, rows)
            delete_messages(session, rows)
            session.execute(delete(ConversationRow).where(ConversationRow.id.in_(places)))
            chosen = None if thread else channel_row(session, conversation)
            if chosen is not None:
                session.delete(chosen)
        if rows:
            self._scrub()
        replies = sum(row.from_bot for row in said)
        return Removed(messages=len(said) - replies, replies=replies)

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

        With `was` only that one is taken back: who changed 👍 to 👎 and then removes the 👍 keeps the 👎. Without a
        member everybody's are taken back.
        """
        with self._session() as session:
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

    def feedback_counts(self, platform: str, space: str | None = None) -> tuple[int, int]:
        """How many 👍 and 👎 were given, on a platform or in one of its spaces."""
        with self._session() as session:
            query = select(FeedbackRow.liked, func.count()).where(FeedbackRow.platform == platform)
            if space is not None:
                query = (
                    query.join(MessageRow, MessageRow.id == FeedbackRow.message_id)
                    .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
                    .where(ConversationRow.space == space)
                )
            counts = {row[0]: row[1] for row in session.execute(query.group_by(FeedbackRow.liked))}
            return counts.get(True, 0), counts.get(False, 0)

    # Members

    def consent(self, platform: str, member: str) -> bool | None:
        """Whether a member said that the bot may learn from their words; None if they never said."""
        with self._session() as session:
            return session.scalar(
                select(MemberRow.consent).where(MemberRow.platform == platform, MemberRow.member == member)
            )

    def find_members(self, spec: str) -> list[tuple[str, str]]:
        """Members as (platform, id): of `platform:id`, or everywhere of a bare id or of a name as they show it."""
        platform, colon, member = spec.partition(":")
        with self._session() as session:
            wrote = select(MessageRow.platform, MessageRow.author).where(MessageRow.from_bot.is_(False)).distinct()
            known = select(MemberRow.platform, MemberRow.member).distinct()
            voted = select(FeedbackRow.platform, FeedbackRow.member).distinct()
            if colon:
                wrote = wrote.where(MessageRow.platform == platform, MessageRow.author == member)
                known = known.where(MemberRow.platform == platform, MemberRow.member == member)
                voted = voted.where(FeedbackRow.platform == platform, FeedbackRow.member == member)
            else:
                wrote = wrote.where(or_(MessageRow.author == spec, MessageRow.author_name == spec))
                known = known.where(MemberRow.member == spec)
                voted = voted.where(FeedbackRow.member == spec)
            found = {(row[0], row[1]) for query in (wrote, known, voted) for row in session.execute(query)}
            return sorted(found)

    def consented(self) -> list[str]:
        """Everybody who said yes, as `platform:id`."""
        with self._session() as session:
            query = select(MemberRow.platform, MemberRow.member).where(MemberRow.consent.is_(True))
            return sorted(f"{row[0]}:{row[1]}" for row in session.execute(query))

    def judged(self) -> tuple[list[str], list[str]]:
        """Message ids of the bot's replies that members liked, and that they disliked; one dislike outweighs likes."""
        with self._session() as session:
            query = select(MessageRow.message_id, func.count(FeedbackRow.id).filter(FeedbackRow.liked.is_(False))).join(
                FeedbackRow, FeedbackRow.message_id == MessageRow.id
            )
            rows = session.execute(query.group_by(MessageRow.message_id)).all()
            return [row[0] for row in rows if not row[1]], [row[0] for row in rows if row[1]]

    def questions(self, replies: Sequence[str]) -> frozenset[str]:
        """Message ids of what these replies (by message id) answered."""
        question = aliased(MessageRow)
        found: set[str] = set()
        with self._session() as session:
            for start in range(0, len(replies), CHUNK):
                query = (
                    select(question.message_id)
                    .join(MessageRow, MessageRow.answers == question.id)
                    .where(MessageRow.message_id.in_(replies[start : start + CHUNK]))
                )
                found.update(session.scalars(query))
        return frozenset(found)

    def set_consent(self, platform: str, member: str, given: bool, at: datetime) -> None:
        with self._session() as session:
            row = session.scalar(select(MemberRow).where(MemberRow.platform == platform, MemberRow.member == member))
            if row is None:
                row = MemberRow(platform=platform, member=member)
                session.add(row)
            row.consent, row.consent_at = given, at

    def forget(self, platform: str, member: str) -> Removed:
        """Delete a member's messages, the bot's answers to them (they may repeat them), feedback and consent.

        On SQLite the freed pages are overwritten (`secure_delete`) and the write-ahead log is emptied, so that the
        words are gone from the files too.
        """
        with self._session() as session:
            said = session.scalars(
                select(MessageRow.id).where(MessageRow.platform == platform, MessageRow.author == member)
            ).all()
            answers = session.scalars(select(MessageRow.id).where(MessageRow.answers.in_(said))).all()
            delete_messages(session, answers)
            delete_messages(session, said)
            given = session.execute(
                delete(FeedbackRow)
                .where(FeedbackRow.platform == platform, FeedbackRow.member == member)
                .returning(FeedbackRow.id)
            ).all()
            session.execute(delete(MemberRow).where(MemberRow.platform == platform, MemberRow.member == member))
        self._scrub()
        return Removed(messages=len(said), replies=len(answers), feedback=len(given))

    def export(self, platform: str, member: str) -> dict[str, Any]:
        """Everything stored of a member, ready for JSON: messages with the bot's answers, consent, feedback."""
        answer = aliased(MessageRow)
        with self._session() as session:
            rows = session.execute(
                select(MessageRow, ConversationRow.key, answer.text)
                .join(ConversationRow, ConversationRow.id == MessageRow.conversation_id)
                .outerjoin(answer, answer.answers == MessageRow.id)
                .where(MessageRow.platform == platform, MessageRow.author == member)
                .order_by(MessageRow.id)
            ).all()
            messages: dict[int, dict[str, Any]] = {}
            for said, key, answered in rows:
                entry = messages.setdefault(
                    said.id,
                    {
                        "conversation": key,
                        "id": said.message_id,
                        "name": said.author_name,
                        "sent_at": said.sent_at.isoformat(),
                        "text": said.text,
                        "answers": [],
                    },
                )
                if answered is not None:
                    entry["answers"].append(answered)
            known = session.scalar(select(MemberRow).where(MemberRow.platform == platform, MemberRow.member == member))
            given = session.execute(
                select(FeedbackRow.liked, FeedbackRow.given_at, MessageRow.text)
                .join(MessageRow, MessageRow.id == FeedbackRow.message_id)
                .where(FeedbackRow.platform == platform, FeedbackRow.member == member)
                .order_by(FeedbackRow.id)
            ).all()
            return {
                "platform": platform,
                "member": member,
                "consent": known.consent if known else None,
                "consent_at": known.consent_at.isoformat() if known and known.consent_at else None,
                "messages": list(messages.values()),
                "feedback": [{"liked": liked, "given_at": at.isoformat(), "reply": text} for liked, at, text in given],
            }

    # Channels

    def channel_settings(self, conversation: Conversation) -> ChannelSettings:
        with self._session() as session:
            row = channel_row(session, conversation)
            return choices(row) if row else ChannelSettings()

    def change_settings(self, conversation: Conversation, **change: object) -> ChannelSettings:
        """Set the named fields of ChannelSettings for a channel (its threads follow it); gives all of them."""
        with self._session() as session:
            row = channel_row(session, conversation)
            if row is None:
                row = ChannelRow(platform=conversation.platform, space=conversation.space, channel=conversation.channel)
                session.add(row)
            chosen = replace(choices(row), **change)  # type: ignore[arg-type]  # a wrong name raises TypeError here
            for name, value in asdict(chosen).items():
                setattr(row, name, value)
            return chosen

    # Learning and retention

    def everything(self, *, batch: int = 1000) -> Iterator[Remembered]:
        """Every stored message but replaced replies, oldest first, in flat memory; `person2 import log` reads this."""
        last = 0
        while True:
            with self._session() as session:
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

    def purge(self, *, before: datetime) -> Removed:
        """Delete messages older than the operator's retention, except in channels with a retention of their own."""
        own = (
            select(ChannelRow.id)
            .where(
                ChannelRow.platform == ConversationRow.platform,
                ChannelRow.space == ConversationRow.space,
                ChannelRow.channel == ConversationRow.channel,
                ChannelRow.retention_days.is_not(None),
            )
            .exists()
        )
        places = select(ConversationRow.id).where(~own)
        return self._purge(MessageRow.conversation_id.in_(places), MessageRow.sent_at < before)

    def purge_channels(self, *, cutoff: Mapping[int, datetime]) -> Removed:
        """Delete what is older than each channel's own retention; `cutoff` gives a moment for each number of days."""
        total = Removed(messages=0, replies=0)
        for days, before in cutoff.items():
            places = (
                select(ConversationRow.id)
                .join(
                    ChannelRow,
                    (ChannelRow.platform == ConversationRow.platform)
                    & (ChannelRow.space == ConversationRow.space)
                    & (ChannelRow.channel == ConversationRow.channel),
                )
                .where(ChannelRow.retention_days == days)
            )
            removed = self._purge(MessageRow.conversation_id.in_(places), MessageRow.sent_at < before)
            total = Removed(messages=total.messages + removed.messages, replies=total.replies + removed.replies)
        return total

    def retentions(self) -> set[int]:
        """The numbers of days that channels chose for themselves."""
        with self._session() as session:
            query = select(ChannelRow.retention_days).where(ChannelRow.retention_days.is_not(None)).distinct()
            return {days for days in session.scalars(query) if days is not None}

    def _purge(self, *conditions: Any) -> Removed:
        with self._session() as session:
            rows = session.execute(select(MessageRow.id, MessageRow.from_bot).where(*conditions)).all()
            orphan_answers(session, [row.id for row in rows])
            delete_messages(session, [row.id for row in rows])
        if rows:
            self._scrub()
        replies = sum(1 for row in rows if row.from_bot)
        return Removed(messages=len(rows) - replies, replies=replies)

    def _scrub(self) -> None:
        """Empty SQLite's write-ahead log, which still holds deleted words; best effort beside busy readers."""
        if self._engine.dialect.name != "sqlite":
            return
        try:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        except SQLAlchemyError as error:
            raise StorageError(storage_sentence(error)) from error


def storage_sentence(error: SQLAlchemyError) -> str:
    """What a person can do about a database error; the statement and its values (people's words) are left out."""
    cause = str(getattr(error, "orig", None) or error.__class__.__name__).splitlines()[0]
    if "locked" in cause:
        return "The database is locked by another program; close it and try again."
    if "readonly" in cause or "read-only" in cause or "permission denied" in cause.lower():
        return "The database cannot be written: check the permissions of DATABASE_URL or PERSON2_HOME."
    if "full" in cause:
        return "The database cannot grow: the disk is full; free some space and try again."
    return f"The database failed ({cause}); check DATABASE_URL."
