"""What the starter model learns from: cleaning, holding out, and the talk that is chosen or made of it."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from core.dialogue import DialogueFault, read, render
from core.errors import TrainingError
from models.starter.recipe import doing, files, hurried, names, pieces, prose_talk, renamed, scripted, small_talk
from tests.training.toys import dialogue


def test_a_scripted_assistant_is_not_taken_for_a_friend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lone answer about being a bot is left out of the file that is written; talk and other answers stay."""
    path, out = tmp_path / "pairs.txt", tmp_path / "out.txt"
    about_itself = ["I don't need to eat.", "I'm a bot, so yes.", "Chat away!", "I like a lot of stuff.", "No joke."]
    pairs = [(f"Are you {n}?", answer) for n, answer in enumerate(about_itself)]
    path.write_text("\n".join(render(dialogue(*pair)) for pair in [*pairs, ("Hi", "Gotcha.")]), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["scripted", str(path), str(out)])
    scripted.main()
    assert out.read_text(encoding="utf-8") == render(dialogue("Hi", "Gotcha."))


SMALL_TALK = [
    (("Do you like tea?", "Yes, i do."), ("Do you like tea?", "Yes, I do.")),
    (("Do you like tea?", "Yes, i'd say so!"), ("Do you like tea?", "Yes, I'd say so!")),
    (("A tea, i.e. a drink.", "Right."), ("A tea, i.e. a drink.", "Right.")),
    (("do you like tea?", "Yes, I do."), None),
    (("Do you like tea?", "Yes I do"), None),
    (("Do you like tea?", "YESSSS I do."), None),
    (("Do you like tea?", " ".join(["Well"] * 30) + "."), None),
]


@pytest.mark.parametrize(("said", "learned"), SMALL_TALK)
def test_the_bundled_adapter_learns_from_talk_written_with_care(
    said: tuple[str, ...], learned: tuple[str, ...] | None
) -> None:
    """A lower-case i is mended, everything else that is careless is left out."""
    assert list(small_talk.chosen(files.cleaned([dialogue(*said)]), 5)) == ([dialogue(*learned)] if learned else [])


def test_no_answer_is_learned_more_than_three_times(tmp_path: Path) -> None:
    """Stock replies stay few, the file's share is kept, the tenth dialogue is held out, and it comes out the same."""
    path, out = tmp_path / "talk.txt", tmp_path / "out.txt"
    talks = [dialogue(f"Question {n}?", f"Answer {n // 10}.") for n in range(40)]
    path.write_text("\n".join(map(render, talks)), encoding="utf-8")
    assert small_talk.write(out, [f"{path}=100"], hold_out=[path]) == 12
    first = out.read_text(encoding="utf-8")
    assert max(first.count(f"Answer {n}.") for n in range(4)) == 3
    assert not any(f"Question {n}?" in first for n in range(9, 40, 10))
    assert small_talk.write(out, [f"{path}=100"], hold_out=[path]) == 12
    assert out.read_text(encoding="utf-8") == first
    assert small_talk.write(out, [f"{path}=5"]) == 5


def test_of_a_lone_pair_only_the_answer_is_written_with_care(tmp_path: Path) -> None:
    """People tell a bot things as they please, and one answer fits many of them."""
    path, out = tmp_path / "pairs.txt", tmp_path / "out.txt"
    talks = [dialogue(f"im so tired {n}", "I hope you can get some rest.") for n in range(19)]
    talks += [
        dialogue("im hungry", "me too"),
        dialogue("hi", "Hello!", "and you?", "Fine."),
        dialogue("who r u", "A bot."),
    ]
    path.write_text("\n".join(map(render, talks)), encoding="utf-8")
    assert small_talk.write(out, [], pairs=[f"{path}=100"]) == small_talk.SAME_PAIRED
    assert set(re.findall("Person2: (.*)", out.read_text())) == {"I hope you can get some rest."}
    assert small_talk.write(out, [f"{path}=100"]) == 0


