"""How a model is drawn from where the operator set nothing."""

from pathlib import Path

import pytest

from core.errors import ModelError
from core.generator import Sampling
from core.generator.defaults import SAMPLING, sampling_of
from core.settings import Settings
from person2.app import STARTER, sampling


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, SAMPLING),
        ("{}", SAMPLING),
        ('{"bos_token_id": 0, "do_sample": true, "max_length": 50}', SAMPLING),
        ('{"temperature": null, "top_p": 1.0}', Sampling(top_p=1.0, best_of=SAMPLING.best_of)),
        (
            '{"temperature": 0.5, "repetition_penalty": 1.3, "best_of": 8}',
            Sampling(temperature=0.5, repetition_penalty=1.3, best_of=8),
        ),
    ],
)
def test_the_folder_may_say_it(told: str | None, expected: Sampling, tmp_path: Path) -> None:
    if told is not None:
        (tmp_path / "generation_config.json").write_text(told)
    assert sampling_of(tmp_path) == expected


@pytest.mark.parametrize("told", ["[]", "nonsense", '{"temperature": "hot"}', '{"best_of": 99}', '{"top_p": 0}'])
def test_nonsense_is_one_sentence(told: str, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(told)
    with pytest.raises(ModelError, match=r"generation_config\.json cannot be used"):
        sampling_of(tmp_path)


def test_a_hub_name_says_nothing() -> None:
    assert sampling_of("gpt2") == SAMPLING


def test_a_remote_model_is_not_drawn_from_as_the_starter_is() -> None:
    """PERSON2_BASE_MODEL stays the starter where nobody sets it, but another model speaks then."""
    assert sampling(Settings()) == sampling_of(STARTER) != SAMPLING
    assert sampling(Settings(generator="remote")) == SAMPLING
