"""What is remembered, and what is forgotten for good: on SQLite and on PostgreSQL."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import StorageError
from core.memory import ChannelSettings, Memory, Removed, open_memory
from core.messages import Conversation, Kind, Message
from tests.databases import empty_schema
from tests.fakes import said

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HERE = said("x").conversation


@pytest.fixture(params=["sqlite", "postgresql"])
def memory(request: pytest.FixtureRequest) -> Iterator[Memory]:
    """An empty memory: SQLite's in the process, PostgreSQL's on its server."""
    local = request.param == "sqlite"
    with nullcontext("sqlite://") if local else empty_schema(request.getfixturevalue("postgres")) as where:
        memory = open_memory(where)
        yield memory
        memory.close()


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


def test_concurrent_deliveries_are_stored_once(url: str) -> None:
    """Eight workers hear one event at once; exactly one of them gets to answer."""
    memory = open_memory(url)
    message = said("hi", id="1")
    got: list[int | None] = []
    workers = [threading.Thread(target=lambda: got.append(memory.remember(message))) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    memory.close()
    assert sum(row is not None for row in got) == 1


def test_a_new_conversation_may_start_with_many_voices(url: str) -> None:
    """Eight people speak at once in a channel never seen before; every word is kept."""
    memory = open_memory(url)
    workers = [threading.Thread(target=memory.remember, args=(said(f"hi {number}"),)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    heard = sorted(texts(memory))
    memory.close()
    assert heard == [f"hi {number}" for number in range(8)]


def test_an_answer_stands_behind_its_question(memory: Memory) -> None:
    """Two questions in a row, answered late: each answer follows its own question, and `until` sees no later ones."""
    first, second = hear(memory, said("first")), hear(memory, said("second"))
    answer(memory, first, "to first")
    assert texts(memory, until=second) == ["first", "to first", "second"]
    answer(memory, second, "to second")
    assert texts(memory) == ["first", "to first", "second", "to second"]
    assert texts(memory, until=first) == ["first"]


def test_a_row_number_is_never_given_to_another_message(memory: Memory) -> None:
    """An answer composed for a message that was deleted meanwhile is refused, whoever writes next."""
    hear(memory, said("kept", id="0"))
    asked = hear(memory, said("a secret question", id="1", author="ann"))
    memory.remove(HERE, ["1"])
    next_row = hear(memory, said("good morning", id="2", author="bob"))
    assert next_row > asked
    late = memory.remember_reply("to the secret", answers=asked, sent_at=NOW, adapter=None, details={})
    assert late is None
    assert texts(memory) == ["kept", "good morning"]
    assert [said["answers"] for said in memory.export("test", "bob")["messages"]] == [[]]


def test_an_answer_names_its_question(memory: Memory) -> None:
    """A row that holds another message than the one answered takes no answer to it."""
    row = hear(memory, said("good morning", id="2", author="bob"))

    def stored(question: str) -> bool:
        reply = memory.remember_reply("hi", answers=row, question=question, sent_at=NOW, adapter=None, details={})
        return reply is not None

    assert [stored("1"), stored("2")] == [False, True]


def test_questions_deleted_while_they_are_answered(url: str) -> None:
    """Deleting and answering at the same time ends in an answer to what is there, or in none; never in an error."""
    memory = open_memory(url)
    rows = [hear(memory, said(f"q{number}", id=str(number))) for number in range(40)]
    answered: list[int | None] = []
    answering = threading.Thread(
        target=lambda: answered.extend(
            memory.remember_reply("a", answers=row, sent_at=NOW, adapter=None, details={}) for row in rows
        )
    )
    answering.start()
    for number in reversed(range(40)):
        memory.remove(HERE, [str(number)])
    answering.join()
    left = {item.row for item in memory.everything()}
    memory.close()
    assert len(answered) == 40
    assert left == {row for row in answered if row is not None}


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
    live = memory.live_reply(row)
    assert live is not None
    assert (live[0].row, live[0].message.text, live[1]) == (old, "old", ("p1", "p2"))
    memory.remember_reply("new", answers=row, sent_at=NOW, adapter=None, details={}, replaces=old)
    assert texts(memory) == ["q", "new"]


def test_a_question_is_found_by_who_asked_and_by_its_answer(memory: Memory) -> None:
    """The newest of a member, of anybody, of a post; answered or not, but none from before a reset."""
    rows = {who: memory.remember(said(f"{who} asks", author=who), why="mentioned", owed=True) for who in ("ann", "ben")}
    hear(memory, said("by the way", author="ann"))
    answer(memory, rows["ann"] or 0, "yes", "p1")

    def asked(author: str | None = None) -> str | None:
        found = memory.newest_question(HERE, author=author)
        return found.message.text if found else None

    assert [asked("ann"), asked("ben"), asked(), asked("eve")] == ["ann asks", "ben asks", "ben asks", None]
    found = memory.question_of(HERE, "p1")
    assert found is not None
    assert found.message.text == "ann asks"
    memory.reset(HERE)
    assert asked() is None


def test_what_is_owed_is_handed_out(memory: Memory) -> None:
    """A question of the last minutes that nobody answered; not one that was, nor an old one, nor a new process's, nor
    one that five processes took on."""
    old = replace(said("old"), sent_at=NOW - timedelta(hours=1))
    memory.remember(old, why="mentioned", owed=True)
    rows = [memory.remember(said(f"q{number}"), why="mentioned", owed=True) for number in range(3)]
    newest = memory.newest_row()
    memory.remember(said("of this process"), why="mentioned", owed=True)
    answer(memory, rows[0] or 0, "posted", "p1")
    memory.settle(rows[1] or 0)

    def owed() -> list[str]:
        since = NOW - timedelta(minutes=10)
        found = memory.unanswered("test", since=since, until=newest, command="command")
        return [each.message.text for each in found]

    for _ in range(5):
        assert owed() == ["q2"]
        memory.take_on(rows[2] or 0)
    assert owed() == []


def test_a_reply_that_nobody_saw_is_gone(memory: Memory) -> None:
    """It leaves the context, and the one whose place it was to take stands again; one that stands stays."""
    row = hear(memory, said("q"))
    old = answer(memory, row, "old", "p1")
    new = memory.remember_reply("new", answers=row, sent_at=NOW, adapter=None, details={}, replaces=old)
    memory.withdraw(new or 0, restored=old)
    assert texts(memory) == ["q", "old"]
    memory.withdraw(old)
    assert texts(memory) == ["q", "old"]


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


def test_what_members_choose_and_judge_is_found_again(memory: Memory) -> None:
    """Who said yes, which answers were liked, which questions those answered, and who is meant by a name."""
    first, second = hear(memory, said("q1", id="1")), hear(memory, said("q2", id="2", author="bob"))
    liked, disliked = answer(memory, first, "a1", "p1"), answer(memory, second, "a2", "p2")
    memory.feedback(HERE, "p1", "ann", True, NOW)
    memory.feedback(HERE, "p2", "ann", True, NOW)
    memory.feedback(HERE, "p2", "bob", False, NOW)
    memory.set_consent("test", "ann", True, NOW)
    memory.set_consent("test", "bob", False, NOW)
    good, bad = memory.judged()
    assert memory.consented() == ["test:ann"]
    assert memory.questions(good) == {"1"}
    assert memory.questions(bad) == {"2"}
    assert memory.find_members("Bob") == memory.find_members("test:bob") == [("test", "bob")]
    assert memory.feedback_counts("test", "") == (2, 1)
    assert memory.details(liked) == memory.details(disliked) == {"seed": 1}
    assert memory.in_thread(HERE)
    memory.feedback(HERE, "p2", "bob", None, NOW, was=False)
    assert memory.judged()[1] == []


@pytest.mark.parametrize("text", ["a\0b", "half a \ud83d pair", "🎉 عربى", "x" * 100_000])
def test_any_words_can_be_remembered(memory: Memory, text: str) -> None:
    """What a person or a model can send is stored on every database, and answering goes on."""
    row = hear(memory, said(text, id="1"))
    answer(memory, row, text, "p1")
    assert memory.edit(HERE, "1", text)
    assert len(texts(memory)) == 2
    assert all(len(kept) >= len(text) - 1 for kept in texts(memory))


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
        (_text_file, "is not a database"),
        (_folder_is_a_file, "cannot be created"),
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
    monkeypatch.setattr("core.memory.database.BUSY_SECONDS", 0.05)
    memory = open_memory(f"sqlite:///{tmp_path / 'm.db'}")
    other = sqlite3.connect(tmp_path / "m.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked"):
        memory.remember(said("hi"))
    other.execute("ROLLBACK")
    assert memory.remember(said("hi")) is not None


def test_a_place_is_forgotten_with_all_that_hangs_from_it(memory: Memory) -> None:
    """A deleted channel takes its threads, answers, posts, feedback and settings; other channels stay."""
    here = said("here", channel="c1", kind=Kind.CHANNEL)
    thread = said("in a thread", channel="c1", thread="t1", kind=Kind.THREAD)
    other = said("there", channel="c2", kind=Kind.CHANNEL)
    for number, message in enumerate((here, thread, other)):
        row = memory.remember(message)
        assert row is not None
        reply = answer(memory, row, "yes")
        memory.posted(reply, message.conversation, [f"p{number}"])
        assert memory.feedback(message.conversation, f"p{number}", "bob", True, NOW)
    memory.change_settings(here.conversation, temperature=0.1)
    assert memory.remove_place(thread.conversation) == Removed(messages=1, replies=1)
    assert memory.channel_settings(here.conversation).temperature == 0.1
    assert memory.remove_place(here.conversation) == Removed(messages=1, replies=1)
    assert memory.channel_settings(here.conversation).temperature is None
    assert [item.message.text for item in memory.everything()] == ["there", "yes"]
    assert memory.feedback_counts("test") == (1, 0)
    assert memory.remove_place(here.conversation) == Removed(messages=0, replies=0)


def test_a_channel_moves_with_all_that_hangs_from_it(memory: Memory) -> None:
    """Words, posts, choices and threads are under the new id; what came under both ids stays as it is."""
    thread = said("in the thread", kind=Kind.THREAD, thread="t1")
    reply = answer(memory, hear(memory, said("hi", id="1")), "hello", "p1")
    hear(memory, thread)
    memory.change_settings(HERE, temperature=0.5)
    new = replace(HERE, channel="c9")
    hear(memory, replace(said("hi", id="1"), conversation=new))
    memory.move_channel(HERE, "c9")
    assert texts(memory, new) == ["hi", "hello", "hi"]
    assert texts(memory, replace(thread.conversation, channel="c9")) == ["in the thread"]
    assert texts(memory) == []
    assert memory.reply_of(new, "p1") == reply
    assert memory.reply_of(HERE, "p1") is None
    assert memory.channel_settings(new).temperature == 0.5


def test_what_opened_a_thread_stands_in_front_of_it(memory: Memory) -> None:
    """Stored late and once, it is the first of the thread; not where the thread was reset."""
    first, second = (said(text, thread="t", kind=Kind.THREAD) for text in ("one", "two"))
    row = memory.remember(first)
    opening = replace(said("zero", id="t"), conversation=first.conversation)
    assert not memory.knows_opening(first.conversation)
    for _ in range(2):
        memory.remember_opening(opening)
    memory.remember(second)
    assert memory.knows_opening(first.conversation)
    assert [each.message.text for each in memory.window(first.conversation, limit=9)] == ["zero", "one", "two"]
    assert [each.message.text for each in memory.window(first.conversation, limit=9, until=row)] == ["zero", "one"]
    other = said("one", thread="u", kind=Kind.THREAD).conversation
    memory.reset(other)
    assert memory.knows_opening(other)
    memory.remember_opening(replace(said("zero", id="u"), conversation=other))
    assert memory.window(other, limit=9) == []
