"""The data advisor reads a learning curve as a person would."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.dialogue import write
from tests.training.toys import TALK, dialogue
from training.evaluation.learning_curve import CurvePoint, advise, learning_curve
from training.finetune.config import FinetuneConfig


@pytest.mark.parametrize(
    ("bits", "says"),
    [
        ((2.0, 1.9, 1.8), "More dialogues would still help: going from 50 to 100 dialogues"),
        ((2.0, 1.9, 1.89), "nearly enough"),
        ((2.0, 1.9, 1.9), "There is enough"),
        ((2.4, 2.35, 2.31), "too little data"),
    ],
)
def test_the_curve_in_a_sentence(bits: tuple[float, float, float], says: str) -> None:
    """Steep at its end, nearly flat, flat, and no better than nothing."""
    points = [CurvePoint(dialogues=count, bits_per_byte=bit) for count, bit in zip((25, 50, 100), bits, strict=True)]
    sentence = advise(points, before=2.3)
    assert says in sentence
    assert sentence.endswith(".")


def test_a_quarter_a_half_and_all(base: Path, tmp_path: Path) -> None:
    """Three trainings on the same held-out dialogues; the last one is the run itself."""
    file = tmp_path / "talk.txt"
    file.write_text("".join(write([dialogue(*TALK[n % 5]) for n in range(40)] + [dialogue("Hello!", "It rains.")])))
    settings = FinetuneConfig(rank=4, epochs=1, block=96, batch_tokens=192, evaluations=1, precision="fp32")
    advice = learning_curve([file], run=tmp_path / "run", base=str(base), settings=settings)
    learned = 32  # of 41, the held-out two and what says the same as they do left out
    assert [point.dialogues for point in advice.points] == [learned // 4, learned // 2, learned]
    assert advice.outcome.adapter == tmp_path / "run" / "adapter"
    assert advice.outcome.after == advice.points[-1].bits_per_byte
    assert replace(advice.outcome.settings, block=96, learning_rate=None, device_tokens=None) == settings
