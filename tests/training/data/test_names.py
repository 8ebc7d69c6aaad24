"""Whose name stands in a line, and what is written for it."""

import pytest

from core.dialogue import Speaker
from training.data.names import Names, resolve

PEOPLE = {
    "irc:ann": ["ann", "ann_away"],
    "irc:bob": ["bob"],
    "irc:cat": ["cat"],
    "irc:will": ["will"],
    "irc:x": ["[xy]z"],
    "slack:U1": ["Dora Lee", "dora"],
    "slack:U2": ["Ben"],
    "slack:U3": ["Link"],
}
SIDES = {
    "irc:ann": Speaker.PERSON1,
    "irc:bob": Speaker.PERSON2,
    "irc:will": Speaker.PERSON1,
    "slack:U1": Speaker.PERSON2,
}


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("bob: how do I prune a rose?", "Person2, how do I prune a rose?"),
        ("Bob, how?", "Person2, how?"),
        ("ann_away: back?", "Person1, back?"),
        ("bob do you know?", "Person2 do you know?"),
        ("of roses, cat, as always", "of roses, cat, as always"),
        ("ask @cat or @bob.", "ask [name] or Person2."),
        ("cat: come here", "[name], come here"),
        ("thanks, Dora Lee! and (dora lee)", "thanks, Person2! and (Person2)"),
        ("I met Ben today", "I met [name] today"),
        ("@somebody_else look", "[name] look"),
        ("@everyone look, mail a@b", "@everyone look, mail a@b"),
        ("use @app.route or `@when` or @cache()", "use @app.route or `@when` or @cache()"),
        ("bobsled and anniversary", "bobsled and anniversary"),
        ("first line\nbob: second", "first line\nPerson2, second"),
        ("[xy]z: hi", "[name], hi"),
        ("nobody: hi", "nobody: hi"),
        ("bob - are you there", "Person2 - are you there"),
        ("Bob's box and Dora Lee’s", "Person2's box and Person2’s"),
        ("hello,Bob or Ann/Ben", "hello,Person2 or Person1/[name]"),
        ("ask Bob&Ann—now", "ask Person2&Person1—now"),
        ("bob：さて", "Person2：さて"),
        ("said «Ann», ~Bob~ and „Ben“? so Ann！", "said «Person1», ~Person2~ and „[name]“? so Person1！"),
        ("see https://a.example/Bob and/or it's", "see https://a.example/Bob and/or it's"),
        ("link: look at [link] and [ip]", "[name], look at [link] and [ip]"),
    ],
)
def test_a_name_becomes_the_tag_of_its_side(said: str, written: str) -> None:
    """In front of a line, behind an @, in full, or alone; who has no side in this dialogue is [name]."""
    assert resolve(Names(PEOPLE).mark(said), SIDES) == written


def test_a_name_that_is_an_everyday_word_counts_only_where_it_is_addressed() -> None:
    """The talk tells which it is."""
    names = Names(PEOPLE)
    talk = ["will it rain?", "it will", "will: come", "I will not", "bob: yes", "ok bob", "will you?"]
    everyday = names.everyday(talk)
    assert everyday == {"will"}
    said = [resolve(names.mark(line, everyday=everyday), SIDES) for line in talk]
    assert said == ["will it rain?", "it will", "Person1, come", "I will not", "Person2, yes", "ok bob", "will you?"]


def test_a_name_that_two_people_bear_is_nobodys_unless_one_of_them_is_here() -> None:
    """Of two Anns the one in the dialogue is meant; with both of them on two sides nobody knows."""
    names = Names({"a:1": ["Ann"], "a:2": ["ann"]})
    marked = names.mark("@ann hi")
    assert resolve(marked, {"a:1": Speaker.PERSON1}) == "Person1 hi"
    assert resolve(marked, {"a:1": Speaker.PERSON1, "a:2": Speaker.PERSON2}) == "[name] hi"


def test_marks_cannot_be_smuggled_in() -> None:
    """Private-use characters in a message are no marks."""
    assert resolve(Names(PEOPLE).mark("\ue000irc:bob\ue001 hi"), SIDES) == "irc:bob hi"