def test_pairs_that_share_a_feeling_may_be_taken_more_often(tmp_path: Path) -> None:
    """Told, not asked, and answered with what one says to somebody who feels so: that, many times over."""
    path, out = tmp_path / "pairs.txt", tmp_path / "out.txt"
    talks = [dialogue(f"im so sad {n}", "I'm very sorry to hear that.") for n in range(small_talk.SAME_FELT + 9)]
    talks += [
        dialogue("I love cooking", "How lovely!"),
        dialogue("Want a hug?", "Here's a big hug!"),
        dialogue("i am beat", "I've heard really good things about naps."),
        dialogue("i am famished", "Sounds like it's time for a snack."),
        dialogue("I am sad.", "I'm very sorry to hear that.", "Thanks.", "You're welcome."),
    ]
    path.write_text("\n".join(map(render, talks)), encoding="utf-8")
    assert small_talk.write(out, [], felt=[f"{path}=1000"]) == small_talk.SAME_FELT + 1
    assert set(re.findall("Person2: (.*)", out.read_text())) == {
        "I'm very sorry to hear that.",
        "Sounds like it's time for a snack.",
    }
    stops = len(re.findall(r"^Person1: .*\.$", out.read_text(), re.MULTILINE))
    assert stops == (small_talk.SAME_FELT + 1) // 2  # "im so sad 1." is told as well as "im so sad 2"
    assert small_talk.write(out, [], felt=[f"{path}=5"]) == 5


def test_half_the_feelings_are_told_behind_other_talk(tmp_path: Path) -> None:
    """Nobody waits with being sad until a talk begins. The talk before is not learned a second time."""
    path, openings, out = tmp_path / "pairs.txt", tmp_path / "talk.txt", tmp_path / "out.txt"
    felt = [dialogue(f"im so sad {n}", "I'm very sorry to hear that.") for n in range(8)]
    talks = [dialogue(f"Do you like tea {n}?", f"I like tea {n}.") for n in range(6)]
    path.write_text("\n".join(map(render, felt)), encoding="utf-8")
    openings.write_text("\n".join(map(render, talks)), encoding="utf-8")
    assert small_talk.write(out, [], openings=[f"{openings}=6"], felt=[f"{path}=8"]) == 8 + 6 - 4
    learned = [one for one in read(out.read_text(encoding="utf-8").splitlines()) if not isinstance(one, DialogueFault)]
    assert sorted(len(turns) for turns in learned) == [2] * 6 + [4] * 4
    assert all("tea" in turns[0].text and "sad" in turns[2].text for turns in learned if len(turns) == 4)
    assert len({turn.text for turns in learned for turn in turns if "tea" in turn.text}) == 12


TOLD = [
    ("I have a tabby cat.", True),
    ("We painted the kitchen.", True),
    ("My brother is a pilot.", True),
    ("I'm Tom.", False),  # a name, learned elsewhere
    ("I like that too.", False),  # of what was said before
    ("I do.", False),
    ("Do I like cats?", False),
    ("It rains.", False),
    ("I have a tabby cat and a dog and a horse and a house.", False),
]


@pytest.mark.parametrize(("said", "begins"), TOLD)
def test_what_somebody_could_begin_by_telling(said: str, begins: bool) -> None:
    assert pieces.tells(said) == begins


def test_what_people_tell_of_themselves_is_learned_several_times(tmp_path: Path) -> None:
    """In the middle of a talk too; from there on, and Person1 is whoever tells it."""
    path, out = tmp_path / "talk.txt", tmp_path / "out.txt"
    path.write_text(render(dialogue("Hello!", "I have a tabby cat.", "How old?", "Two.")), encoding="utf-8")
    assert small_talk.write(out, [], told=[f"{path}=3"]) == 3
    learned = [one for one in read(out.read_text(encoding="utf-8").splitlines()) if not isinstance(one, DialogueFault)]
    assert learned == [dialogue("I have a tabby cat.", "How old?")] * 3


