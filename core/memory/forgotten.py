"""What is kept of members who were forgotten: hashes of their ids and of their names, which callers compute."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from core.memory.store import Store
from core.memory.tables import ForgottenRow, MessageRow

USES = 2_000
"""Newest messages that decide whether a name is also a word."""


class ForgottenMembers:
    def __init__(self, store: Store) -> None:
        self._store = store

    def keep_forgotten(self, platform: str, member: str, names: Mapping[str, bool], at: datetime) -> None:
        """Store the digest of a member who is being forgotten and those of their names, each with whether it is an
        everyday word."""

        def keep(session: Session) -> None:
            for digest, everyday in {member: None, **names}.items():
                row = session.scalar(
                    select(ForgottenRow).where(ForgottenRow.platform == platform, ForgottenRow.digest == digest)
                )
                if row is None:
                    row = ForgottenRow(platform=platform, digest=digest)
                    session.add(row)
                row.everyday, row.forgotten_at = everyday, at

        self._store.write(keep)

    def forgotten_names(self, platform: str) -> dict[str, bool]:
        """The digests of names, each with whether it is an everyday word."""
        with self._store.session() as session:
            query = select(ForgottenRow.digest, ForgottenRow.everyday).where(ForgottenRow.platform == platform)
            return {row.digest: row.everyday for row in session.execute(query) if row.everyday is not None}

    def forgotten_members(self, platform: str) -> dict[str, datetime]:
        """The digests of members, each with when they were forgotten last."""
        with self._store.session() as session:
            query = select(ForgottenRow).where(ForgottenRow.platform == platform, ForgottenRow.everyday.is_(None))
            return {row.digest: row.forgotten_at for row in session.scalars(query)}

    def names_of(self, platform: str, member: str) -> list[str]:
        """The names under which a member's messages are stored."""
        mine = (MessageRow.platform == platform, MessageRow.author == member, MessageRow.from_bot.is_(False))
        with self._store.session() as session:
            return list(session.scalars(select(MessageRow.author_name).where(*mine).distinct()))

    def author_names(self, platform: str) -> list[str]:
        """The names of all members with stored messages."""
        theirs = (MessageRow.platform == platform, MessageRow.from_bot.is_(False))
        with self._store.session() as session:
            return list(session.scalars(select(MessageRow.author_name).where(*theirs).distinct()))

    def texts_with(self, word: str, *, without: str) -> list[str]:
        """The newest messages of others than the member `without`, the bot among them, that may contain a word."""
        spelt = {word, word.capitalize(), word.upper()}  # SQLite ignores the case of ASCII letters only
        query = (
            select(MessageRow.text)
            .where(or_(*(MessageRow.text.contains(each, autoescape=True) for each in spelt)))
            .where(MessageRow.author != without)
            .order_by(MessageRow.id.desc())
            .limit(USES)
        )
        with self._store.session() as session:
            return list(session.scalars(query))
