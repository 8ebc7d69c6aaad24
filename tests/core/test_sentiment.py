"""Which replies share a sentiment, and which take it for its opposite."""

import pytest

from core.sentiment import mismatch, sentiment

GLAD, SORRY = " I'm happy to hear that.", " Oh no! I'm sorry to hear that."


@pytest.mark.parametrize(
    ("line", "glad_is_wrong", "sorry_is_wrong"),
    [
        ("I had a terrible day.", True, False),
        ("i feel awful", True, False),
        ("I don't feel well.", True, False),  # negation turns it round
        ("I won the race.", False, True),
        ("i feel great today", False, True),
        ("I'm not sad any more.", False, True),
        ("I live in Chicago.", False, False),  # nothing felt: either may be said
        ("I miss my friends.", True, False),  # friends are no joy where they are missed
        ("Do you hate Mondays?", False, False),  # a question tells nothing of who asks
        ("Ich bin so glücklich.", False, False),
        ("", False, False),
    ],
)
def test_gladness_and_sorrow_fit_what_was_said(line: str, glad_is_wrong: bool, sorry_is_wrong: bool) -> None:
    assert mismatch(line, GLAD) is glad_is_wrong
    assert mismatch(line, SORRY) is sorry_is_wrong


@pytest.mark.parametrize("reply", [" What happened?", " I see.", " What kind of car?", ""])
def test_what_is_neither_fits_everywhere(reply: str) -> None:
    assert not any(mismatch(line, reply) for line in ("I had a terrible day.", "I won the race.", "I live in Chicago."))


def test_a_long_reply_may_be_sorry_and_glad() -> None:
    long = " I'm sorry to hear that your day was bad, and it's wonderful that you tell me. Shall we talk until you"
    assert not mismatch("I had a terrible day.", f"{long} feel better?")
    assert mismatch("I had a terrible day.", " That's wonderful!")


@pytest.mark.parametrize(
    "reply",
    [
        " I'm sending a hug your way.",
        " I hope you can get some rest soon.",
        " That's a bummer.",
        " Oh, that's too bad.",
        " Sorry you're feeling blue today. Hope things get better soon.",
    ],
)
def test_comfort_is_at_odds_with_joy_alone(reply: str) -> None:
    assert mismatch("I had a wonderful day.", reply)
    assert not mismatch("I had a terrible day.", reply)


@pytest.mark.parametrize(
    "reply",
    [
        " That's cool! What kind of car?",
        " Oh, that's cool.",
        " That's simply nice.",
        " That sounds like fun!",
        " Oh, yay!",
    ],
)
def test_joy_is_at_odds_with_sorrow_alone(reply: str) -> None:
    assert mismatch("My dog died.", reply)
    assert not any(
        mismatch(line, reply) for line in ("I won the race.", "I had a wonderful day.", "I live in Chicago.")
    )


def test_a_feeling_is_a_number_from_misery_to_joy() -> None:
    miserable, weak, happy = map(
        sentiment, ("This is horrible, I hate it!", "I can't pay my rent.", "What a happy day!")
    )
    assert -1 <= miserable < -0.5 < 0 < weak < 0.1 < 0.5 < happy <= 1
