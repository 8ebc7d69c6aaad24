"""From every older version of the database to the newest, on SQLite and on PostgreSQL; several may start at once."""

import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from slack_sdk.oauth.installation_store.sqlalchemy import SQLAlchemyInstallationStore
from slack_sdk.oauth.state_store.sqlalchemy import SQLAlchemyOAuthStateStore
from sqlalchemy import Engine, MetaData, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from core.memory import open_memory
from core.memory.database import migrate, postgres_driver
from core.memory.tables import Table
from tests.fakes import said

NOW = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - the tables keep no timezone
CONFIG = Config()
CONFIG.set_main_option("script_location", "migrations:")
VERSIONS = [script.revision for script in ScriptDirectory.from_config(CONFIG).walk_revisions()][::-1]
HERE = said("x").conversation


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    engine = create_engine(postgres_driver(make_url(url)))
    yield engine
    engine.dispose()


def fill(engine: Engine) -> None:
    """What a bot of an older version left: a question of Ann's, its answer with a thumb, and a message of Bob's."""
    tables = MetaData()
    tables.reflect(engine)
    place = {"platform": "test", "space": "", "channel": "c1", "kind": "direct", "epoch": 0, "key": HERE.key}
    common = {"conversation_id": 1, "platform": "test", "channel": "c1", "epoch": 0, "sent_at": NOW, "replaced": False}
    ann = {"message_id": "1", "place": 1, "author": "ann", "author_name": "Ann", "text": "hello", "from_bot": False}
    bot = {"message_id": "r", "place": 1, "author": "person2", "author_name": "Person2", "text": "hi", "from_bot": True}
    bob = {"message_id": "2", "place": 3, "author": "bob", "author_name": "Bob", "text": "bye", "from_bot": False}
    rows = {
        "conversations": [place],
        "messages": [common | ann | {"answers": None}, common | bot | {"answers": 1}, common | bob | {"answers": None}],
        "posts": [{"message_id": 2, "platform": "test", "channel": "c1", "post_id": "p1"}],
        "feedback": [{"message_id": 2, "platform": "test", "member": "ann", "liked": True, "given_at": NOW}],
        "members": [{"platform": "test", "member": "ann", "consent": True}],
    }
    with engine.begin() as connection:
        for name, values in rows.items():
            connection.execute(tables.tables[name].insert(), values)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_older_database_is_brought_up_to_date(url: str, version: str) -> None:
    """Rows and links between them are there, the tables are those of the code, and no number is given twice."""
    with engine_of(url) as engine:
        migrate(engine, version)
        fill(engine)
    memory = open_memory(url)
    assert [item.message.text for item in memory.window(HERE, limit=9)] == ["hello", "hi", "bye"]
    assert memory.reply_of(HERE, "p1") == 2
    assert [said["answers"] for said in memory.export("test", "ann")["messages"]] == [["hi"]]
    assert memory.feedback_counts("test") == (1, 0)
    assert memory.consent("test", "ann") is True
    memory.remove(HERE, ["2"])
    assert memory.remember(said("new", author="bob")) == 4
    assert memory.forget("test", "ann").messages == 1
    memory.close()
    with engine_of(url) as engine, engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        slack = MetaData()
        SQLAlchemyInstallationStore.build_bots_table(slack, SQLAlchemyInstallationStore.default_bots_table_name)
        SQLAlchemyOAuthStateStore.build_oauth_states_table(slack, SQLAlchemyOAuthStateStore.default_table_name)
        assert compare_metadata(context, [Table.metadata, slack]) == []  # type: ignore[arg-type]  # Alembic documents several
        if engine.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
            assert connection.exec_driver_sql("PRAGMA integrity_check").all() == [("ok",)]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_older_file_can_shrink_afterwards(tmp_path: Path, version: str) -> None:
    """SQLite can give space back only in a mode that a database made before this was usual does not have."""
    file = tmp_path / "m.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE made_without (id)")  # the mode is fixed by a file's first table
    with engine_of(f"sqlite:///{file}") as engine:
        migrate(engine, version)
    open_memory(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_a_failed_migration_leaves_the_old_database(tmp_path: Path) -> None:
    """What stops it in the middle (a full disk, a kill) undoes all of it; the next start does it anew."""
    file = tmp_path / "m.db"
    with engine_of(f"sqlite:///{file}") as engine:
        migrate(engine, "0002")
        fill(engine)
    with sqlite3.connect(file) as connection:
        connection.execute(
            "CREATE TABLE ix_messages_conversation_id_sent_at (id)"
        )  # its name stands in the way of the last steps
        before = sorted(connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
    with engine_of(f"sqlite:///{file}") as engine, pytest.raises(SQLAlchemyError):
        migrate(engine)
    with sqlite3.connect(file) as connection:
        assert sorted(connection.execute("SELECT name, sql FROM sqlite_master").fetchall()) == before
        connection.execute("DROP TABLE ix_messages_conversation_id_sent_at")
    memory = open_memory(f"sqlite:///{file}")
    assert len(list(memory.everything())) == 3
    memory.close()


def _open(url: str, number: int) -> bool:
    memory = open_memory(url)
    stored = memory.remember(said("hi", id=str(number))) is not None
    memory.close()
    return stored


def test_many_may_start_at_once(url: str) -> None:
    """Eight processes open a database that is not there yet; each finds it whole and writes to it."""
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        assert pool.starmap(_open, [(url, number) for number in range(8)], chunksize=1) == [True] * 8
    memory = open_memory(url)
    assert len(list(memory.everything())) == 8
    memory.close()