DOING = [
    ("I like to bake cookies.", "I'm baking cookies."),
    ("I love to swim in the lake!", "I'm swimming in the lake!"),
    ("I really enjoy painting.", "I'm painting."),
    ("I like to read.", "I'm reading."),
    ("I like to tie knots.", "I'm tying knots."),
    ("I like to read and go for walks.", None),  # two things
    ("I like to dance on the weekends.", None),  # not now
    ("I like to be alone.", None),
    ("I like being alone.", None),
    ("I like anything.", None),
    ("I like cats.", None),
    ("I have a tabby cat.", None),
]


@pytest.mark.parametrize(("likes", "does"), DOING)
def test_what_somebody_likes_to_do_told_as_what_they_are_doing(likes: str, does: str | None) -> None:
    told = doing.doing(dialogue(likes, "What kind?"))
    assert told == (dialogue(does, "What kind?") if does else None)


def test_what_people_like_to_do_is_learned_as_what_they_are_doing(tmp_path: Path) -> None:
    path, out = tmp_path / "talk.txt", tmp_path / "out.txt"
    likes, has = dialogue("I like to bake cookies.", "What kind?"), dialogue("I have a tabby cat.", "How old?")
    path.write_text(f"{render(likes)}\n{render(has)}", encoding="utf-8")
    assert small_talk.write(out, [], doing=[f"{path}=2"]) == 2
    learned = [one for one in read(out.read_text(encoding="utf-8").splitlines()) if not isinstance(one, DialogueFault)]
    assert learned == [dialogue("I'm baking cookies.", "What kind?")] * 2


MET = [
    (("My name is Tom.", "Nice to meet you, Tom!"), "Tom"),
    (("Hi, I'm Tom.", "Hi!", "How are you?", "Fine, Tom."), "Tom"),
    (("I'm Tom, and I cook.", "Hello Tom, I'm Eve."), "Tom"),
    (("I'm Tom.", "Hi!"), None),  # nothing to copy
    (("I'm Tom.", "Nice to meet you, Tommy."), None),
    (("I'm Tom Hanks.", "Hello Tom."), None),
    (("I'm happy.", "Good to hear."), None),
]


@pytest.mark.parametrize(("said", "name"), MET)
def test_who_tells_a_name_and_is_called_so_is_learned_from(said: tuple[str, ...], name: str | None) -> None:
    assert names.answered_by_name(dialogue(*said)) == name


def test_one_introduction_is_learned_under_many_names(tmp_path: Path) -> None:
    """The name changes in every turn alike, other names stay, half of the names are nobody's, and half of the
    introductions stand behind other talk."""
    path, openings, out = tmp_path / "met.txt", tmp_path / "talk.txt", tmp_path / "out.txt"
    path.write_text(render(dialogue("Hello!", "My name is Tom.", "Hi Tom, I'm Eve.", "You too.")), encoding="utf-8")
    talks = [dialogue(f"Do you like tea {n}?", f"I like tea {n}.") for n in range(names.AGAIN)]
    openings.write_text("\n".join(map(render, talks)), encoding="utf-8")
    small_talk.write(out, [], openings=[f"{openings}=99"], names=[f"{path}=99"])
    learned = [one for one in read(out.read_text(encoding="utf-8").splitlines()) if not isinstance(one, DialogueFault)]
    called = [(turns[-2].text, turns[-1].text) for turns in learned if "my name" in turns[-2].text.lower()]
    assert len(called) == names.AGAIN == len(set(called))
    given = [told.removeprefix("My name is ").rstrip(".") for told, _ in called]
    assert [answer for _, answer in called] == [f"Hi {name}, I'm Eve." for name in given]
    assert 0 < sum(name in names.NAMES for name in given) < names.AGAIN
    assert sum(len(turns) == 4 for turns in learned) == names.AGAIN // 2
    assert small_talk.write(out, [], names=[f"{path}=5"]) == 5


