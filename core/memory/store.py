"""The database behind memory: sessions, sentences for its errors, and removing deleted data from its files."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, CursorResult, Engine, select
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.errors import StorageError
from core.memory.rows import CHUNK, Removed, delete_messages
from core.memory.tables import ConversationRow, MessageRow, Table

T = TypeVar("T")

RACES = 5
"""How often a write that lost a race with another worker is tried again."""

BATCH_SECONDS = 0.1
"""Target for one transaction of a large deletion; no other write waits for more than a few of these."""
PAUSE_SECONDS = 0.02
"""Least pause after each; a pause is as long as the transaction before it, and waiting SQLite writers look at least
every 100 ms."""
FIRST_BATCH = 200
SMALLEST_BATCH = 100
"""Rows; below this a transaction costs about as much as its rows."""

SCRUB_SECONDS = 0.2
"""How long one try to empty SQLite's write-ahead log waits for readers, and writers for it."""

INCREMENTAL = 2
"""SQLite's `auto_vacuum` by which deleted pages go back to the disk when asked for (https://sqlite.org/pragma.html)."""
COMPACT_PAGES = 64
"""Pages given back in one step."""


class Store:
    """Safe to use from several threads; each call is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sessions = sessionmaker(engine, expire_on_commit=False)
        self._closing = threading.Event()

    def close(self) -> None:
        """Close the database; a deletion that is running in another thread ends at its next step."""
        self._closing.set()
        self._engine.dispose()

    @contextmanager
    def borrowed(self) -> Iterator[Engine]:
        """The engine, for a library with tables of its own in this database (made by our migrations); errors inside the
        block become StorageError."""
        try:
            yield self._engine
        except SQLAlchemyError as error:
            raise StorageError(storage_sentence(error)) from error

    @contextmanager
    def session(self) -> Iterator[Session]:
        try:
            with self._sessions.begin() as session:
                yield session
        except SQLAlchemyError as error:
            raise StorageError(storage_sentence(error)) from error

    def write(self, work: Callable[[Session], T]) -> T:
        """One transaction that reads and then writes, tried again where another worker came in between: stored the same
        message, opened the same conversation, deleted the question."""
        for _ in range(RACES):
            try:
                with self._sessions.begin() as session:
                    return work(session)
            except IntegrityError as error:
                failure: SQLAlchemyError = error
            except SQLAlchemyError as error:
                raise StorageError(storage_sentence(error)) from error
        raise StorageError(storage_sentence(failure)) from failure

    def _pause(self, seconds: float) -> None:
        """Let others write. Raises StorageError when the program ends meanwhile: a large deletion takes minutes."""
        if self._closing.wait(seconds):
            raise StorageError("The program is stopping, so a deletion was interrupted; repeat it.")

    def batches(self, step: Callable[[Session, int], tuple[int, Removed]]) -> Removed:
        """Call `step(session, limit)` in many short transactions until it finds fewer than `limit` rows; the sum of
        what it removed.

        Others may write in between. The limit follows from how long the last transaction took.
        """
        limit, removed = FIRST_BATCH, Removed()
        while True:
            began = time.perf_counter()
            found, some = self.write(lambda session: step(session, limit))  # noqa: B023 - called in this turn
            took = time.perf_counter() - began
            removed += some
            if found < limit:
                return removed
            self._pause(max(PAUSE_SECONDS, took))
            limit = max(SMALLEST_BATCH, min(CHUNK, int(limit * min(2.0, BATCH_SECONDS / took))))

    def delete(self, *where: ColumnElement[bool], with_answers: bool = False) -> Removed:
        """Delete messages in batches, `with_answers` also the bot's answers to them."""

        def some(session: Session, limit: int) -> tuple[int, Removed]:
            found = session.execute(select(MessageRow.id, MessageRow.from_bot).where(*where).limit(limit)).all()
            rows = [row.id for row in found]
            answers: Sequence[int] = ()
            if with_answers:
                answers = session.scalars(select(MessageRow.id).where(MessageRow.answers.in_(rows))).all()
            delete_messages(session, [*answers, *rows])
            replies = sum(row.from_bot for row in found)
            return len(rows), Removed(messages=len(rows) - replies, replies=replies + len(answers))

        return self.batches(some)

    def conversation_ids(self, *where: ColumnElement[bool]) -> Iterator[Sequence[int]]:
        """Ids of conversations, in lists short enough for one statement."""
        last = 0
        while True:
            with self.session() as session:
                query = select(ConversationRow.id).where(ConversationRow.id > last, *where)
                rows = session.scalars(query.order_by(ConversationRow.id).limit(CHUNK)).all()
            if not rows:
                return
            yield rows
            last = rows[-1]

    def scrub(self, *, patience: float = 1.0) -> bool:
        """Empty SQLite's write-ahead log, which still contains deleted messages; False where readers prevent that for
        `patience` seconds. Each try keeps writers waiting for `SCRUB_SECONDS` at most."""
        if self._engine.dialect.name != "sqlite":
            return True
        deadline = time.monotonic() + patience
        while not self._checkpoint():
            if time.monotonic() > deadline:
                return False
            time.sleep(SCRUB_SECONDS)
        return True

    def _checkpoint(self) -> bool:
        with self._autocommit() as execute:
            default = execute("PRAGMA busy_timeout").scalar_one()
            execute(f"PRAGMA busy_timeout={min(default, int(SCRUB_SECONDS * 1000))}")
            try:
                # https://sqlite.org/pragma.html#pragma_wal_checkpoint: the first column says whether it was blocked.
                row = execute("PRAGMA wal_checkpoint(TRUNCATE)").first()
            except OperationalError as error:
                if "locked" not in str(error.orig):
                    raise
                return False
            finally:
                execute(f"PRAGMA busy_timeout={default}")
        return row is None or row[0] == 0

    def compact(self) -> None:
        """Free the space of deleted rows, in steps so small that nobody waits for them: for the disk on SQLite, for
        later rows of the same tables on PostgreSQL. Call it when there is nothing else to do."""
        if self._engine.dialect.name == "postgresql":
            with self._autocommit() as execute:
                execute(f"VACUUM {', '.join(Table.metadata.tables)}")
        if self._engine.dialect.name != "sqlite":
            return
        while self._give_back_pages():
            self._pause(PAUSE_SECONDS)
        self.scrub()

    def _give_back_pages(self) -> bool:
        """Whether there was anything to give back."""
        with self._autocommit() as execute:
            free = execute("PRAGMA freelist_count").scalar_one()
            if free == 0 or execute("PRAGMA auto_vacuum").scalar_one() != INCREMENTAL:
                return False
            # One page at a time: the statement frees one each time it is stepped, and a driver steps it only once,
            # because it returns no columns.
            execute("BEGIN IMMEDIATE")
            for _ in range(min(free, COMPACT_PAGES)):
                execute("PRAGMA incremental_vacuum(1)")
            execute("COMMIT")
        return True

    @contextmanager
    def _autocommit(self) -> Iterator[Callable[[str], CursorResult[Any]]]:
        """For statements that cannot run in a transaction."""
        try:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                yield connection.exec_driver_sql
        except SQLAlchemyError as error:
            raise StorageError(storage_sentence(error)) from error


def storage_sentence(error: SQLAlchemyError) -> str:
    """What a person can do about a database error; the statement and its values (people's words) are left out."""
    cause = str(getattr(error, "orig", None) or error.__class__.__name__).splitlines()[0]
    if "locked" in cause:
        return "The database is locked by another program; close it and try again."
    if "readonly" in cause or "read-only" in cause or "permission denied" in cause.lower():
        return "The database cannot be written: check the permissions of PERSON2_DATABASE_URL or PERSON2_HOME."
    if "full" in cause:
        return "The database cannot grow: the disk is full; free some space and try again."
    return f"The database failed ({cause}); check PERSON2_DATABASE_URL."
