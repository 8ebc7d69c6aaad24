"""What of the bot's own log may be learned: who said yes, since when, and what nobody disliked."""

from datetime import UTC, datetime, timedelta

from core.memory import Memory, open_memory
from core.messages import Conversation, Message
from training.privacy.own_log import learnable

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HERE = Conversation(platform="test", channel="c")


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def says(memory: Memory, minute: int, author: str, text: str) -> int:
    row = memory.remember(
        Message(
            conversation=HERE,
            id=f"{author}-{minute}",
            author=author,
            author_name=author,
            text=text,
            sent_at=at(minute),
        )
    )
    assert row is not None
    return row


def answers(memory: Memory, row: int, text: str, *, thumb: bool | None = None, instead: int | None = None) -> int:
    """The bot's answer, posted, and what Bob thinks of it."""
    reply = memory.remember_reply(text, answers=row, sent_at=NOON, adapter=None, details={}, replaces=instead)
    assert reply is not None
    memory.posted(reply, HERE, [text])
    if thumb is not None:
        memory.feedback(HERE, text, "bob", thumb, NOON)
    return reply


def told(memory: Memory) -> list[str]:
    return [message.text for message in learnable(memory) if message.text]


def test_consent_holds_from_then_on() -> None:
    """Earlier words stay out; yes twice is the first yes; no takes everything back, and a new yes begins anew."""
    memory = open_memory("sqlite://")
    for minute in range(5):
        says(memory, minute, "ann", f"word {minute}")
        says(memory, minute, "eve", "never asked")
    table = [
        (True, 2, ["word 2", "word 3", "word 4"]),
        (True, 4, ["word 2", "word 3", "word 4"]),
        (False, 4, []),
        (True, 4, ["word 4"]),
    ]
    for given, minute, heard in table:
        memory.set_consent("test", "ann", given, at(minute))
        assert told(memory) == heard


def test_a_disliked_reply_goes_with_what_it_answered() -> None:
    """A thumb down outweighs a thumb up; a reply that `again` replaced is gone as well."""
    memory = open_memory("sqlite://")
    memory.set_consent("test", "ann", True, NOON)
    answers(memory, says(memory, 0, "ann", "liked question"), "liked", thumb=True)
    answers(memory, says(memory, 1, "ann", "disliked question"), "disliked", thumb=False)
    memory.feedback(HERE, "disliked", "ann", True, NOON)
    asked = says(memory, 3, "ann", "asked again")
    answers(memory, asked, "second", instead=answers(memory, asked, "first"))
    assert sorted(told(memory)) == ["asked again", "liked", "liked question", "second"]