def test_no_piece_calls_somebody_by_a_name_that_stands_before_it(tmp_path: Path) -> None:
    path, out = tmp_path / "talk.txt", tmp_path / "out.txt"
    path.write_text(
        render(dialogue("I'm Eve.", "Where do you live?", "Thanks, Eve.", "Do you like tea?", "Yes, I do.")),
        encoding="utf-8",
    )
    small_talk.write(out, [], openings=[f"{path}=9"])
    assert "Thanks, Eve." not in out.read_text(encoding="utf-8")
    assert "Do you like tea?" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("careful", "typed"),
    [
        ("I'm a teacher.", "im a teacher"),
        ("What's new, Mia?", "whats new, mia"),
        ("It’s great!", "its great"),
        ("Well... I think so. Maybe.", "well... i think so. maybe"),
        ("'Til then!", "'til then"),
        ("?!", "?!"),
    ],
)
def test_a_line_in_a_hurry(careful: str, typed: str) -> None:
    assert hurried.in_a_hurry(careful) == typed


def test_somebody_in_a_hurry_writes_all_lines_alike_and_the_bot_none() -> None:
    talk = dialogue("Hi, I'm Eve.", "Hello, Eve!", "Who's there, Tom?", "It's me.")
    written = {hurried.hurried(talk, random.Random(seed)) for seed in range(200)}
    assert len(written) == 2**4
    assert all((turns[1], turns[3]) == (talk[1], talk[3]) for turns in written)
    for told, _, asked, _ in written:
        assert ("'" in told.text, "," in told.text, "I" in told.text) == (
            "'" in asked.text,
            "," in asked.text,
            "W" in asked.text,
        )
        assert not told.text.endswith(".")


def test_every_second_dialogue_is_in_a_hurry_on_both_sides(tmp_path: Path) -> None:
    """Each dialogue once, cleaned, and the same again each time; what is held out not at all."""
    path, out = tmp_path / "talk.txt", tmp_path / "out.txt"
    talks = [dialogue(f"Is it {n}?", f"It's {n} .") for n in range(40)]
    path.write_text("\n".join(map(render, talks)), encoding="utf-8")
    assert hurried.write(out, [path]) == 40
    made = out.read_text(encoding="utf-8")
    learned = [one for one in read(made.splitlines()) if not isinstance(one, DialogueFault)]
    assert sum(answer.text.endswith(".") for _, answer in learned) == 20  # "It's 7." of who answers with care
    assert {re.sub(r"\D", "", asked.text) for asked, _ in learned} == set(map(str, range(40)))
    assert hurried.write(out, [path]) == 40
    assert out.read_text(encoding="utf-8") == made
    assert hurried.write(out, [path], hold_out=[path]) == 36


def test_what_is_asked_with_care_is_learned_in_a_hurry_too(tmp_path: Path) -> None:
    """Once more, and not instead; what is written in a hurry already is not taken twice."""
    path, out = tmp_path / "talk.txt", tmp_path / "out.txt"
    talks = [dialogue("Do you like tea?", "I do."), dialogue("tell me more", "Ask me.")]
    path.write_text("\n".join(map(render, talks)), encoding="utf-8")
    assert small_talk.write(out, [], pairs=[f"{path}=9"], hurry=1.0) == 3
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines.count("Person1: Do you like tea?") == lines.count("Person1: tell me more") == 1
    assert sum(line.lower().startswith("person1: do you like tea") for line in lines) == 2
    assert lines.count("Person2: I do.") == 2
    assert small_talk.write(out, [], pairs=[f"{path}=9"]) == 2


SAID_FIRST = [
    ("I made soup for dinner.", True),
    ("I'm going to the beach tomorrow.", True),
    ("I bought a new car last week.", True),
    ("I've never been to Iowa!", True),
    ("We went camping last summer.", True),
    ("I'm doing well.", False),
    ("I know what you mean.", False),
    ("I don't know.", False),
    ("I would say the Colts.", False),
]


