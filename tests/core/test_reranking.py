"""Which of several replies is said."""

import pytest

from core.generator import Candidate
from core.reranking import (
    REPETITION,
    SENTIMENT_MISMATCH,
    UNKNOWN_NAME,
    is_sentiment_mismatch,
    ranked,
    repeats,
    uses_unknown_name,
)


def best(prompt: str, replies: list[str], information: list[float]) -> int:
    """The index of the reply that comes first."""
    drawn = [
        Candidate(text=text, finish="stop", information=nats) for text, nats in zip(replies, information, strict=True)
    ]
    first = ranked(prompt, drawn)[0]
    return next(index for index, candidate in enumerate(drawn) if candidate is first)


TALK = "Person1: Do you like movies?\nPerson2: Yes, I like them.\nPerson1: Which ones do you like?\nPerson2:"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (" I like to watch TV, watch movies, and watch movies.", True),
        (" I love to cook and cook.", True),
        (" I like them too, too.", True),
        (" I like comedies. Comedies are fun.", False),  # two sentences take a word up again
        (" I like that you like it.", False),
        (" Yes, I like them!", True),  # said already, by itself
        (" Do you like movies?", True),  # and by the other
        (" Movies.", False),
        (" I was in that that day.", True),
        (" I do, I do.", True),
        (" I'm doing well, thank you. I am doing well, thanks for asking!", True),
        ("", False),
    ],
)
def test_a_reply_repeats_itself_or_what_was_said(reply: str, expected: bool) -> None:
    assert repeats(TALK, reply) is expected


def test_a_sentence_is_not_said_again_behind_another_nor_shortened() -> None:
    talk = "Person1: Do you like dogs?\nPerson2: I have a dog too.\nPerson1: I'm not very good at it.\nPerson2:"
    assert repeats(talk, " I have a dog.")
    assert repeats(talk, " That's okay. I'm not very good at it.")
    assert not repeats(talk, " That's okay. I'm not very good at it either.")
    assert not repeats(talk, " A dog too.")
    greeting = "Person1: Hello.\nPerson2: Hi! How are you?\nPerson1: Hello?\nPerson2:"
    assert repeats(greeting, " Hi! How are you?")  # short sentences, but the whole line
    assert not repeats(greeting, " How are you?")


def test_the_first_line_of_a_talk_is_not_echoed() -> None:
    first = "Person1: I play the piano.\nPerson2:"
    assert repeats(first, " Oh, that's cool! I play the piano.")
    assert not repeats(first, " Oh, that's cool! I play the piano too.")


def test_short_lines_may_come_again() -> None:
    assert not repeats("Person1: Thanks.\nPerson2: You're welcome.\nPerson1: Thanks.\nPerson2:", " You're welcome.")


def test_the_best_informed_reply_is_said_unless_it_repeats() -> None:
    replies = [" Drama.", " I like comedies.", " Comedies, comedies and more."]
    assert best(TALK, replies, [1.0, 3.0, 2.0]) == 1
    assert best(TALK, replies, [1.0, 3.0, 3.0 + REPETITION / 2]) == 1
    assert best(TALK, replies, [1.0, 1.0, 0.0]) == 0
    assert best(TALK, [" Drama."] + [" I like comedies."] * 4, [3.0, *[1.7] * 4]) == 1  # four of five agree
    assert best(TALK, [" Drama."] + [" I like comedies."] * 4, [3.5, *[1.7] * 4]) == 0
    assert best(TALK, [" Yes, I like them."] * 2, [-9.0, -8.0]) == 1  # where all repeat, the score decides


MET = "Person1: hi, i'm anna\nPerson2: Hello Anna, nice to meet you.\nPerson1: What a nice day!\nPerson2:"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (" You too, John.", True),
        (" Hi Sarah, how are you?", True),
        (" You too, Anna!", False),  # however she wrote it
        (" Nice to meet you, Anna. My name is John.", False),  # one's own name is no stranger's
        (" Nice to meet you too!", False),
        (" Nice to meet you, too.", False),
        (" Nice to meet you, anna!", False),
        (" Nice to meet you, annabo!", True),  # in small letters likewise
        (" Nice to meet you too,John.", True),
        (" Nice to meet you, I'm Sarah.", False),
        (" You too, bye!", False),
        (" I like that too, Bohemian Rhapsody.", False),
        (" See you, I hope.", False),
        (" Good morning, Everyone!", False),
        (" Nice to meet you, goodbye.", False),
        (" My favorite band is Queen.", False),
        ("", False),
    ],
)
def test_nobody_is_called_by_a_name_that_nobody_said(reply: str, expected: bool) -> None:
    assert uses_unknown_name(MET, reply) is expected


def test_a_made_up_name_is_said_only_where_nothing_else_comes_near() -> None:
    replies = [" You too, John.", " You too!"]
    assert best(MET, replies, [UNKNOWN_NAME - 0.5, 0.0]) == 1
    assert best(MET, replies, [UNKNOWN_NAME + 0.5, 0.0]) == 0


def test_what_says_nothing_is_no_candidate_and_what_has_no_score_may_be_said() -> None:
    drawn = [Candidate(text=text, finish="stop") for text in ("  ", " Comedies and comedies.", " Drama.", " Drama.")]
    assert [candidate.text for candidate in ranked(TALK, drawn)] == [" Drama.", " Drama.", " Comedies and comedies."]


def test_gladness_at_bad_news_is_said_only_where_nothing_else_comes_near() -> None:
    talk = "Person1: I won a race!\nPerson2: Congratulations!\nPerson1: Then I lost my keys.\nPerson2:"
    replies = [" I'm happy to hear that.", " Where did you have them last?"]
    assert best(talk, replies, [SENTIMENT_MISMATCH - 0.5, 0.0]) == 1
    assert best(talk, replies, [SENTIMENT_MISMATCH + 0.5, 0.0]) == 0
    assert best(talk, [" Congratulations!", " I'm sorry to hear that."], [0.5, 0.0]) == 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (" Where did you have them last?", False),
        (" That's great!", True),
        (" Oh no! I'm sorry to hear that.", False),
    ],
)
def test_only_the_last_line_counts_for_what_is_heartless(reply: str, expected: bool) -> None:
    talk = "Person1: I won a race!\nPerson2: Congratulations!\nPerson1: Then I lost my keys.\nPerson2:"
    assert is_sentiment_mismatch(talk, reply) is expected
    assert is_sentiment_mismatch("Person2:", reply) is False
