"""Large deletions: however much there is, in steps, with nothing left in the files and the space given back."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from core.errors import StorageError
from core.memory import Memory, Removed, open_memory
from core.messages import Kind
from tests.core.test_memory import hear
from tests.fakes import said

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
HERE = said("x").conversation
VARIABLES = 999
"""What SQLite allowed in one statement before 3.32, a thirty-third of what it allows now."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "m.db"


@pytest.fixture
def memory(file: Path) -> Iterator[Memory]:
    """A memory in a file, in which one statement may hold few variables."""
    memory = open_memory(f"sqlite:///{file}")
    with memory.borrowed() as engine:

        @event.listens_for(engine, "connect")
        def few_variables(connection: sqlite3.Connection, record: object) -> None:
            connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, VARIABLES)

        engine.dispose()
    yield memory
    memory.close()


def talk(memory: Memory, turns: int, *, answered: int = 0, author: str = "ann") -> None:
    """So many messages of one member; the first ones are answered, and each answer is judged by the member."""
    for number in range(turns):
        row = hear(memory, said(f"xylophone {number}", id=f"{author}-{number}", author=author))
        if number < answered:
            reply = memory.remember_reply(f"a xylophone {number}", answers=row, sent_at=NOW, adapter=None, details={})
            assert reply is not None
            memory.posted(reply, HERE, [f"post-{author}-{number}"])
            memory.feedback(HERE, f"post-{author}-{number}", author, True, NOW)


DELETIONS: dict[str, tuple[Callable[[Memory], Removed], Removed]] = {
    "forget": (lambda memory: memory.forget("test", "ann"), Removed(messages=1200, replies=30)),
    "remove": (
        lambda memory: memory.remove(HERE, [*(f"post-ann-{n}" for n in range(30)), *(f"ann-{n}" for n in range(1200))]),
        Removed(messages=1200, replies=30),
    ),
    "remove a place": (lambda memory: memory.remove_place(HERE), Removed(messages=1200, replies=30)),
    "retention": (lambda memory: memory.purge(before=LATER), Removed(messages=1200, replies=30)),
}


@pytest.mark.parametrize("way", DELETIONS)
def test_more_rows_than_a_statement_holds(memory: Memory, file: Path, way: str) -> None:
    """However much somebody wrote, all of it goes, what hangs from it too, and no file holds a word of it."""
    talk(memory, 1200, answered=30)
    delete, removed = DELETIONS[way]
    assert delete(memory) == removed
    assert list(memory.everything()) == []
    assert memory.feedback_counts("test") == (0, 0)
    assert all(b"xylophone" not in each.read_bytes() for each in file.parent.iterdir())


def test_others_keep_what_is_theirs(memory: Memory) -> None:
    """Forgetting Ann takes her votes on answers to Bob, and leaves the answers."""
    talk(memory, 5, answered=5, author="bob")
    talk(memory, 5, answered=5)
    memory.feedback(HERE, "post-bob-1", "ann", False, NOW)
    assert memory.forget("test", "ann") == Removed(messages=5, replies=5, feedback=1)
    assert len(list(memory.everything())) == 10
    assert memory.feedback_counts("test") == (5, 0)


def test_retention_reaches_every_thread_and_spares_what_has_its_own(memory: Memory) -> None:
    """More conversations than a statement holds; a channel's own retention holds for its threads."""
    for number in range(1100):
        thread = "own" if number % 11 == 0 else "usual"
        hear(memory, said("old", id=str(number), channel=thread, thread=f"t{number}", kind=Kind.THREAD))
    memory.change_settings(said("x", channel="own").conversation, retention_days=400)
    assert memory.purge(before=LATER) == Removed(messages=1000)
    assert memory.purge_channels(cutoff={400: NOW}) == Removed()
    assert memory.purge_channels(cutoff={400: LATER, 7: LATER}) == Removed(messages=100)


def test_writing_goes_on_while_a_deletion_runs(memory: Memory) -> None:
    """What is said meanwhile is stored, and stays."""
    talk(memory, 1200)
    over, written = threading.Event(), [hear(memory, said("new", author="bob"))]

    def write() -> None:
        while not over.is_set():
            written.append(hear(memory, said("new", author="bob")))

    writing = threading.Thread(target=write)
    writing.start()
    removed = memory.forget("test", "ann")
    over.set()
    writing.join()
    assert removed == Removed(messages=1200)
    assert [item.row for item in memory.everything()] == written