@pytest.mark.parametrize(("said", "opens"), SAID_FIRST)
def test_a_piece_begins_with_what_one_could_begin_with(said: str, opens: bool) -> None:
    """News of one's own do, answers do not."""
    assert pieces.opens(said) is opens


def test_longer_talk_is_learned_from_in_excerpts(tmp_path: Path) -> None:
    """Six turns each, none twice; Person1 may write as people do, Person2 writes with care, and nobody holds forth."""
    path, out = tmp_path / "talk.txt", tmp_path / "out.txt"
    thirty, fifty = "It was a " + "very " * 26 + "good show.", "It was a " + "very " * 46 + "good show."
    first = ["did you know?", "I did not.", thirty, thirty, "lol", "Funny!"]
    second = ["it is", "Yes.", "how so", "No idea.", "hm", "Well."]
    path.write_text(render(dialogue("so", *first, fifty, "ok then", *second, "bye", "Bye!")), encoding="utf-8")
    assert small_talk.write(out, [], excerpted=[f"{path}=9"]) == 2
    learned = {one for one in read(out.read_text(encoding="utf-8").splitlines()) if not isinstance(one, DialogueFault)}
    assert learned == {dialogue(*first), dialogue(*second)}
    assert small_talk.write(out, [], excerpted=[f"{path}=1"]) == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda out, path: small_talk.write(out, [f"{path}=1"]),
        lambda out, path: hurried.write(out, [path]),
        lambda out, path: renamed.write(out, [path]),
        lambda out, path: prose_talk.write(out, [path], count=1),
    ],
)
def test_where_nothing_can_be_written_is_said(write: Callable[[Path, Path], int], tmp_path: Path) -> None:
    path, out = tmp_path / "talk.txt", tmp_path / "nowhere" / "out.txt"
    path.write_text(render(dialogue("Hello!", "Hi!")), encoding="utf-8")
    with pytest.raises(TrainingError, match=r"out\.txt cannot be written \(No such file or directory\)"):
        write(out, path)


def test_neighbouring_paragraphs_of_a_book_stand_as_a_talk(tmp_path: Path) -> None:
    """A long paragraph parts them, a rest too short for a talk is dropped, a longer run goes on in a second talk."""
    book, out = tmp_path / "book.txt", tmp_path / "out.txt"
    long = "word " * (prose_talk.WORDS + 1)
    first, second = [f"Said {n}." for n in range(11)], [f"Told {n}." for n in range(4)]
    book.write_text("\n\n".join([*first, long, *second, long, "Alone."]), encoding="utf-8")
    longest, after = dialogue(*first[:8]), dialogue(*second)
    assert list(prose_talk.passages(book.read_text().splitlines())) == [longest, after]
    assert prose_talk.write(out, [book], count=9) == 2
    assert set(read(out.read_text().splitlines())) == {longest, after}
    assert prose_talk.write(out, [book], count=1) == 1
    with pytest.raises(TrainingError, match=r"none\.txt cannot be read"):
        prose_talk.write(out, [tmp_path / "none.txt"], count=1)


@pytest.mark.parametrize(
    ("said", "opens"),
    [
        ("Do you have any pets?", True),
        ("Hi!", True),
        ("I just got a new dog!", True),
        ("What kind of music do you like?", True),
        ("What kind of music?", False),
        ("Do you like it?", False),
        ("I like that song too.", False),
        ("Yes, I do.", False),
        ("I have not.", False),
        ("I went to see my brother and his wife in Ohio.", False),
    ],
)
def test_what_one_could_begin_a_talk_with(said: str, opens: bool) -> None:
    """It says something by itself, speaks of nothing said before and is short."""
    assert pieces.opens(said) is opens


