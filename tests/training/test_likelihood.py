"""Bits per byte mean what they say, whatever the length of the dialogue and the company it keeps."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from core.dialogue import render, write
from tests.training.toys import TALK, dialogue
from training.evaluation.evaluate import evaluate
from training.evaluation.intervals import mean, ratio
from training.evaluation.likelihood import likelihood, whole_and_replied
from training.evaluation.suite import load_candidates
from training.finetune.corpus import load
from training.finetune.encoder import Targets
from training.pretrain import heldout


def test_bits_per_byte_is_transformers_loss_over_bytes(base: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """A dialogue's nats are transformers' own loss times its tokens; its bytes are those of the rendered text."""
    turns = dialogue("Do you like films?", "Yes, I like old films. 🎬")
    ids = torch.tensor([tokenizer.encode(render(turns))])
    model = GPT2LMHeadModel.from_pretrained(base).train(False)
    nats = float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
    (judged,) = load_candidates(str(base), {"base": None})
    found = likelihood(judged.model, judged.encoder, [turns], targets=Targets.EVERYTHING)
    assert found.nats[0] == pytest.approx(nats, rel=1e-4)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / len(render(turns).encode()), rel=1e-4)
    assert found.perplexity == pytest.approx(math.exp(nats / (ids.shape[1] - 1)), rel=1e-4)


def test_pretraining_measures_by_the_same_convention(base: Path) -> None:
    """What `person2 pretrain` says of a model, `person2 evaluate` says too, long dialogues apart."""
    many = [dialogue(*talk) for talk in TALK]
    (judged,) = load_candidates(str(base), {"base": None})
    found = likelihood(judged.model, judged.encoder, many, targets=Targets.EVERYTHING)
    plain = GPT2LMHeadModel.from_pretrained(base)
    corpus = heldout.encode(
        "talk", [render(turns) for turns in many], Tokenizer.from_file(str(base / "tokenizer.json"))
    )
    other = heldout.bits_per_byte(plain, corpus, context=96, dtype=torch.float32, device=torch.device("cpu"))
    assert found.bits_per_byte == pytest.approx(other, rel=1e-5)


def test_each_dialogue_scores_alone_as_in_company(base: Path) -> None:
    """Packing, order and long neighbours change no dialogue's nats."""
    many = [dialogue(*talk) for talk in TALK] + [dialogue(*(f"turn {number} of many" for number in range(40)))]
    (judged,) = load_candidates(str(base), {"base": None})
    together = likelihood(judged.model, judged.encoder, many, targets=Targets.REPLIES)
    alone = [likelihood(judged.model, judged.encoder, [turns], targets=Targets.REPLIES).nats[0] for turns in many]
    np.testing.assert_allclose(together.nats, alone, rtol=1e-4)
    assert together.tokens.min() > 0


def test_one_reading_scores_whole_dialogues_and_replies(base: Path) -> None:
    """As two readings do; of a dialogue that is longer than the context, the replies stand in other windows, and a
    window's first token is not scored."""
    many = [dialogue(*talk) for talk in TALK] + [dialogue(*(f"turn {number} of many" for number in range(40)))]
    (judged,) = load_candidates(str(base), {"base": None})
    whole, replied = whole_and_replied(judged.model, judged.encoder, many)
    for found, targets in ((whole, Targets.EVERYTHING), (replied, Targets.REPLIES)):
        expected = likelihood(judged.model, judged.encoder, many, targets=targets)
        assert found.tokens[:-1].tolist() == expected.tokens[:-1].tolist()
        assert found.size.tolist() == expected.size.tolist()
        np.testing.assert_allclose(found.nats[:-1], expected.nats[:-1], rtol=1e-4)
        np.testing.assert_allclose(found.nats[-1], expected.nats[-1], rtol=0.1)


def test_evaluate_scores_each_file_and_all(base: Path, tmp_path: Path) -> None:
    """A file apiece, and all together; the interval holds the figure."""
    for index, talk in enumerate(TALK[:2]):
        (tmp_path / f"{index}.txt").write_text("".join(write([dialogue(*talk)] * 3)))
    files = [tmp_path / "0.txt", tmp_path / "1.txt"]
    found = evaluate(files, base=str(base))
    assert [scores.dialogues for scores in found.files.values()] == [3, 3]
    assert found.together.dialogues == 6
    values = sorted(scores.bits_per_byte.value for scores in found.files.values())
    assert values[0] < found.together.bits_per_byte.value < values[1]
    assert found.together.bits_per_byte.low <= found.together.bits_per_byte.value <= found.together.bits_per_byte.high
    assert load(files).sha256


def test_intervals_narrow_with_more_dialogues() -> None:
    """Ten times the data, about a third of the width."""
    random = np.random.default_rng(0)
    few, many = (mean(random.normal(1.0, 0.3, count)) for count in (40, 400))
    assert few.low < 1.0 < few.high
    assert (many.high - many.low) < (few.high - few.low) / 2
    assert ratio(np.array([1.0, 1.0]), np.array([2.0, 2.0])).value == 0.5
