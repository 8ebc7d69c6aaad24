"""When the bot speaks: one table row a rule."""

from datetime import UTC, datetime, time, timedelta

import pytest

from core.messages import Kind, Message
from core.policy import Recent, Rules, Why, decide
from tests.fakes import said

NOON = time(12)
CHANNEL = said("hello there", kind=Kind.CHANNEL)
SENT = datetime(2026, 1, 1, 12, tzinfo=UTC)
CHATTY = Rules(ambient_chance=0.5)


@pytest.mark.parametrize(
    ("message", "rules", "recent", "why"),
    [
        (said("hi"), Rules(), Recent(), Why.DIRECT),
        (said("hi", kind=Kind.CHANNEL, mentions_bot=True), Rules(), Recent(), Why.MENTION),
        (said("hi", kind=Kind.CHANNEL, replies_to_bot=True), Rules(), Recent(), Why.REPLY),
        (said("hi", kind=Kind.THREAD, joined_thread=True), Rules(), Recent(), Why.THREAD),
        (said("hi", kind=Kind.THREAD), Rules(), Recent(), Why.NOT_ADDRESSED),
        (CHANNEL, Rules(), Recent(), Why.NOT_ADDRESSED),
        (CHANNEL, CHATTY, Recent(), Why.AMBIENT),
        (CHANNEL, CHATTY, Recent(last_ambient=SENT - timedelta(seconds=5)), Why.COOL_DOWN),
        (CHANNEL, CHATTY, Recent(last_ambient=SENT - timedelta(hours=1)), Why.AMBIENT),
        (CHANNEL, CHATTY, Recent(in_a_row=3), Why.ENOUGH),
        (CHANNEL, Rules(ambient_chance=0.5, quiet_hours=(time(11), time(13))), Recent(), Why.QUIET_HOURS),
        (CHANNEL, Rules(ambient_chance=0.5, quiet_hours=(time(23), time(7))), Recent(), Why.AMBIENT),
        (CHANNEL, Rules(ambient_chance=0.5, quiet_hours=(time(22), time(13))), Recent(), Why.QUIET_HOURS),
        (
            said("hi", kind=Kind.CHANNEL, mentions_bot=True),
            Rules(allowed_channels=frozenset({"c2"})),
            Recent(),
            Why.NOT_ALLOWED,
        ),
        (
            said("hi", kind=Kind.CHANNEL, mentions_bot=True),
            Rules(allowed_channels=frozenset({"c1"})),
            Recent(),
            Why.MENTION,
        ),
        (said("hi", kind=Kind.CHANNEL, mentions_bot=True), Rules(allowed_here=False), Recent(), Why.NOT_ALLOWED),
        (said("hi"), Rules(allowed_channels=frozenset({"c2"})), Recent(), Why.DIRECT),
        (said(" \n "), Rules(), Recent(), Why.EMPTY),
        (said("hi", from_bot=True), Rules(), Recent(), Why.OWN_WORDS),
    ],
)
def test_decide(message: Message, rules: Rules, recent: Recent, why: Why) -> None:
    """The first rule that applies decides, and says which it was."""
    assert decide(message, rules, recent, roll=0.3, local_time=NOON).why is why


def test_chance_is_a_chance() -> None:
    """The roll must fall below the chance; a chance of 0 never answers."""
    assert decide(CHANNEL, CHATTY, Recent(), roll=0.49, local_time=NOON).answer
    assert not decide(CHANNEL, CHATTY, Recent(), roll=0.5, local_time=NOON).answer
    assert not decide(CHANNEL, Rules(), Recent(), roll=0.0, local_time=NOON).answer


def test_words_of_a_closed_channel_are_not_stored() -> None:
    """Where the bot may not talk it does not listen either."""
    closed = decide(CHANNEL, Rules(allowed_here=False), Recent(), roll=0.9, local_time=NOON)
    assert not closed.remember
    assert decide(CHANNEL, Rules(), Recent(), roll=0.9, local_time=NOON).remember
