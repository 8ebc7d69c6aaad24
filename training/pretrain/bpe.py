"""The tokenizer: a byte-level BPE like GPT-2's, smaller, trained on the same texts as the model.

Each speaker tag is one token of its own (otherwise every turn would spend three on `Person`, `2`, `:`). Byte-level, so
it can represent any text; a newline is always its own token, so a prompt's tokens are the beginning of the tokens it
was trained with.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from core.dialogue import Speaker
from core.errors import TrainingError
from core.generator import END_OF_TEXT

TAGS = tuple(f"{speaker}:" for speaker in Speaker)
MIN_VOCABULARY = 256 + 1 + len(TAGS)
"""All bytes, end of text, the tags."""


def train(texts: Iterable[str], *, vocabulary: int) -> Tokenizer:
    """A BPE of at most `vocabulary` entries: end of text is 0, the tags are 1 and 2."""
    if vocabulary < MIN_VOCABULARY:
        raise TrainingError(f"A vocabulary of {vocabulary} cannot hold every byte; ask for at least {MIN_VOCABULARY}.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tags = [AddedToken(tag, special=False, normalized=False) for tag in TAGS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(END_OF_TEXT, special=True, normalized=False), *tags],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_untagged(texts), trainer)
    return _with_plain_tags(tokenizer)


def _with_plain_tags(tokenizer: Tokenizer) -> Tokenizer:
    """The trainer marks all given tokens as special. Tags must not be: decoding has to keep them, and encoding end of
    text as plain text (`encode_special_tokens`) must not divide them."""
    parts = json.loads(tokenizer.to_str())
    for token in parts["added_tokens"]:
        token["special"] = token["content"] not in TAGS
    return Tokenizer.from_str(json.dumps(parts))


def _untagged(texts: Iterable[str]) -> Iterable[str]:
    """The text between the tags, so that no merge is spent on them."""
    for text in texts:
        for tag in TAGS:
            text = text.replace(tag, "")
        yield text


def load(folder: Path) -> Tokenizer:
    """The tokenizer of an earlier model. Raises TrainingError."""
    path = folder / "tokenizer.json" if folder.is_dir() else folder
    if not path.is_file():
        raise TrainingError(f"{path} is not a tokenizer; name a folder that holds tokenizer.json, or leave it out.")
    tokenizer = Tokenizer.from_file(str(path))
    end_of(tokenizer)
    return tokenizer


def end_of(tokenizer: Tokenizer) -> int:
    """The id of the end of text. Raises TrainingError if the tokenizer has none."""
    found: int | None = tokenizer.token_to_id(END_OF_TEXT)
    if found is None:
        raise TrainingError(f"The tokenizer has no {END_OF_TEXT} token; use one made by this tool, or leave it out.")
    return found
