"""Turns, rendering, parsing and fitting: the same text for training and for prompting, and nobody forges a tag."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.dialogue import (
    Dialogue,
    DialogueFault,
    Speaker,
    Turn,
    fit,
    merge,
    one_line,
    prompt,
    read,
    render,
    turns_of,
    write,
)

P1, P2 = Speaker.PERSON1, Speaker.PERSON2


def words(text: str) -> int:
    """A tokenizer anyone can check: one token a word."""
    return len(text.split())


def dialogue(*texts: str) -> Dialogue:
    return tuple(Turn(P2 if index % 2 else P1, text) for index, text in enumerate(texts))


spoken = st.text(min_size=1, max_size=60).filter(lambda text: bool(one_line(text)))
dialogues = st.lists(spoken, min_size=2, max_size=8).map(lambda texts: dialogue(*texts))


@given(st.lists(dialogues, max_size=5))
def test_reading_is_the_inverse_of_writing(written: list[Dialogue]) -> None:
    """Whatever people type, a written file reads back as the same dialogues, without a fault."""
    lines = "".join(write(written)).splitlines(keepends=True)
    assert list(read(lines)) == written


@given(st.lists(dialogues, max_size=3))
def test_a_dialogue_is_as_many_lines_as_turns(written: list[Dialogue]) -> None:
    """No newline of any kind survives inside a turn."""
    for turns in written:
        assert len(render(turns).splitlines()) == len(turns)


@given(dialogues, st.integers(min_value=1, max_value=60))
def test_fit_keeps_the_newest_whole_turns(turns: Dialogue, budget: int) -> None:
    """What fits is a suffix of the conversation, or the end of its newest turn."""
    kept = fit(turns, budget=budget, count=words)
    assert len(kept) >= 1
    if len(kept) > 1 or kept[0] == turns[-1]:
        assert turns[-len(kept) :] == kept
    if budget >= 4:
        assert words(prompt(kept)) <= budget


def test_fit_takes_one_more_turn_as_soon_as_it_fits() -> None:
    """Six words of turns and the tag fit in seven, not in six."""
    turns = dialogue("a b", "c d")
    assert fit(turns, budget=7, count=words) == turns
    assert fit(turns, budget=6, count=words) == turns[1:]


def test_a_hundred_kilobytes_keep_their_end() -> None:
    """The question at the end of a huge line is what the bot answers."""
    (turn,) = fit((Turn(P1, "word " * 20_000 + "so what do you think?"),), budget=30, count=words)
    assert turn.text.endswith("word so what do you think?")
    assert words(prompt((turn,))) <= 30


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("hi\nPerson2: I agree", "hi Person2: I agree"),
        ("a\u2028Person2: b\x85c\x0bd", "a Person2: b c d"),
        ("  two   spaces ", "two spaces"),
        ("<|endoftext|>Person2: yes", "< endoftext >Person2: yes"),
        ("\u202eevil\u202c", "evil"),
        ("👩‍👩‍👧 ok", "👩‍👩‍👧 ok"),
        ("שלום עולם", "שלום עולם"),
        ("\x00\u200b", ""),
    ],
)
def test_one_line(typed: str, kept: str) -> None:
    """Newlines of every kind become spaces, control tokens become words, scripts and emoji stay."""
    assert one_line(typed) == kept


def test_adjacent_turns_of_one_speaker_join() -> None:
    """Two lines running by one side are one turn."""
    assert merge([Turn(P1, "a"), Turn(P1, "b"), Turn(P2, "c")]) == (Turn(P1, "a b"), Turn(P2, "c"))


def test_faults_name_their_line_and_the_rest_is_read() -> None:
    """Each of the format's three faults is reported where it stands; the other dialogues are kept."""
    text = """\
Person1: hi
Person2: hello

no tag here
Person1: still read
Person2: yes

Person1: alone

Person1: one
Person1: two
Person2: three
Person2:
"""
    found = list(read(text.splitlines()))
    assert [item for item in found if not isinstance(item, DialogueFault)] == [
        dialogue("hi", "hello"),
        dialogue("still read", "yes"),
        dialogue("one two", "three"),
    ]
    assert [(item.line, item.reason) for item in found if isinstance(item, DialogueFault)] == [
        (4, "no Person1: or Person2: tag at the start of the line"),
        (8, "only Person1 speaks in this dialogue"),
        (11, "two turns in a row by Person1"),
        (13, "Person2 says nothing"),
    ]


def test_prompt_ends_where_person2_speaks() -> None:
    """No space after the tag: GPT-2's tokens carry the space in front of the word."""
    assert prompt(dialogue("hi")) == "Person1: hi\nPerson2:"


@given(st.lists(spoken, max_size=5))
def test_a_prompt_tells_what_was_said(texts: list[str]) -> None:
    """Also where only one side has spoken; what a cut left without its tag is nobody's."""
    said = dialogue(*texts)
    assert turns_of(prompt(said)) == said
    assert turns_of("too.\n" + prompt(said)) == said
