"""The gate says yes to a better adapter and says why not to any other."""

from dataclasses import replace

import numpy as np
import pytest

from training.evaluation.copying import Extraction
from training.evaluation.gate import decide
from training.evaluation.likelihood import Likelihood
from training.evaluation.memorization import Memorized
from training.evaluation.passages import Passage
from training.evaluation.suite import EvalResult

COUNT = 60


def likelihood(nats: float) -> Likelihood:
    ones = np.ones(COUNT, dtype=np.int64)
    spread = np.linspace(0.9, 1.1, COUNT)
    return Likelihood(nats=nats * spread, tokens=10 * ones, size=40 * ones)


def result(*, nats: float = 40.0, hits: float = 0.5, empty: float = 0.0, copies: float = 0.0) -> EvalResult:
    """A model's answers, by how good they are."""
    share = np.arange(COUNT) / COUNT
    reply = "one two three four five six seven eight nine"
    return EvalResult(
        whole=likelihood(nats),
        replied=likelihood(nats),
        found=(share < hits).astype(np.float64),
        replies=(reply,) * COUNT,
        people=(reply,) * COUNT,
        empty=(share < empty).astype(np.float64),
        runs=np.where(share < copies, 9, 2),
    )


def tries(share: float) -> list[Extraction]:
    return [
        Extraction(dialogue=0, given="a b c", said="d e f" if index < 20 * share else "x", second="d e f")
        for index in range(20)
    ]


def test_a_better_adapter_passes() -> None:
    """Fewer bits than base and current, the rest alike: every reason is a good one."""
    verdict = decide(result(nats=36), {"the base": result(), "the current adapter": result(nats=38)}, tries=tries(0))
    assert verdict.passed
    assert len(verdict.reasons) == 7
    assert str(verdict).startswith("It passed: It predicts held-out replies better than the base")


@pytest.mark.parametrize(
    ("new", "tried", "says"),
    [
        (result(nats=41), 0.0, "does not predict held-out replies better than the base"),
        (result(nats=36, hits=0.1), 0.0, "finds the true reply less often than the base"),
        (result(nats=36, copies=0.2), 0.0, "20% of its longer replies appear word for word in the training text"),
        (result(nats=36), 0.5, "50% of long training turns are completed"),
        (result(nats=36, empty=0.4), 0.0, f"{round(0.4 * COUNT)} of its {COUNT} replies are empty"),
    ],
)
def test_a_worse_one_does_not(new: EvalResult, tried: float, says: str) -> None:
    """One fault is enough, and it is named in a sentence."""
    verdict = decide(new, {"the base": result()}, tries=tries(tried))
    assert not verdict.passed
    assert [reason.sentence for reason in verdict.reasons if not reason.ok] == [str(verdict)[17:]]
    assert says in str(verdict)


def test_chance_does_not_fail_a_ranking() -> None:
    """A context or two fewer is within chance; what the base said by itself is not the adapter's copying."""
    assert decide(result(nats=36, hits=0.49), {"the base": result(hits=0.5)}).passed
    assert decide(result(nats=36, copies=0.22), {"the base": result(copies=0.2)}).passed


@pytest.mark.parametrize(
    ("empty", "count", "passed", "says"),
    [
        (
            1,
            6,
            True,
            "1 of its 6 replies are empty or repeat themselves; the limit is 15%, but the excess may be chance.",
        ),
        (6, 6, False, "6 of its 6 replies"),
        (20, 100, True, "may be chance"),
        (30, 100, False, "30 of its 100"),
        (0, 6, True, "0 of its 6 replies are empty or repeat themselves; the limit is 15%."),
    ],
)
def test_a_few_odd_replies_are_judged_by_their_interval(empty: int, count: int, passed: bool, says: str) -> None:
    """One odd reply of six does not fail a run; as many among a hundred do."""
    new = replace(result(nats=36), empty=(np.arange(count) < empty).astype(np.float64))
    verdict = decide(new, {"the base": replace(result(), empty=np.zeros(count))})
    assert verdict.passed is passed
    assert says in " ".join(reason.sentence for reason in verdict.reasons)


def test_without_contexts_bits_alone_decide() -> None:
    """What was not asked is not held against it."""
    short = replace(
        result(nats=36), found=np.zeros(0), replies=(), people=(), empty=np.zeros(0), runs=np.zeros(0, dtype=np.int64)
    )
    assert len(decide(short, {"the base": result()}).reasons) == 1


def test_one_passage_known_by_heart_is_enough() -> None:
    """However much better the adapter is; the sentence says whose, how often, and what to do."""
    passage = Passage(words=("a",) * 9, person="ab" * 16, places=tuple((number, 1, 0) for number in range(34)))
    again = replace(passage, words=("b",) * 5, person="", places=((0, 1, 0),))
    verdict = decide(result(nats=30), {"the base": result()}, memorized=[Memorized(passage=passage, asked=5, out=5)])
    assert str(verdict) == (
        "It did not pass: A passage of 9 words that only ababab said, 34 times, is reproduced in 5 of 5 places: train "
        "again with --drop-memorized to leave such passages out."
    )
    found = [Memorized(passage=again, asked=3, out=2), Memorized(passage=passage, asked=5, out=2)]
    said = str(decide(result(nats=30), {"the base": result()}, memorized=found))
    assert "that one speaker said, once, is reproduced in 2 of 3 places, and 1 more like it:" in said
