"""Open the database a URL names: SQLite made fit for a bot, migrations up to date, faults said in a sentence."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import URL, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from core.errors import StorageError
from core.memory.memory import Memory
from core.memory.store import storage_sentence

BUSY_SECONDS = 10
"""How long a write waits for another process's lock before it is said to be locked."""


def open_memory(url: str) -> Memory:
    """The memory at an SQLAlchemy URL, its tables brought to the newest migration.

    Raises StorageError with one sentence where the URL is wrong, its driver is missing, or the database cannot be
    opened or written.
    """
    try:
        engine = _engine(url)
    except (ArgumentError, NoSuchModuleError) as error:
        raise StorageError(
            f"DATABASE_URL is not a database URL ({error}); one looks like sqlite:////home/me/person2.db."
        ) from error
    except ModuleNotFoundError as error:
        raise StorageError(
            f"DATABASE_URL needs the Python package {error.name}: install it "
            "(for PostgreSQL: pip install 'person2[postgres]')."
        ) from error
    except OSError as error:
        raise StorageError(f"The folder of the database cannot be made ({error}); set PERSON2_HOME.") from error
    try:
        migrate(engine)
    except SQLAlchemyError as error:
        engine.dispose()
        raise StorageError(_cannot_open(url, error)) from error
    except CommandError as error:
        engine.dispose()
        raise StorageError(
            f"The database was made by a newer Person2 ({error}); update Person2, or choose another DATABASE_URL."
        ) from error
    return Memory(engine)


def migrate(engine: Engine, revision: str = "head") -> None:
    """Run Alembic's migrations, from an installed wheel as well as from a checkout."""
    config = Config()
    config.set_main_option("script_location", "migrations:")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _engine(url: str) -> Engine:
    parsed = postgres_driver(make_url(url))
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True, hide_parameters=True)  # people's words stay out of tracebacks
    in_memory = parsed.database in {None, "", ":memory:"}
    if not in_memory:
        Path(str(parsed.database)).expanduser().parent.mkdir(parents=True, exist_ok=True)
        parsed = parsed.set(database=str(Path(str(parsed.database)).expanduser()))
    engine = create_engine(
        parsed,
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
        hide_parameters=True,  # people's words stay out of tracebacks
        # An in-memory database lives as long as its one connection, which threads must take in turn.
        **({"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0} if in_memory else {}),
    )
    event.listen(engine, "connect", _tune)
    return engine


def postgres_driver(url: URL) -> URL:
    """psycopg 3, which the extra installs, for a PostgreSQL URL that names no driver; other URLs as they are."""
    return url.set(drivername="postgresql+psycopg") if url.drivername in {"postgresql", "postgres"} else url


def _tune(connection: Any, record: ConnectionPoolEntry) -> None:
    """WAL lets readers and the writer work side by side; secure_delete overwrites what a member had forgotten."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _cannot_open(url: str, error: SQLAlchemyError) -> str:
    cause = str(getattr(error, "orig", None) or error)
    where = make_url(url).render_as_string(hide_password=True)
    if "unable to open" in cause:
        return f"The database {where} cannot be opened: check that its folder exists and can be written."
    if "not a database" in cause or "malformed" in cause:
        return f"The file at {where} is no database: move it away or choose another DATABASE_URL."
    if "locked" in cause or "readonly" in cause or "full" in cause:
        return storage_sentence(error)
    return f"The database {where} cannot be used ({cause.splitlines()[0]}); check DATABASE_URL."