def test_pieces_begin_where_a_talk_could(tmp_path: Path) -> None:
    """Person1 says the first line whoever said it, answers follow in turn, and a turn without answer begins nothing."""
    talk = dialogue(
        "Well, yes.", "Do you have any pets?", "Two cats.", "Nice.", "Yes.", "Right.", "Do you play tennis?"
    )
    (piece,) = pieces.pieces([talk])
    assert piece == dialogue("Do you have any pets?", "Two cats.", "Nice.", "Yes.")
    path, out = tmp_path / "talk.txt", tmp_path / "out.txt"
    path.write_text("\n".join([render(talk)] * 30), encoding="utf-8")
    assert small_talk.write(out, [f"{path}=1"], openings=[f"{path}=9"]) == 1 + small_talk.SAME_ANSWER


def test_what_both_speakers_name_is_called_something_else() -> None:
    """In every turn alike and in the letters it was written in; what is common, short or said by one stays."""
    said = ("Did you see Titanic?", "I loved TITANIC. And Alien?", "titanic was long, I did love it.", "So I hear.")
    common = [dialogue("I loved it long.", "Did I love it?")] * (renamed.RARE + 1)
    words = renamed.rare([dialogue(*said), dialogue("gigantic!"), *common])
    assert words == ["alien", "gigantic", "hear", "titanic"]
    seen = set()
    for seed in range(40):
        for turns in renamed.renamed([dialogue(*said)], words, seed=seed):
            name = turns[0].text.removeprefix("Did you see ").rstrip("?")
            seen.add(name)
            assert name.lower().endswith("ic")
            assert name.istitle()
            told = [f"Did you see {name}?", f"I loved {name.upper()}. And Alien?"]
            told += [f"{name.lower()} was long, I did love it.", "So I hear."]
            assert [turn.text for turn in turns] == told
    assert "Gigantic" in seen
    assert any(name.lower() not in words for name in seen)


def test_renamed_dialogues_are_those_in_which_something_is_taken_up(tmp_path: Path) -> None:
    """The others are left out, and so is every tenth of a file that is held out."""
    path, out = tmp_path / "talk.txt", tmp_path / "out.txt"
    path.write_text(
        "\n".join(
            render(dialogue("Who won?", "Nobody.") if n % 10 == 3 else dialogue(f"I like snow {n}.", "I hate snow!"))
            for n in range(1, 31)
        ),
        encoding="utf-8",
    )
    whole = renamed.write(out, [path])
    kept = renamed.write(out, [path], hold_out=[path])
    told = out.read_text(encoding="utf-8")
    assert 0 < kept < whole <= 27
    assert "Nobody" not in told
    assert not re.search(r"\b[123]0\b", told)
    assert kept == len([one for one in read(told.splitlines()) if not isinstance(one, DialogueFault)])
    with pytest.raises(TrainingError, match=r"none\.txt cannot be read"):
        renamed.write(out, [tmp_path / "none.txt"])


def test_another_seed_renames_anew_and_counted_files_make_words_common(tmp_path: Path) -> None:
    """What is rare in the files alone may be common in `counted`; nothing of `counted` is written."""
    path, others, out = tmp_path / "talk.txt", tmp_path / "others.txt", tmp_path / "out.txt"
    path.write_text(render(dialogue("I saw Titanic with Bernard.", "Titanic? Bernard saw it.")), encoding="utf-8")
    others.write_text("\n".join([render(dialogue("Who is Bernard?", "Nobody."))] * renamed.RARE), encoding="utf-8")

    def told(seed: int, *counted: Path) -> str:
        renamed.write(out, [path], counted=counted, seed=seed)
        return out.read_text(encoding="utf-8")

    anew = {told(seed, others) for seed in range(12)} - {""}
    assert len(anew) > 2
    assert all(text.count("Bernard") == 2 and "Who is" not in text for text in anew)
    assert any("Bernard" not in text for text in {told(seed) for seed in range(12)} - {""})
