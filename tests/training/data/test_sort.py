"""The sorted table: any order of writing, every message once, and what belongs together in one conversation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from core.messages import Conversation, Kind, Message
from training.data import sort

START = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
Said = tuple[float, str, str]


def messages(
    channel: str, talk: Sequence[Said], *, ids: bool = False, platform: str = "whatsapp", thread: str | None = None
) -> list[Message]:
    """(second, author, words) each; ids are made from second and author where the format has some."""
    where = Conversation(
        platform=platform, channel=channel, thread=thread, kind=Kind.THREAD if thread else Kind.CHANNEL
    )
    return [
        Message(
            conversation=where,
            id=f"{second}-{author}" if ids else "",
            author=author,
            author_name=author,
            text=words,
            sent_at=START + timedelta(seconds=second),
        )
        for second, author, words in talk
    ]


@contextmanager
def stored(*parts: Sequence[Message]) -> Iterator[tuple[sort.MessageTable, int]]:
    """A settled store of these parts, and how many messages were dropped."""
    with TemporaryDirectory() as folder:
        store = sort.MessageTable(Path(folder) / "messages.db")
        for number, part in enumerate(parts):
            writer = sort.Writer(store.path, number)
            for message in part:
                writer.add(message, 0)
            writer.flush()
        yield store, store.settle()
        store.close()


def talks(store: sort.MessageTable) -> list[list[str]]:
    """What is said in each conversation."""
    found: dict[int, tuple[str, list[tuple[int, int, int]]]] = {}
    for key, address, *place in store.places():
        found.setdefault(key, (address, []))[1].append((place[0], place[1], place[2]))
    return [
        [
            message.text
            for message, _ in sort.messages(
                store.path,
                sort.conversation_of(address),
                sort.Segment(conversation=key, start=places[0], count=len(places)),
            )
        ]
        for key, (address, places) in found.items()
    ]


TALK: list[Said] = [(0, "ann", "is it open?"), (20, "bob", "till six"), (40, "ann", "good"), (60, "bob", "see you")]


@settings(max_examples=40, deadline=None)
@given(times=st.lists(st.integers(0, 60), max_size=80), parts=st.integers(1, 4))
def test_any_order_comes_out_sorted(times: list[int], parts: int) -> None:
    """Whatever order and parts, a conversation is in time order and every id stands once."""
    talk = messages("x", [(second, "ann", f"words {second}") for second in times], ids=True)
    with stored(*(talk[number::parts] for number in range(parts))) as (store, dropped):
        found = [words for said in talks(store) for words in said]
    assert found == [f"words {second}" for second in sorted(set(times))]
    assert dropped == len(times) - len(set(times))


def test_equal_times_keep_the_order_of_the_file() -> None:
    """Minutes are all that some formats have."""
    talk = messages("x", [(0, name, f"{name} {n}") for n in range(5) for name in ("ann", "bob")])
    with stored(talk) as (store, dropped):
        assert talks(store) == [[message.text for message in talk]]
    assert dropped == 0


def test_what_is_said_twice_in_one_file_was_said_twice() -> None:
    """Two "ok" of a minute are two; the same two in a second backup are these two."""
    talk = [(0, "ann", "ok"), (0, "ann", "ok"), (0, "bob", "ok")]
    with stored(messages("x", talk), messages("x", talk)) as (store, dropped):
        assert talks(store) == [["ok", "ok", "ok"]]
    assert dropped == 3


def test_backups_under_other_names_are_one_talk() -> None:
    """Five copies, one of which goes on: each message once, and nothing is torn apart."""
    longer = [*TALK, (80, "ann", "bye")]
    backups = [messages(f"backup{number}/chat", longer if number == 3 else TALK) for number in range(5)]
    with stored(*backups) as (store, dropped):
        assert talks(store) == [[words for *_, words in longer]]
    assert dropped == 16


def test_the_same_word_in_two_chats_is_no_copy() -> None:
    """One person says “ok” in two chats at once; they stay two chats, with all they hold."""
    other: list[Said] = [(0, "ann", "is it open?"), (10, "cid", "what?"), (30, "cid", "the shop?"), (50, "ann", "yes")]
    with stored(messages("one", TALK), messages("two", other)) as (store, dropped):
        assert talks(store) == [[words for *_, words in TALK], [words for *_, words in other]]
    assert dropped == 0


def test_an_edit_in_a_later_export_takes_the_place() -> None:
    """Of the same id the last in order of the sources stays."""
    edited = [*TALK[:1], (20, "bob", "till seven"), *TALK[2:]]
    with stored(messages("x", TALK, ids=True), messages("x", edited, ids=True)) as (store, dropped):
        assert talks(store) == [["is it open?", "till seven", "good", "see you"]]
    assert dropped == 4


def test_a_message_that_became_a_thread_stands_in_the_thread() -> None:
    """The first backup saw it in the channel, the second one in the thread."""
    later = [*messages("C1", TALK[:1], ids=True, thread="0"), *messages("C1", TALK[1:], ids=True)]
    with stored(messages("C1", TALK, ids=True), later) as (store, _):
        assert sorted(talks(store)) == [["is it open?"], ["till six", "good", "see you"]]


def test_a_thread_begins_with_the_message_it_hangs_from() -> None:
    """Discord keeps it in the parent's file; the thread's id is the message's."""
    opening = "1196408320000000000"[:18]
    parent = messages("987654321098765432", TALK, platform="discord")
    parent[0] = Message(
        conversation=parent[0].conversation,
        id=opening,
        author="ann",
        author_name="ann",
        text="who knows roses?",
        sent_at=START,
    )
    with stored(parent, messages(opening, [(90, "bob", "I do")], platform="discord")) as (store, dropped):
        assert ["who knows roses?", "I do"] in talks(store)
    assert dropped == 0


def test_copies_are_counted_once_each_is_there_once() -> None:
    """Five backups of one text are no copy-pasta; a text said five times is."""
    paste: list[Said] = [(second, "eve", "buy my course") for second in range(5)]
    with TemporaryDirectory() as folder:
        store = sort.MessageTable(Path(folder) / "messages.db")
        for part in range(5):
            writer = sort.Writer(store.path, part)
            for message in messages("x", TALK):
                writer.add(message, 7)
            for message in messages("x", paste):
                writer.add(message, 8)
            writer.flush()
        store.settle()
        assert store.copied(5, 10) == {8}
        store.close()
