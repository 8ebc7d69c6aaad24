"""A GPT-2 small enough for a test: random weights, and a byte-level BPE learned from a handful of sentences."""

import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from core.dialogue import write
from core.generator import END_OF_TEXT
from core.memory import Memory
from tests.training.logged import logged
from tests.training.toys import TALK, TEXTS, dialogue


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests share two cores with one another."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    """Talk of Ann and Cat, who said yes, and of Bob, who did not; in a file under the test's folder."""
    return logged(f"sqlite:///{tmp_path / 'person2.db'}")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([line for talk in TALK for line in write([dialogue(*talk)])] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT)


@pytest.fixture(scope="session")
def base(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that from_pretrained loads: two layers, 32 wide, 96 tokens of context."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=96,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,  # large enough for a leak between dialogues to show in the logits
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Forty dialogues in a file."""
    path = tmp_path / "talk.txt"
    path.write_text(
        "\n".join(TEXTS[n % 5].replace("Person1:", f"Person1: So {n}:", 1) for n in range(40)), encoding="utf-8"
    )
    return path
