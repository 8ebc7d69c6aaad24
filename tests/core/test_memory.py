"""What is remembered, and what is forgotten for good."""

import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from slack_sdk.oauth.installation_store.sqlalchemy import SQLAlchemyInstallationStore
from slack_sdk.oauth.state_store.sqlalchemy import SQLAlchemyOAuthStateStore
from sqlalchemy import MetaData, create_engine

from core.errors import StorageError
from core.memory import ChannelSettings, Memory, open_memory
from core.memory.opening import migrate
from core.memory.tables import Table
from core.messages import Conversation, Kind, Message
from tests.fakes import said

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HERE = said("x").conversation


@pytest.fixture
def memory() -> Memory:
    return open_memory("sqlite://")


def hear(memory: Memory, message: Message) -> int:
    row = memory.remember(message)
    assert row is not None
    return row


def answer(memory: Memory, row: int, text: str, *posts: str) -> int:
    reply = memory.remember_reply(text, answers=row, sent_at=NOW, adapter="a1", details={"seed": 1})
    assert reply is not None
    memory.posted(reply, HERE, posts)
    return reply


def texts(memory: Memory, where: Conversation = HERE, until: int | None = None) -> list[str]:
    return [item.message.text for item in memory.window(where, limit=20, until=until)]


def test_a_redelivered_message_is_stored_once(memory: Memory) -> None:
    """The same platform, channel and id is the same message, whatever the text."""
    assert memory.remember(said("hi", id="1")) is not None
    assert memory.remember(said("hi again", id="1")) is None
    assert memory.remember(said("elsewhere", id="1", channel="c2")) is not None
    assert texts(memory) == ["hi"]


