"""The settings of channels, and how long their messages are kept."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime

from sqlalchemy import ColumnElement, Select, select, update
from sqlalchemy.orm import Session, aliased

from core.memory.rows import (
    ChannelSettings,
    Removed,
    channel_row,
    conversation_of,
    matching,
    settings_of,
)
from core.memory.store import Store
from core.memory.tables import ChannelRow, ConversationRow, MessageRow, PostRow
from core.messages import Conversation


class Channels:
    """Settings of channels, which hold for their threads too, and retention."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def channel_settings(self, conversation: Conversation) -> ChannelSettings:
        with self._store.session() as session:
            row = channel_row(session, conversation)
            return settings_of(row) if row else ChannelSettings()

    def change_settings(self, conversation: Conversation, **change: object) -> ChannelSettings:
        """Set the named fields of ChannelSettings for a channel and its threads; returns all of its settings."""

        def apply(session: Session) -> ChannelSettings:
            row = channel_row(session, conversation)
            if row is None:
                row = ChannelRow(platform=conversation.platform, space=conversation.space, channel=conversation.channel)
                session.add(row)
            chosen = replace(settings_of(row), **change)  # type: ignore[arg-type]  # a wrong name raises TypeError here
            for name, value in asdict(chosen).items():
                setattr(row, name, value)
            return chosen

        return self._store.write(apply)

    def move_channel(self, old: Conversation, channel: str) -> None:
        """Follow a channel to its new id: its messages, posts and settings belong to that one from now on.

        What is stored under both ids stays as it is under the new one.
        """

        def apply(session: Session) -> None:
            for row in session.scalars(select(ConversationRow).where(*matching(old, whole_channel=True))).all():
                where = replace(conversation_of(row), channel=channel)
                known = session.scalar(select(ConversationRow).where(ConversationRow.key == where.key))
                if known is None:
                    row.channel, row.key = channel, where.key
                else:
                    here = MessageRow.conversation_id == row.id
                    session.execute(update(MessageRow).where(here).values(conversation_id=known.id, epoch=known.epoch))
                    session.delete(row)
                session.flush()
            said, posted = aliased(MessageRow), aliased(PostRow)
            stored_twice = select(said.id).where(
                said.platform == old.platform, said.channel == channel, said.message_id == MessageRow.message_id
            )
            posted_twice = select(posted.id).where(
                posted.platform == old.platform, posted.channel == channel, posted.post_id == PostRow.post_id
            )
            session.execute(
                update(MessageRow)
                .where(MessageRow.platform == old.platform, MessageRow.channel == old.channel, ~stored_twice.exists())
                .values(channel=channel)
                .execution_options(synchronize_session=False)
            )
            session.execute(
                update(PostRow)
                .where(PostRow.platform == old.platform, PostRow.channel == old.channel, ~posted_twice.exists())
                .values(channel=channel)
                .execution_options(synchronize_session=False)
            )
            chosen = channel_row(session, old)
            if chosen is not None and channel_row(session, replace(old, channel=channel)) is None:
                chosen.channel = channel

        self._store.write(apply)

    def purge(self, *, before: datetime) -> Removed:
        """Delete messages older than the operator's retention, except in channels with a retention of their own."""
        return self._purge(~_own_retention().exists(), before)

    def purge_channels(self, *, cutoff: Mapping[int, datetime]) -> Removed:
        """Delete what is older than each channel's own retention; `cutoff` gives a time for each number of days."""
        removed = [
            self._purge(_own_retention().where(ChannelRow.retention_days == days).exists(), before)
            for days, before in cutoff.items()
        ]
        return sum(removed, Removed())

    def retentions(self) -> set[int]:
        """The retentions, in days, that channels have set."""
        with self._store.session() as session:
            query = select(ChannelRow.retention_days).where(ChannelRow.retention_days.is_not(None)).distinct()
            return {days for days in session.scalars(query) if days is not None}

    def _purge(self, conversations: ColumnElement[bool], before: datetime) -> Removed:
        removed = Removed()
        for some in self._store.conversation_ids(conversations):
            removed += self._store.delete(MessageRow.conversation_id.in_(some), MessageRow.sent_at < before)
        if removed != Removed():
            self._store.scrub()
        return removed


def _own_retention() -> Select[int]:
    """The settings of a conversation's channel, where they name a retention."""
    return select(ChannelRow.id).where(
        ChannelRow.platform == ConversationRow.platform,
        ChannelRow.space == ConversationRow.space,
        ChannelRow.channel == ConversationRow.channel,
        ChannelRow.retention_days.is_not(None),
    )