def test_a_deletion_ends_with_the_program(memory: Memory, file: Path) -> None:
    """Closing the memory interrupts one that would take minutes; what it began can be repeated."""
    talk(memory, 1200)
    failures: list[StorageError] = []

    def forget() -> None:
        try:
            memory.forget("test", "ann")
        except StorageError as error:
            failures.append(error)

    forgetting = threading.Thread(target=forget)
    memory.close()
    forgetting.start()
    forgetting.join()
    assert "interrupted" in str(failures[0])
    again = open_memory(f"sqlite:///{file}")
    assert 0 < again.forget("test", "ann").messages < 1200
    again.close()


def test_space_is_given_back(memory: Memory, file: Path) -> None:
    """The file is as small as before; what stays is whole."""
    hear(memory, said("stays", author="bob"))
    empty = file.stat().st_size
    for number in range(200):
        hear(memory, said("xylophone " * 1000, id=f"ann-{number}"))
    memory.forget("test", "ann")
    full = file.stat().st_size
    memory.compact()
    assert full > 10 * empty
    assert file.stat().st_size <= 2 * empty
    assert [item.message.text for item in memory.everything()] == ["stays"]


def test_space_goes_many_pages_at_a_time(memory: Memory, file: Path) -> None:
    """SQLite frees one page each time the statement is stepped; a million rows are 100,000 pages."""
    for number in range(200):
        hear(memory, said("xylophone " * 1000, id=f"ann-{number}"))
    memory.forget("test", "ann")
    pages, uses = file.stat().st_size // 4096, list[object]()
    with memory.borrowed() as engine:
        event.listen(engine, "checkout", lambda *about: uses.append(about))
        memory.compact()
    assert pages > 400
    assert len(uses) < pages / 10


def test_compacting_a_server_only_tidies_up(url: str) -> None:
    """On PostgreSQL too it may be called at any time."""
    memory = open_memory(url)
    hear(memory, said("stays", author="bob"))
    hear(memory, said("goes"))
    memory.forget("test", "ann")
    memory.compact()
    assert [item.message.text for item in memory.everything()] == ["stays"]
    memory.close()


QUESTIONS: dict[str, Callable[[Memory], object]] = {
    "remember": lambda memory: memory.remember(said("new")),
    "reply": lambda memory: memory.remember_reply("a", answers=1, sent_at=NOW, adapter=None, details={}),
    "window": lambda memory: memory.window(HERE, limit=40),
    "chain": lambda memory: memory.chain(1, 40),
    "reply of": lambda memory: memory.reply_of(HERE, "p1"),
    "in thread": lambda memory: memory.in_thread(HERE),
    "feedback": lambda memory: memory.feedback(HERE, "p1", "ann", True, NOW),
    "edit": lambda memory: memory.edit(HERE, "1", "x"),
    "remove": lambda memory: memory.remove(HERE, ["1"]),
    "by name": lambda memory: memory.find_members("Ann"),
    "by id": lambda memory: memory.find_members("test:ann"),
    "export": lambda memory: memory.export("test", "ann"),
    "forget": lambda memory: memory.forget("test", "ann"),
    "retention": lambda memory: memory.purge(before=NOW),
    "retention of channels": lambda memory: memory.purge_channels(cutoff={7: NOW}),
    "remove a place": lambda memory: memory.remove_place(HERE),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_nothing_reads_a_whole_table(memory: Memory, question: str) -> None:
    """What is asked while the bot runs finds its rows through an index, however many there are."""
    talk(memory, 3, answered=3)
    statements: list[tuple[str, Any]] = []
    with memory.borrowed() as engine:

        @event.listens_for(engine, "before_cursor_execute")
        def note(connection: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
            statements.append((statement, parameters))

        QUESTIONS[question](memory)
        event.remove(engine, "before_cursor_execute", note)
        with engine.connect() as connection:
            plans = [
                row[-1]
                for statement, parameters in statements
                if statement.lstrip().split()[0] in {"SELECT", "UPDATE", "DELETE"}
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]
    assert plans
    assert [plan for plan in plans if plan in {"SCAN messages", "SCAN posts", "SCAN feedback"}] == []
