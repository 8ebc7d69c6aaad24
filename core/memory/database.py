"""Open the database at a URL: SQLite tuned for a bot, migrations up to date, faults as one sentence each."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from core.errors import StorageError
from core.memory.memory import Memory
from core.memory.store import storage_sentence

log = logging.getLogger(__name__)

BUSY_SECONDS = 10
"""How long a write waits for another process's lock before it fails as locked."""

MIGRATION_SECONDS = 3600
"""How long opening waits for another process that migrates the same SQLite file."""

MIGRATION_LOCK = 0x50657273_6F6E32
"""Key of PostgreSQL's advisory lock around migrations: “Person2” in ASCII."""

VACUUM_BYTES = 256 << 20
"""A larger SQLite file is not rebuilt without asking: the folder for temporary files may be in memory."""


def open_memory(url: str) -> Memory:
    """The memory at an SQLAlchemy URL, its tables brought to the newest migration.

    Raises StorageError with one sentence where the URL is wrong, its driver is missing, or the database cannot be
    opened or written.
    """
    try:
        engine = _engine(url)
    except (ArgumentError, NoSuchModuleError) as error:
        raise StorageError(
            f"PERSON2_DATABASE_URL is not a database URL ({error}); one looks like sqlite:////home/me/person2.db."
        ) from error
    except ModuleNotFoundError as error:
        raise StorageError(
            f"PERSON2_DATABASE_URL needs the Python package {error.name}: install it "
            "(for PostgreSQL: pip install 'person2[postgres]')."
        ) from error
    except OSError as error:
        raise StorageError(f"The database folder cannot be created ({error}); set PERSON2_HOME.") from error
    try:
        migrate(engine)
    except SQLAlchemyError as error:
        engine.dispose()
        raise StorageError(_cannot_open(url, error)) from error
    except CommandError as error:
        engine.dispose()
        raise StorageError(
            f"This database was created by a newer Person2 ({error}): install that version, or choose "
            "another PERSON2_DATABASE_URL."
        ) from error
    return Memory(engine)


def migrate(engine: Engine, revision: str = "head") -> None:
    """Run Alembic's migrations, from an installed wheel as well as from a checkout: all of them or none, in one process
    at a time while others wait."""
    config = Config()
    config.set_main_option("script_location", "migrations:")
    wanted = ScriptDirectory.from_config(config).get_revision(revision).revision
    with _alone_in_sqlite(engine) if engine.dialect.name == "sqlite" else _alone_in_postgres(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current == wanted:
            return
        if current is not None:
            log.info("upgrading the database from version %s to %s; a large one takes minutes", current, wanted)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    if engine.dialect.name == "sqlite":
        _let_file_shrink(engine)


@contextmanager
def _alone_in_postgres(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        yield connection


@contextmanager
def _alone_in_sqlite(engine: Engine) -> Iterator[Connection]:
    """A write transaction from the first statement on. Python's sqlite3 module would begin one only before the first
    INSERT, so a process killed halfway would leave half a migration behind."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        execute = connection.exec_driver_sql
        # Tables are rebuilt under other names meanwhile (https://sqlite.org/lang_altertable.html, section 7).
        execute("PRAGMA foreign_keys=OFF")
        execute(f"PRAGMA busy_timeout={MIGRATION_SECONDS * 1000}")
        try:
            execute("BEGIN IMMEDIATE")
            try:
                yield connection
                execute("COMMIT")
            except BaseException:
                execute("ROLLBACK")
                raise
        finally:
            execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
            execute("PRAGMA foreign_keys=ON")


def _let_file_shrink(engine: Engine) -> None:
    """Switch an older database to the mode in which deleted space can be returned to the disk step by step. That takes
    one VACUUM, which needs the database's size again in the folder for temporary files."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        execute = connection.exec_driver_sql
        if execute("PRAGMA auto_vacuum").scalar_one() != 0:
            return
        size = execute("PRAGMA page_count").scalar_one() * execute("PRAGMA page_size").scalar_one()
        if size > VACUUM_BYTES:
            log.info(
                "the database file never shrinks by itself; to change that, stop the bot and run VACUUM on it once"
            )
            return
        try:
            execute("PRAGMA auto_vacuum=INCREMENTAL")
            execute("VACUUM")
        except SQLAlchemyError as error:
            log.info("the database file will not shrink by itself (%s)", storage_sentence(error))


def _engine(url: str) -> Engine:
    parsed = postgres_driver(make_url(url))
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True, hide_parameters=True)  # people's words stay out of tracebacks
    in_memory = parsed.database in {None, "", ":memory:"}
    if not in_memory:
        file = Path(str(parsed.database)).expanduser()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(OSError):  # SQLite reports what is wrong with the path
            os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would create it by the umask alone
        parsed = parsed.set(database=str(file))
    engine = create_engine(
        parsed,
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
        hide_parameters=True,  # people's words stay out of tracebacks
        # An in-memory database lives as long as its one connection, which threads take turns to use.
        **({"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0} if in_memory else {}),
    )
    event.listen(engine, "connect", _tune)
    return engine


def postgres_driver(url: URL) -> URL:
    """psycopg 3, which the extra installs, for a PostgreSQL URL that names no driver; other URLs as they are."""
    return url.set(drivername="postgresql+psycopg") if url.drivername in {"postgresql", "postgres"} else url


def _tune(connection: Any, record: ConnectionPoolEntry) -> None:
    """WAL lets readers and the writer work side by side; secure_delete overwrites deleted rows;
    auto_vacuum, which must come first, lets the file of a new database shrink."""
    cursor = connection.cursor()
    for pragma in (
        "auto_vacuum=INCREMENTAL",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "secure_delete=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _cannot_open(url: str, error: SQLAlchemyError) -> str:
    cause = str(getattr(error, "orig", None) or error)
    where = make_url(url).render_as_string(hide_password=True)
    if "unable to open" in cause:
        return f"The database {where} cannot be opened: check that its folder exists and can be written."
    if "not a database" in cause or "malformed" in cause:
        return f"The file at {where} is not a database: move it away or choose another PERSON2_DATABASE_URL."
    if "locked" in cause or "readonly" in cause or "full" in cause:
        return storage_sentence(error)
    return f"The database {where} cannot be used ({cause.splitlines()[0]}); check PERSON2_DATABASE_URL."
