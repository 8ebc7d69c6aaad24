"""The database behind memory: sessions, what a fault is called, and emptying the files of what was deleted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.errors import StorageError

T = TypeVar("T")

RACES = 5
"""How often a write that lost a race with another worker is tried again."""


class Store:
    """Safe to use from several threads; each call is one transaction."""

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

    def _write(self, work: Callable[[Session], T]) -> T:
        """One transaction of a look and a write that depends on it, tried again where another worker came in between:
        stored the same message, opened the same conversation, deleted the question."""
        for _ in range(RACES):
            try:
                with self._sessions.begin() as session:
                    return work(session)
            except IntegrityError as error:
                failure: SQLAlchemyError = error
            except SQLAlchemyError as error:
                raise StorageError(storage_sentence(error)) from error
        raise StorageError(storage_sentence(failure)) from failure

    def _scrub(self) -> bool:
        """Empty SQLite's write-ahead log, which still holds deleted words; False where a busy reader prevents it."""
        if self._engine.dialect.name != "sqlite":
            return True
        try:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                # https://sqlite.org/pragma.html#pragma_wal_checkpoint: the first column says whether it was blocked,
                # which it is only after BUSY_SECONDS of waiting.
                row = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").first()
        except SQLAlchemyError as error:
            raise StorageError(storage_sentence(error)) from error
        return row is None or row[0] == 0


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
