"""Members: what they consented to, export of what is stored of them, and forgetting."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, aliased

from core.memory.rows import Removed
from core.memory.store import Store
from core.memory.tables import ConversationRow, FeedbackRow, MemberRow, MessageRow

PATIENCE_SECONDS = 20.0
"""How long forgetting waits for readers of SQLite's write-ahead log."""


class Members:
    """A member is (platform, id)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def consent(self, platform: str, member: str) -> bool | None:
        """Whether a member allows the bot to learn from their messages; None if they have not said."""
        with self._store.session() as session:
            return session.scalar(
                select(MemberRow.consent).where(MemberRow.platform == platform, MemberRow.member == member)
            )

    def consented(self) -> list[str]:
        """Everybody who said yes, as `platform:id`."""
        with self._store.session() as session:
            query = select(MemberRow.platform, MemberRow.member).where(MemberRow.consent.is_(True))
            return sorted(f"{row[0]}:{row[1]}" for row in session.execute(query))

    def consented_since(self) -> dict[str, datetime]:
        """`platform:id` of everybody who said yes, and since when."""
        with self._store.session() as session:
            query = select(MemberRow).where(MemberRow.consent.is_(True))
            return {f"{row.platform}:{row.member}": row.consent_at for row in session.scalars(query) if row.consent_at}

    def set_consent(self, platform: str, member: str, given: bool, at: datetime) -> None:
        """Store a member's answer; saying the same again keeps the time of the first."""

        def change(session: Session) -> None:
            row = session.scalar(select(MemberRow).where(MemberRow.platform == platform, MemberRow.member == member))
            if row is None:
                row = MemberRow(platform=platform, member=member)
                session.add(row)
            if row.consent is not given:
                row.consent, row.consent_at = given, at

        self._store.write(change)

    def find_members(self, spec: str) -> list[tuple[str, str]]:
        """Members as (platform, id): the one of `platform:id`, or all with this bare id or display name."""
        platform, colon, member = spec.partition(":")
        # One select per index; an OR would make the database read every message.
        wrote = select(MessageRow.platform, MessageRow.author).where(MessageRow.from_bot.is_(False)).distinct()
        known = select(MemberRow.platform, MemberRow.member)
        voted = select(FeedbackRow.platform, FeedbackRow.member).distinct()
        if colon:
            queries = [
                wrote.where(MessageRow.platform == platform, MessageRow.author == member),
                known.where(MemberRow.platform == platform, MemberRow.member == member),
                voted.where(FeedbackRow.platform == platform, FeedbackRow.member == member),
            ]
        else:
            queries = [
                wrote.where(MessageRow.author == spec),
                wrote.where(MessageRow.author_name == spec),
                known.where(MemberRow.member == spec),
                voted.where(FeedbackRow.member == spec),
            ]
        with self._store.session() as session:
            return sorted({(row[0], row[1]) for query in queries for row in session.execute(query)})

    def forget(self, platform: str, member: str) -> Removed:
        """Delete a member's messages, the bot's answers to them (which may repeat them), feedback and consent.

        On SQLite the freed pages are overwritten (`secure_delete`) and the write-ahead log is emptied, so that the
        words are gone from the files too; `left` says where that cannot be done yet. Runs in many short transactions,
        and may be repeated if it is interrupted.
        """
        with self._store.session() as session:  # first, so that nothing is trained on meanwhile
            session.execute(delete(MemberRow).where(MemberRow.platform == platform, MemberRow.member == member))
        removed = self._store.delete(MessageRow.platform == platform, MessageRow.author == member, with_answers=True)
        removed += self._take_back(platform, member)
        if not self._store.scrub(patience=PATIENCE_SECONDS):
            removed += Removed(
                left="The rows are deleted, but another program is reading the database, so its write-ahead log "
                "still contains the messages: close that program and forget the member again."
            )
        return removed

    def _take_back(self, platform: str, member: str) -> Removed:
        """Delete a member's votes."""

        def some(session: Session, limit: int) -> tuple[int, Removed]:
            given = select(FeedbackRow.id).where(FeedbackRow.platform == platform, FeedbackRow.member == member)
            rows = session.scalars(given.limit(limit)).all()
            session.execute(delete(FeedbackRow).where(FeedbackRow.id.in_(rows)))
            return len(rows), Removed(feedback=len(rows))

        return self._store.batches(some)

    def export(self, platform: str, member: str) -> dict[str, Any]:
        """Everything stored of a member, as JSON values: messages with the bot's answers, consent, feedback."""
        answer = aliased(MessageRow)
        with self._store.session() as session:
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
