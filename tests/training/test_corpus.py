"""Dialogue files: every good dialogue is found again where it stands, every fault is named, and words stay on disk."""

import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from core.dialogue import Dialogue, write
from core.errors import DialogueError
from tests.training.toys import dialogue
from training.finetune.corpus import MAX_FAULTS, load


def written(file: Path, dialogues: Iterable[Dialogue]) -> Path:
    file.write_text("".join(write(dialogues)), encoding="utf-8")
    return file


def test_faults_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    """A file with errors gives its good dialogues, and its faults with their lines."""
    file = tmp_path / "talk.txt"
    file.write_text("Person1: Hi\nPerson2: Hello\n\nno tag here\nPerson1: a\nPerson1: b\n", encoding="utf-8")
    corpus = load([file])
    assert tuple(corpus.dialogues) == (dialogue("Hi", "Hello"),)
    assert [fault.fault.line for fault in corpus.faults] == [4, 6, 5]
    assert str(corpus.faults[0]).startswith(f"{file}, line 4: ")


def test_dialogues_are_found_where_they_stand(tmp_path: Path) -> None:
    """In any order, of several files, behind faults, blank lines, a byte order mark and Windows' line ends."""
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_bytes(
        "\ufeffPerson1: über\r\nPerson2: ja\r\n\r\n\r\nPerson1: alone\r\n\r\nuntagged\r\nPerson1: a\r\n"
        "Person2: b\r\n\u3000\r\nPerson1: c\r\nPerson2: d".encode()
    )
    second.write_bytes(b"\n\nPerson2: \xff!\nPerson1: y\n")
    found = load([first, second]).dialogues
    talk = [("über", "ja"), ("a", "b"), ("c", "d")]
    assert [tuple(turn.text for turn in turns) for turns in found] == [*talk, ("\ufffd!", "y")]
    assert [found[at] for at in (3, 1, 0, -1)] == [list(found)[at] for at in (3, 1, 0, -1)]
    assert list(found[1:3]) == list(found)[1:3]
    assert list(found.chosen(np.array([3, 0]))) == [found[3], found[0]]
    with pytest.raises(IndexError):
        found[4]


def test_what_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    """Dialogues that stand word for word in the other file are left out, whatever stands around them."""
    many = [dialogue("number", str(number)) for number in range(6)]
    corpus = load([written(tmp_path / "a.txt", many)])
    held = tmp_path / "b.txt"
    held.write_text("Person1:   number\nPerson2: 2\n\n\nPerson1: number\nPerson2: 77\n", encoding="utf-8")
    assert list(corpus.without(load([held])).dialogues) == many[:2] + many[3:]


def test_a_file_that_is_edited_meanwhile_is_noticed(tmp_path: Path) -> None:
    """Other words than those that were counted are never given out: one sentence says so; a missing file likewise."""
    file = written(tmp_path / "talk.txt", [dialogue("one", "two"), dialogue("three", "four")])
    found = load([file]).dialogues
    file.write_text(file.read_text(encoding="utf-8").replace("three", "seven"), encoding="utf-8")
    assert found[0] == dialogue("one", "two")
    for look in (lambda: found[1], lambda: list(found)):
        with pytest.raises(DialogueError, match="was changed while it was being read"):
            look()
    file.unlink()
    with pytest.raises(DialogueError, match="no dialogue file"):
        list(found)


def test_words_are_not_kept_in_memory(tmp_path: Path) -> None:
    """Eight times the file, hardly more memory."""

    def most(count: int) -> int:
        file = written(tmp_path / f"{count}.txt", (dialogue(f"{number} " * 900, "yes") for number in range(count)))
        tracemalloc.start()
        corpus = load([file])
        assert sum(len(turns) for turns in corpus.dialogues) == 2 * count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    small, large = most(500), most(4000)
    assert large - small < 0.05 * (tmp_path / "4000.txt").stat().st_size


def test_many_faults_are_counted_and_not_kept(tmp_path: Path) -> None:
    """A file that is no dialogue file has a fault a line; the first thousand and a count say enough."""
    file = tmp_path / "talk.txt"
    file.write_text("Person1: a\nPerson2: b\n\n" + "no tag\n" * (MAX_FAULTS + 500), encoding="utf-8")
    faults = load([file]).faults
    assert len(faults) == MAX_FAULTS + 1
    assert str(faults[-1]).endswith("and 500 more faults")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [("missing.txt", None, "no dialogue file"), ("empty.txt", "", "No usable dialogue"), ("n.txt", "x\n", "line 1")],
)
def test_unusable_files_get_one_sentence(tmp_path: Path, name: str, text: str | None, says: str) -> None:
    """A missing file, an empty one, and one without tags."""
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DialogueError, match=says):
        load([tmp_path / name])


def test_the_newest_twentieth_is_held_out(tmp_path: Path) -> None:
    """The last dialogues of the files are held out, at least one, and one alone is too little."""
    many = [dialogue("number", str(number)) for number in range(60)]
    kept, held = load([written(tmp_path / "many.txt", many)]).split()
    assert (list(kept.dialogues), list(held.dialogues)) == (many[:57], many[57:])
    with pytest.raises(DialogueError, match="not enough"):
        load([written(tmp_path / "one.txt", many[:1])]).split()
