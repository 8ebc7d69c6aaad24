"""What a base learns from: cleaning, holding out, weights."""

from pathlib import Path

import pytest

from core.dialogue import Speaker, render
from core.errors import TrainingError
from tests.training.toys import TEXTS, dialogue
from training.pretrain import corpora


@pytest.mark.parametrize(
    ("written", "learned"),
    [
        ("I like it .", "I like it."),
        ("PERSON: I like it", "I like it"),
        ("well Person 2: yes", "well yes"),
        ("nooooooooooo", "nooo"),
        ("i dont no , u ?", "i dont no, u?"),
        ("see https://example.org/x", ""),
        ("a &amp; b", ""),
        ("<b>hi</b>", ""),
        ("?!", ""),
        ("word " * 400, ""),
    ],
)
def test_cleaning_removes_what_the_collection_left_and_nothing_else(written: str, learned: str) -> None:
    """Tags and markup go, spelling and case stay; an empty result means the dialogue is left out."""
    assert corpora.clean(written) == learned


def test_a_dialogue_with_junk_in_one_turn_is_left_out_and_counted(tmp_path: Path) -> None:
    """A turn cannot be dropped alone: its neighbours would answer nothing."""
    path = tmp_path / "a.txt"
    path.write_text(TEXTS[0] + "\nPerson1: look\nPerson2: http://a.example\n", encoding="utf-8")
    corpus = corpora.load(corpora.CorpusSource(path=path, weight=1))
    assert (corpus.texts, corpus.dropped) == ((TEXTS[0],), 1)


def test_a_stock_answer_is_learned_a_few_dozen_times_at_most(tmp_path: Path) -> None:
    """Else a few stock answers would be likely after anything; an answer about being a bot is one like others."""
    path = tmp_path / "pairs.txt"
    pairs = [(f"Number {n}?", "Gotcha.") for n in range(40)] + [("Are you one?", "I'm a bot, so yes.")]
    path.write_text("\n".join(render(dialogue(*pair)) for pair in pairs), encoding="utf-8")
    corpus = corpora.load(corpora.CorpusSource(path=path, weight=1))
    assert len(corpus.texts) == corpora.SAME_ANSWER + 1
    assert corpus.dropped == 40 - corpora.SAME_ANSWER


def test_every_tenth_dialogue_is_held_out_by_a_fixed_rule(talk: Path) -> None:
    """The same file gives the same four of forty, and none of them is learned from."""
    corpus = corpora.load(corpora.CorpusSource(path=talk, weight=1, hold_out=True))
    assert corpus.held_out == tuple(f"{text.rstrip()}\n" for text in talk.read_text().split("\n\n")[9::10])
    assert len(corpus.texts) == 36
    assert not any(held.endswith(text) for held in corpus.held_out for text in corpus.texts)


def test_every_fourth_dialogue_begins_at_one_of_person2s_turns() -> None:
    """Each of the later turns in its turn, so that a bare `Person2:` reads as any reply and not as an opening."""
    turns = dialogue("a", "b", "c", "d", "e", "f")
    assert [len(corpora.midway(turns, number)) for number in range(1, 17)] == [
        *(6, 6, 6, 3),
        *(6, 6, 6, 1),
        *(6, 6, 6, 5),
        *(6, 6, 6, 3),
    ]
    assert all(corpora.midway(turns, number)[0].speaker is Speaker.PERSON2 for number in (4, 8, 12))
    assert corpora.midway(turns[:3], 4) == turns[:3]


@pytest.mark.parametrize(("spec", "weight"), [("a.txt", 1.0), ("a.txt=3", 3.0), ("dir=x/a.txt=0.5", 0.5)])
def test_a_file_may_carry_a_weight(spec: str, weight: float) -> None:
    """Without one it counts once."""
    source = corpora.parse_source(spec)
    assert (source.weight, source.name) == (weight, "a")


@pytest.mark.parametrize("spec", ["a.txt=", "a.txt=much", "a.txt=0", "a.txt=-1", "a.txt=nan", "a.txt=inf"])
def test_a_weight_that_is_no_positive_number_is_refused(spec: str) -> None:
    """The sentence shows how to write it."""
    with pytest.raises(TrainingError, match=r"talk\.txt=3"):
        corpora.parse_source(spec)
