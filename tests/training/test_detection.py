"""A plain classifier finds out a bot that has few sayings, and not one that speaks as people do."""

import numpy as np
import pytest

from training.evaluation.detection import FEWEST, auc, detection_auc, detection_auc_by_length

WORDS = tuple("abcdefghijklmno")


def spoken(count: int, *, seed: int, least: int = 3, most: int = 9) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(least, most))) for _ in range(count)]


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
    ],
)
def test_the_area_under_the_curve(scores: list[float], positive: list[int], expected: float) -> None:
    """Pairs in order count 1, ties a half."""
    assert auc(np.array(scores, dtype=np.float64), np.array(positive, dtype=bool)) == expected


def test_the_same_speech_is_not_told_apart() -> None:
    """About one half where both sides draw from one pot, and the same figure each time."""
    one, two = spoken(200, seed=1), spoken(200, seed=2)
    found = detection_auc(one, two)
    assert found is not None
    assert abs(found - 0.5) < 0.1
    assert detection_auc(one, two) == found


def test_stock_phrases_are_found_out() -> None:
    """By their words, and by their length where that is another."""
    stock = [f"that sounds like fun {word}" for word in spoken(100, seed=3, least=1, most=2)]
    people = spoken(100, seed=4, least=6, most=12)
    words, length = detection_auc(stock, people), detection_auc_by_length(stock, people)
    assert words is not None
    assert words > 0.95
    assert length is not None
    assert length > 0.8
    assert detection_auc_by_length(people, stock) == pytest.approx(length)


def test_too_few_say_nothing() -> None:
    few = spoken(FEWEST - 1, seed=5)
    assert (detection_auc(few, few), detection_auc_by_length(few, few)) == (None, None)
