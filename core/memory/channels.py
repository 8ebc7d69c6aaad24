"""What a channel chose for itself, and how long its talk is kept."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.memory.rows import (
    ChannelSettings,
    Removed,
    channel_row,
    choices,
    delete_messages,
    orphan_answers,
)
from core.memory.store import Store
from core.memory.tables import ChannelRow, ConversationRow, MessageRow
from core.messages import Conversation


class Channels(Store):
    """Settings of channels, which their threads follow, and retention."""

    def channel_settings(self, conversation: Conversation) -> ChannelSettings:
        with self._session() as session:
            row = channel_row(session, conversation)
            return choices(row) if row else ChannelSettings()

    def change_settings(self, conversation: Conversation, **change: object) -> ChannelSettings:
        """Set the named fields of ChannelSettings for a channel (its threads follow it); gives all of them."""

        def apply(session: Session) -> ChannelSettings:
            row = channel_row(session, conversation)
            if row is None:
                row = ChannelRow(platform=conversation.platform, space=conversation.space, channel=conversation.channel)
                session.add(row)
            chosen = replace(choices(row), **change)  # type: ignore[arg-type]  # a wrong name raises TypeError here
            for name, value in asdict(chosen).items():
                setattr(row, name, value)
            return chosen

        return self._write(apply)

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