def test_concurrent_deliveries_are_stored_once(tmp_path: Path) -> None:
    """Eight workers hear one event at once; exactly one of them gets to answer."""
    memory = open_memory(f"sqlite:///{tmp_path / 'm.db'}")
    message = said("hi", id="1")
    got: list[int | None] = []
    workers = [threading.Thread(target=lambda: got.append(memory.remember(message))) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(row is not None for row in got) == 1


def test_a_new_conversation_may_start_with_many_voices(tmp_path: Path) -> None:
    """Eight people speak at once in a channel never seen before; every word is kept."""
    memory = open_memory(f"sqlite:///{tmp_path / 'm.db'}")
    workers = [threading.Thread(target=memory.remember, args=(said(f"hi {number}"),)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(texts(memory)) == [f"hi {number}" for number in range(8)]


def test_an_answer_stands_behind_its_question(memory: Memory) -> None:
    """Two questions in a row, answered late: each answer follows its own question, and `until` sees no later ones."""
    first, second = hear(memory, said("first")), hear(memory, said("second"))
    answer(memory, first, "to first")
    assert texts(memory, until=second) == ["first", "to first", "second"]
    answer(memory, second, "to second")
    assert texts(memory) == ["first", "to first", "second", "to second"]
    assert texts(memory, until=first) == ["first"]


def test_reset_starts_anew_and_keeps_what_was_said(memory: Memory) -> None:
    """After a reset the window is empty, the stored words are not."""
    hear(memory, said("old"))
    memory.reset(HERE)
    hear(memory, said("new"))
    assert texts(memory) == ["new"]
    assert [item.message.text for item in memory.everything()] == ["old", "new"]


def test_the_reply_chain_goes_back_through_posts(memory: Memory) -> None:
    """A reply to the bot's post is followed to the question that post answered."""
    hear(memory, said("noise", kind=Kind.CHANNEL))
    first = hear(memory, said("q1", id="m1x", kind=Kind.CHANNEL))
    answer(memory, first, "a1", "p1", "p1b")
    hear(memory, said("more noise", kind=Kind.CHANNEL))
    second = hear(memory, said("q2", kind=Kind.CHANNEL, reply_to="p1b"))
    assert [item.message.text for item in memory.chain(second, 10)] == ["q1", "a1", "q2"]


def test_again_replaces_the_last_answer(memory: Memory) -> None:
    """The replaced answer leaves the context; its posts are named so that they can be edited."""
    row = hear(memory, said("q"))
    old = answer(memory, row, "old", "p1", "p2")
    found = memory.last_reply(HERE)
    assert found is not None
    assert (found[0].message.text, found[1], found[2]) == ("q", old, ("p1", "p2"))
    memory.remember_reply("new", answers=row, sent_at=NOW, adapter=None, details={}, replaces=old)
    assert texts(memory) == ["q", "new"]


def test_edits_and_deletions_are_followed(memory: Memory) -> None:
    """What a member edits is edited here, what they delete is gone; a deleted post takes our reply along."""
    row = hear(memory, said("teh", id="1"))
    answer(memory, row, "yes", "p1")
    assert memory.edit(HERE, "1", "the")
    assert not memory.edit(HERE, "nope", "x")
    assert texts(memory) == ["the", "yes"]
    memory.remove(HERE, ["p1"])
    assert texts(memory) == ["the"]
    memory.remove(HERE, ["1"])
    assert texts(memory) == []


def test_feedback_is_one_vote_a_member(memory: Memory) -> None:
    """A later reaction replaces the earlier one; taking it back removes it; only our posts can be judged."""
    row = hear(memory, said("q"))
    answer(memory, row, "a", "p1")
    assert memory.feedback(HERE, "p1", "ann", True, NOW)
    assert memory.feedback(HERE, "p1", "bob", False, NOW)
    assert memory.feedback(HERE, "p1", "ann", False, NOW)
    assert memory.feedback_counts("test") == (0, 2)
    assert memory.feedback(HERE, "p1", "ann", None, NOW)
    assert memory.feedback_counts("test") == (0, 1)
    assert not memory.feedback(HERE, "someone else's", "ann", True, NOW)


def test_forgetting_leaves_no_words_in_the_files(tmp_path: Path) -> None:
    """Words, answers that may repeat them, consent and votes go; not even the raw files hold them."""
    memory = open_memory(f"sqlite:///{tmp_path / 'm.db'}")
    row = hear(memory, said("my secret is xylophone"))
    answer(memory, row, "a xylophone you say", "p1")
    hear(memory, said("bob stays", author="bob"))
    memory.set_consent("test", "ann", True, NOW)
    removed = memory.forget("test", "ann")
    assert (removed.messages, removed.replies) == (1, 1)
    assert texts(memory) == ["bob stays"]
    assert memory.consent("test", "ann") is None
    for file in tmp_path.iterdir():
        assert b"xylophone" not in file.read_bytes(), file.name


def test_export_hands_over_everything_of_one_member(memory: Memory) -> None:
    """Messages with their answers, consent and feedback; nobody else's."""
    row = hear(memory, said("mine"))
    answer(memory, row, "answer", "p1")
    hear(memory, said("not mine", author="bob"))
    memory.set_consent("test", "ann", True, NOW)
    memory.feedback(HERE, "p1", "ann", True, NOW)
    stored = memory.export("test", "ann")
    assert [(said["text"], said["answers"]) for said in stored["messages"]] == [("mine", ["answer"])]
    assert stored["consent"] is True
    assert [given["liked"] for given in stored["feedback"]] == [True]


def test_channel_settings_are_shared_by_threads(memory: Memory) -> None:
    """What admins choose holds for the channel and its threads, and can be given back to the operator."""
    thread = said("x", thread="t1", kind=Kind.THREAD).conversation
    memory.change_settings(HERE, ambient_chance=0.2)
    assert memory.change_settings(thread, voice="pirate") == ChannelSettings(ambient_chance=0.2, voice="pirate")
    memory.change_settings(HERE, ambient_chance=None)
    assert memory.channel_settings(HERE) == ChannelSettings(voice="pirate")


def test_retention_purges_what_is_older(memory: Memory) -> None:
    """The operator's limit holds where the channel has none of its own."""
    hear(memory, said("old"))
    hear(memory, said("kept here", channel="c2"))
    memory.change_settings(said("x", channel="c2").conversation, retention_days=400)
    assert memory.purge(before=NOW + timedelta(days=1)).messages == 1
    assert [item.message.text for item in memory.everything()] == ["kept here"]
    assert memory.retentions() == {400}
    assert memory.purge_channels(cutoff={400: NOW + timedelta(days=1)}).messages == 1


def test_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    """From an empty database the migrations end at exactly what the code declares, and slack_sdk beside it."""
    slack = MetaData()
    SQLAlchemyInstallationStore.build_bots_table(slack, SQLAlchemyInstallationStore.default_bots_table_name)
    SQLAlchemyOAuthStateStore.build_oauth_states_table(slack, SQLAlchemyOAuthStateStore.default_table_name)
    engine = create_engine(f"sqlite:///{tmp_path / 'm.db'}")
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, [Table.metadata, slack]) == []  # type: ignore[arg-type]  # Alembic documents several


def test_the_oldest_database_is_brought_up_to_date(tmp_path: Path) -> None:
    """A database at the first migration keeps its rows through the later ones."""
    url = f"sqlite:///{tmp_path / 'm.db'}"
    engine = create_engine(url)
    migrate(engine, "0001")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO members (platform, member, consent) VALUES ('test', 'ann', 1)")
    assert open_memory(url).consent("test", "ann") is True


def test_sqlite_is_opened_in_wal_mode(tmp_path: Path) -> None:
    """Readers and the writer work side by side."""
    open_memory(f"sqlite:///{tmp_path / 'm.db'}")
    with sqlite3.connect(tmp_path / "m.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def _text_file(folder: Path) -> str:
    (folder / "m.db").write_text("this is no database, only words " * 50)
    return f"sqlite:///{folder / 'm.db'}"


def _folder_is_a_file(folder: Path) -> str:
    (folder / "home").write_text("")
    return f"sqlite:///{folder / 'home' / 'm.db'}"


def _newer(folder: Path) -> str:
    url = f"sqlite:///{folder / 'm.db'}"
    open_memory(url).close()
    with sqlite3.connect(folder / "m.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    return url


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_text_file, "is no database"),
        (_folder_is_a_file, "cannot be made"),
        (_newer, "newer Person2"),
        (lambda folder: "nonsense", "not a database URL"),
        (lambda folder: "oracle9://x", "not a database URL"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence(tmp_path: Path, make: object, sentence: str) -> None:
    """The person reads what to mend, not a traceback."""
    with pytest.raises(StorageError, match=sentence) as caught:
        open_memory(make(tmp_path))  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_a_locked_database_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program holds the write lock: we say so, and remember again once it lets go."""
    monkeypatch.setattr("core.memory.opening.BUSY_SECONDS", 0.05)
    memory = open_memory(f"sqlite:///{tmp_path / 'm.db'}")
    other = sqlite3.connect(tmp_path / "m.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked"):
        memory.remember(said("hi"))
    other.execute("ROLLBACK")
    assert memory.remember(said("hi")) is not None
