"""When the bot speaks: one table row a rule."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from core.messages import Kind, Message
from core.policy import MAX_AMBIENT, MAX_RAPID, Activity, Answers, Rules, Why, calls, decide
from tests.fakes import said

NOON = time(12)
CHANNEL = said("hello there", kind=Kind.CHANNEL)
SENT = datetime(2026, 1, 1, 12, tzinfo=UTC)
CHATTY = Rules(ambient_chance=0.5)
NAMED = said("what do you think, robo?", kind=Kind.CHANNEL)
NAMES = Rules(names=frozenset({"Robo", "Person2"}))


@pytest.mark.parametrize(
    ("message", "rules", "activity", "why"),
    [
        (said("hi"), Rules(), Activity(), Why.DIRECT),
        (said("hi", kind=Kind.CHANNEL, mentions_bot=True), Rules(), Activity(), Why.MENTION),
        (said("hi", kind=Kind.CHANNEL, replies_to_bot=True), Rules(), Activity(), Why.REPLY),
        (said("hi", kind=Kind.THREAD, joined_thread=True), Rules(), Activity(), Why.THREAD),
        (said("hi", kind=Kind.THREAD), Rules(), Activity(), Why.NOT_ADDRESSED),
        (
            said("hi", kind=Kind.THREAD, joined_thread=True, mentions_others=True),
            Rules(),
            Activity(),
            Why.NOT_ADDRESSED,
        ),
        (
            said("hi", kind=Kind.THREAD, joined_thread=True, mentions_others=True, mentions_bot=True),
            Rules(),
            Activity(),
            Why.MENTION,
        ),
        (
            said("hi", kind=Kind.THREAD, replies_to_bot=True, mentions_others=True),
            Rules(),
            Activity(),
            Why.NOT_ADDRESSED,
        ),
        (said("hi", kind=Kind.CHANNEL, replies_to_bot=True, mentions_others=True), Rules(), Activity(), Why.REPLY),
        (said("hi"), Rules(), Activity(rapid=MAX_RAPID), Why.ENOUGH),
        (CHANNEL, Rules(), Activity(), Why.NOT_ADDRESSED),
        (CHANNEL, CHATTY, Activity(), Why.AMBIENT),
        (CHANNEL, CHATTY, Activity(last_ambient=SENT - timedelta(seconds=5)), Why.COOL_DOWN),
        (CHANNEL, CHATTY, Activity(last_ambient=SENT - timedelta(hours=1)), Why.AMBIENT),
        (CHANNEL, CHATTY, Activity(ambient=MAX_AMBIENT), Why.ENOUGH),
        (CHANNEL, Rules(ambient_chance=0.5, quiet_hours=(time(11), time(13))), Activity(), Why.QUIET_HOURS),
        (CHANNEL, Rules(ambient_chance=0.5, quiet_hours=(time(23), time(7))), Activity(), Why.AMBIENT),
        (CHANNEL, Rules(ambient_chance=0.5, quiet_hours=(time(22), time(13))), Activity(), Why.QUIET_HOURS),
        (
            said("hi", kind=Kind.CHANNEL, mentions_bot=True),
            Rules(allowed_channels=frozenset({"c2"})),
            Activity(),
            Why.NOT_ALLOWED,
        ),
        (
            said("hi", kind=Kind.CHANNEL, mentions_bot=True),
            Rules(allowed_channels=frozenset({"c1"})),
            Activity(),
            Why.MENTION,
        ),
        (said("hi", kind=Kind.CHANNEL, mentions_bot=True), Rules(allowed_here=False), Activity(), Why.NOT_ALLOWED),
        (said("hi"), Rules(allowed_channels=frozenset({"c2"})), Activity(), Why.DIRECT),
        (said("hi"), Rules(direct_messages=False), Activity(), Why.NO_DIRECT),
        (said("hi"), Rules(ignored=frozenset({"ann"})), Activity(), Why.IGNORED),
        (said("hi"), Rules(ignored=frozenset({"test:ann"})), Activity(), Why.IGNORED),
        (said("hi"), Rules(ignored=frozenset({"other:ann", "@muted"})), Activity(), Why.DIRECT),
        (said("hi", author_roles=frozenset({"muted"})), Rules(ignored=frozenset({"@muted"})), Activity(), Why.IGNORED),
        (said("hi", author_roles=None), Rules(ignored=frozenset({"@muted"})), Activity(), Why.IGNORED),
        (said("hi", author_roles=None), Rules(ignored=frozenset({"ben"})), Activity(), Why.DIRECT),
        (said("hi", author="U1"), Rules(ignored=frozenset({"u1"})), Activity(), Why.IGNORED),
        (NAMED, NAMES, Activity(), Why.NOT_ADDRESSED),
        (NAMED, replace(NAMES, answers=Answers.NAME), Activity(), Why.NAME),
        (CHANNEL, replace(NAMES, answers=Answers.NAME), Activity(), Why.NOT_ADDRESSED),
        (replace(NAMED, mentions_others=True), replace(NAMES, answers=Answers.NAME), Activity(), Why.NOT_ADDRESSED),
        (CHANNEL, Rules(answers=Answers.ALL), Activity(), Why.EVERYTHING),
        (NAMED, replace(NAMES, answers=Answers.ALL), Activity(), Why.NAME),
        (replace(CHANNEL, mentions_others=True), Rules(answers=Answers.ALL), Activity(), Why.NOT_ADDRESSED),
        (replace(CHANNEL, mentions_others=True), CHATTY, Activity(), Why.NOT_ADDRESSED),
        (CHANNEL, Rules(answers=Answers.ALL), Activity(rapid=MAX_RAPID), Why.ENOUGH),
        (replace(CHANNEL, mentions_bot=True), Rules(answers=Answers.OFF), Activity(), Why.COMMANDS_ONLY),
        (said("hi"), Rules(answers=Answers.OFF), Activity(), Why.DIRECT),
        (said(" \n "), Rules(), Activity(), Why.EMPTY),
        (said("hi", from_bot=True), Rules(), Activity(), Why.OWN_WORDS),
    ],
)
def test_decide(message: Message, rules: Rules, activity: Activity, why: Why) -> None:
    """The first rule that applies decides, and says which it was."""
    assert decide(message, rules, activity, roll=0.3, local_time=NOON).why is why


def test_chance_is_a_chance() -> None:
    """The roll must fall below the chance; a chance of 0 never answers."""
    assert decide(CHANNEL, CHATTY, Activity(), roll=0.49, local_time=NOON).answer
    assert not decide(CHANNEL, CHATTY, Activity(), roll=0.5, local_time=NOON).answer
    assert not decide(CHANNEL, Rules(), Activity(), roll=0.0, local_time=NOON).answer


def test_words_of_a_closed_channel_are_not_stored() -> None:
    """Where the bot may not talk it does not listen either."""
    closed = decide(CHANNEL, Rules(allowed_here=False), Activity(), roll=0.9, local_time=NOON)
    assert not closed.remember
    assert decide(CHANNEL, Rules(), Activity(), roll=0.9, local_time=NOON).remember


def test_who_answers_faster_than_anybody_types_is_counted() -> None:
    """Forty characters need some seconds; another speaker, or one that takes their time, starts the count anew."""
    activity = Activity()

    def hears(seconds: float, author: str = "ann") -> int:
        nonlocal activity
        activity = replace(activity, posted_at=SENT).heard(
            said("x" * 40, author=author), SENT + timedelta(seconds=seconds)
        )
        return activity.rapid

    assert [hears(0), hears(0.5), hears(1), hears(2)] == [0, 1, 2, 3]
    assert hears(4) == 0
    assert [hears(1), hears(1, "ben"), hears(1, "ben")] == [1, 0, 1]


def test_what_is_written_while_the_bot_thinks_is_not_rapid() -> None:
    """Only the first message after a post of ours can be an answer to it."""
    activity = Activity(speaker="ann", posted_at=SENT)
    for _ in range(5):
        activity = activity.heard(CHANNEL, SENT)
    assert activity.rapid == 1


@pytest.mark.parametrize(
    ("text", "called"),
    [
        ("Robo, are you there?", True),
        ("hey ROBO!", True),
        ("robots are fun", False),
        ("my microrobo", False),
        ("ask Ann B. about it", True),
        ("ask Ann about B.", False),
    ],
)
def test_a_name_counts_where_it_stands_as_a_word(text: str, called: bool) -> None:
    """In any case, with punctuation around it, and not as a part of another word."""
    assert calls(text, {"Robo", "Ann B."}) is called
    assert not calls(text, set())
