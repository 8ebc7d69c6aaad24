"""What a channel chose for itself, and how long its talk is kept."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session

from core.memory.rows import (
    ChannelSettings,
    Removed,
    channel_row,
    choices,
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
        return self._purge(~_own_retention().exists(), before)

    def purge_channels(self, *, cutoff: Mapping[int, datetime]) -> Removed:
        """Delete what is older than each channel's own retention; `cutoff` gives a moment for each number of days."""
        removed = [
            self._purge(_own_retention().where(ChannelRow.retention_days == days).exists(), before)
            for days, before in cutoff.items()
        ]
        return sum(removed, Removed())

    def retentions(self) -> set[int]:
        """The numbers of days that channels chose for themselves."""
        with self._session() as session:
            query = select(ChannelRow.retention_days).where(ChannelRow.retention_days.is_not(None)).distinct()
            return {days for days in session.scalars(query) if days is not None}

    def _purge(self, places: ColumnElement[bool], before: datetime) -> Removed:
        removed = Removed()
        for some in self._places(places):
            removed += self._delete(MessageRow.conversation_id.in_(some), MessageRow.sent_at < before)
        if removed != Removed():
            self._scrub()
        return removed


def _own_retention() -> Select[int]:
    """The settings of a conversation's channel, where they name a retention."""
    return select(ChannelRow.id).where(
        ChannelRow.platform == ConversationRow.platform,
        ChannelRow.space == ConversationRow.space,
        ChannelRow.channel == ConversationRow.channel,
        ChannelRow.retention_days.is_not(None),
    )
