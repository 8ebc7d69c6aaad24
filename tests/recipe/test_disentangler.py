"""How the disentangler's scorer was measured: the paper's metrics on worked examples, and the development logs."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import TrainingError
from models.disentangler.recipe.export_links import LinkRecall, channels, previous, previous_by_another, search
from models.disentangler.recipe.irc import Log, read, read_gold
from models.disentangler.recipe.measure import measure
from models.disentangler.recipe.metrics import best_pairing, conversations, evaluate
from tests.training.data.talks import TWO_TALKS, channel
from training.data.disentangle import Disentangler

DATA = Path(os.environ.get("PERSON2_TEST_DATA") or "no test data")
IRC = DATA / "channels" / "irc_ubuntu"
PYSCRIPT = DATA / "channels" / "pyscript_discord_json"
needs_irc = pytest.mark.skipif(not IRC.exists(), reason=f"the annotated IRC logs are not at {IRC}")


@pytest.fixture(scope="module")
def disentangler() -> Disentangler:
    return Disentangler.load()


def test_hidden_reply_links_are_looked_for() -> None:
    """What a rule finds again is counted, to the message and by way of one's own messages."""
    messages = [
        replace(message, reply_to=to)
        for message, to in zip(channel(TWO_TALKS)[:5], (None, None, "m0", "m1", "m1"), strict=True)
    ]
    assert search([messages], previous) == LinkRecall(links=3, exact=0, through_own=0)
    assert search([messages], lambda hidden: [None, None, 0, 1, 0]) == LinkRecall(links=3, exact=2, through_own=2)
    own = channel("0 a hello\n0 b hi a\n0 b how are you?")
    own[2] = replace(own[2], reply_to="m0")
    assert search([own], previous) == LinkRecall(links=1, exact=0, through_own=1)
    assert search([own], previous_by_another) == LinkRecall(links=1, exact=1, through_own=1)


@pytest.mark.skipif(not PYSCRIPT.exists(), reason=f"the PyScript Discord is not at {PYSCRIPT}")
def test_hidden_reply_links_of_a_real_discord(disentangler: Disentangler) -> None:
    """In the help channel it finds more of them than the message before does."""
    talk = channels([PYSCRIPT / "PyScript_General-python-help_972020231293771786.json"])
    ours, rule = search(talk, disentangler.links), search(talk, previous)
    assert ours.links == rule.links > 250
    assert ours.exact > 1.1 * rule.exact


def test_links_make_conversations() -> None:
    """Linked lines hang together, also through a line of the context, which itself is not counted."""
    links = {1000: {990}, 1001: {1001}, 1002: {990}, 1003: {1001, 1002}, 1004: {1004}}
    assert sorted(map(sorted, conversations({line: sorted(to) for line, to in links.items()}))) == [
        [1000, 1001, 1002, 1003],
        [1004],
    ]


def test_the_metrics_of_a_worked_example() -> None:
    """Gold {0 1 2}{3}, predicted {0 1}{2 3}: computed by hand."""
    gold = {"log": {0: [0], 1: [0], 2: [1], 3: [3]}}
    auto = {"log": {0: [0], 1: [0], 2: [2], 3: [2]}}
    figures = evaluate(gold, auto)
    assert (figures.precision, figures.recall, figures.link_f) == (50, 50, 50)
    assert figures.one_to_one == 75  # {0 1 2} with {0 1}, {3} with {2 3}: three of four lines
    assert figures.exact_f == 0  # {0 1 2} is not found, and a conversation of one line does not count
    given_auto = 0.5 * 0 + 0.5 * 1  # bits: {0 1} lies in one gold conversation, {2 3} half in each
    given_gold = 0.75 * -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert figures.scaled_vi == pytest.approx(100 - 100 * (given_auto + given_gold) / 2)


def test_links_to_two_lines_count_twice() -> None:
    """A message that answers two lines has two gold links; one prediction can find only one of them."""
    figures = evaluate({"log": {0: [0], 1: [1], 2: [0, 1]}}, {"log": {0: [0], 1: [1], 2: [0]}})
    assert (figures.precision, figures.recall) == (100, 75)


def test_gold_against_itself_is_perfect() -> None:
    """Every figure is 100."""
    links = {"log": {0: [0], 1: [0], 2: [2], 3: [2]}}
    figures = evaluate(links, links)
    assert {figures.link_f, figures.scaled_vi, figures.one_to_one, figures.exact_f} == {100}


@pytest.mark.parametrize(
    ("gain", "best"),
    [([[5]], 5), ([[1, 2], [3, 5]], 6), ([[9, 8], [8, 0]], 16), ([[0, 0, 4], [0, 3, 4]], 7), ([[1], [7], [3]], 7)],
)
def test_best_pairing(gain: list[list[int]], best: int) -> None:
    """The assignment that one-to-one overlap rests on; greedy choice would fail the third case."""
    assert best_pairing(np.array(gain)) == best


def test_a_bad_annotation_is_named() -> None:
    """File and line of the fault."""
    with pytest.raises(TrainingError, match=r"gold\.txt, line 2 is no link"):
        read_gold(["1 2 -", "1 b -"], source=Path("gold.txt"))


@needs_irc
def test_irc_logs_keep_their_line_numbers() -> None:
    """Every line is a message, so that the annotation's numbers fit."""
    log = next(iter(read(IRC / "dev")))
    lines = (IRC / "dev" / f"{log.name}.ascii.txt").read_text(encoding="utf-8").splitlines()
    assert len(log.messages) == len(lines)
    assert min(log.gold) == 1000
    assert max(log.gold) < len(lines)


@needs_irc
def test_the_development_logs(disentangler: Disentangler, tmp_path: Path) -> None:
    """On three of the ten logs the figures stay where they were when the scorer was made."""
    for log in _first(IRC / "dev", 3):
        for kind in ("ascii", "annotation"):
            (tmp_path / f"{log.name}.{kind}.txt").symlink_to((IRC / "dev" / f"{log.name}.{kind}.txt").resolve())
    figures, _ = measure(disentangler, tmp_path)
    assert figures.lines == 750
    assert figures.link_f > 71
    assert figures.scaled_vi > 90.5
    assert figures.one_to_one > 78
    assert figures.exact_f > 24  # the first three logs are hard ones: all ten together reach 44


def _first(folder: Path, count: int) -> Sequence[Log]:
    return [log for log, _ in zip(read(folder), range(count), strict=False)]
