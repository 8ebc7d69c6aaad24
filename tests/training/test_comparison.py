"""How much of a new adapter's evaluation is done: what decides, what there is time for, what was not known before."""

from pathlib import Path

import numpy as np
import pytest

from core.dialogue import write
from core.generator import Sampling
from tests.models import tiny_adapter
from tests.training.toys import dialogue
from training.evaluation.comparison import BASE, NEW, Comparison, compare
from training.evaluation.gate import GateLimits, is_settled
from training.evaluation.generation import ReplyGenerator, reply_generator
from training.evaluation.intervals import paired, quantile, share
from training.evaluation.known_scores import FILE, ScoreStore
from training.evaluation.suite import FIRST, LOOKS, CandidateAnswers, EvalSuite, Stage, ask, load_candidates
from training.finetune.corpus import load

MANY = [
    dialogue(f"What is {number}?", f"It is the number {number}.", "And then?", f"{number + 1}!") for number in range(60)
]
SHORT = Sampling(max_new_tokens=4)


def test_an_interval_for_equal_answers_has_a_width() -> None:
    """It narrows with the answers, lies where one is better, and is wider for who looks more often."""
    few, many = paired(0, 0, 5), paired(0, 0, 500)
    assert few[0] < many[0] < 0 < many[1] < few[1]
    assert paired(30, 2, 60)[0] > 0 > paired(2, 30, 60)[1]
    assert paired(9, 1, 60)[0] > 0 > paired(9, 1, 60, looks=100)[0]
    assert quantile(1) == pytest.approx(1.96, abs=1e-3)
    assert share(3, 30, looks=4)[1] > share(3, 30)[1]


def test_looking_often_fails_no_more_equal_models() -> None:
    """Of pairs of equally good models, looked at four times and ended at the first sure drop, at most one in forty is
    called worse: the one-sided error of a single look."""
    random = np.random.default_rng(0)
    runs, worse = 2_000, 0
    for _ in range(runs):
        one, two = ((random.random(200) < 0.4).astype(np.float64) for _ in range(2))
        gaps = [
            paired(int((one > two)[:look].sum()), int((one < two)[:look].sum()), look, looks=4)
            for look in (*LOOKS, 200)
        ]
        worse += any(high < 0 for _, high in gaps)
    assert worse / runs <= 0.025


def test_what_settles_the_gate() -> None:
    """A sure gain does, and a sure loss; models that find other replies, equally many, take more contexts; odd replies
    may keep it open."""
    none = np.zeros(50)
    better, worse, other = np.arange(50) < 40, np.arange(50) < 10, np.arange(50) >= 40
    assert is_settled(better.astype(float), [worse.astype(float)], none, looks=4)
    assert is_settled(worse.astype(float), [better.astype(float)], none, looks=4)
    assert not is_settled(worse.astype(float), [other.astype(float)], none, looks=4)
    assert is_settled(np.zeros(200), [np.zeros(200)], np.zeros(200), looks=4)
    assert not is_settled(better.astype(float), [worse.astype(float)], (np.arange(50) < 8).astype(float), looks=4)
    assert is_settled(better.astype(float), [worse.astype(float)], np.ones(50), looks=4, limits=GateLimits(empty=0.15))


class Clock:
    """Stands still but for a second a look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_asking_ends_when_it_is_settled_or_time_is_over(base: Path, tmp_path: Path) -> None:
    """At a look and nowhere else where it is settled; by the clock after a few; else at the last context."""
    candidates = load_candidates(str(base), {"base": None})
    (tmp_path / "many.txt").write_text("".join(write(MANY)), encoding="utf-8")
    suite = EvalSuite.over("many", load([tmp_path / "many.txt"]), contexts=60)
    looked: list[int] = []

    def settled(asked: int) -> bool:
        looked.append(asked)
        return asked == 50

    def asked(generator: ReplyGenerator, **more: object) -> tuple[int, CandidateAnswers]:
        answers = {"base": CandidateAnswers()}
        count = ask(candidates, suite, generator, answers, sampling=SHORT, **more)  # type: ignore[arg-type]
        return count, answers["base"]

    stages: list[Stage] = []
    with reply_generator(str(base)) as generator:
        assert asked(generator)[0] == 60
        count, mine = asked(generator, is_settled=settled)
        assert (count, looked) == (50, [25, 50])
        assert (len(mine.found), len(mine.replies)) == (50, 50)
        count, timed = asked(generator, seconds=3.0, clock=Clock(), on_stage=stages.append)
        assert FIRST <= count < 25
        assert timed.replies == mine.replies[:count]
        assert timed.found.tolist() == mine.found[:count].tolist()
        assert asked(generator, seconds=-1.0)[0] == FIRST
    assert 0 <= stages[0].done < stages[-1].done <= 1
    assert "left" in str(stages[-1])


def judged(folder: Path, base: Path, adapter: Path, run: str, **more: object) -> Comparison:
    (folder / run).mkdir(parents=True)
    return compare(
        [folder / "talk.txt"],
        base=str(base),
        adapter=adapter,
        contexts=10,
        sampling=SHORT,
        store=ScoreStore(folder / run),
        **more,  # type: ignore[arg-type]
    )


def test_the_base_is_scored_once(base: Path, tmp_path: Path) -> None:
    """A second run on the same held-out talk knows the base's scores, and they are the same; other talk or other
    weights are scored anew, and no reply is written down."""
    (tmp_path / "talk.txt").write_text("".join(write(MANY)))
    one, two = (tiny_adapter(tmp_path / f"voice{seed}", base, seed=seed) for seed in (1, 2))
    stages: list[str] = []
    first = judged(tmp_path, base, one, "runs/first", on_stage=lambda stage: stages.append(str(stage)))
    assert "base: reading held-out dialogues" in stages
    stages.clear()
    second = judged(tmp_path, base, two, "runs/second", on_stage=lambda stage: stages.append(str(stage)))
    assert "base: reading held-out dialogues" not in stages
    assert second.scores[BASE] == first.scores[BASE]
    assert second.scores[NEW] != first.scores[NEW]
    kept = (tmp_path / "runs" / "first" / FILE).read_text()
    assert not [reply for reply in first.results[BASE].replies if len(reply) > 3 and reply in kept]
    (tmp_path / "talk.txt").write_text("".join(write([*MANY[:-1], dialogue("What else?", "Nothing else.")])))
    stages.clear()
    judged(tmp_path, base, two, "runs/third", on_stage=lambda stage: stages.append(str(stage)))
    assert "base: reading held-out dialogues" in stages


def test_scores_that_cannot_be_read_are_taken_again(base: Path, tmp_path: Path) -> None:
    """A damaged file of another run is none."""
    (tmp_path / "talk.txt").write_text("".join(write(MANY)))
    (tmp_path / "runs" / "old").mkdir(parents=True)
    (tmp_path / "runs" / "old" / FILE).write_text('{"a": [')
    found = judged(tmp_path, base, tiny_adapter(tmp_path / "voice", base), "runs/new")
    assert np.isfinite(found.scores[BASE].reply_bits_per_byte.value)
    assert list(found.suite.dialogues) == MANY[-3:]
