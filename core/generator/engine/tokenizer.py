"""Text ↔ token ids, with the `tokenizers` library alone.

Special tokens inside a text are encoded as plain text: nobody can end a conversation by typing `<|endoftext|>`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, pre_tokenizers
from tokenizers.models import BPE

from core.errors import ModelError
from core.generator.vocabulary import end_tokens, start_tokens

LONGEST_TOKEN = 16
"""Characters per token, on average: more than in any real text, for cutting a text before it is encoded."""


class Tokenizer:
    def __init__(self, tokenizer: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
        """`config` is the model's `config.json`."""
        self.start = start_tokens(tokenizer)
        """Tokens that start every text, such as Llama's `<s>`; empty for most."""
        self.ends = end_tokens(tokenizer, config)
        """Tokens that end a generation."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = self.library = tokenizer

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def prompt(self, text: str, limit: int) -> list[int]:
        """`start` and the last tokens of `text`, at most `limit` and at least one, without encoding megabytes."""
        limit = max(limit - len(self.start), 1)
        ids = [*self.start, *self.encode(text[-LONGEST_TOKEN * limit :])[-limit:]]
        return ids or [min(self.ends, default=0)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """From `tokenizer.json`, else from GPT-2's own `vocab.json` and `merges.txt`."""
    whole, vocabulary, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    try:
        if whole.exists():
            return Tokenizer(tokenizers.Tokenizer.from_file(str(whole)), config)
        if vocabulary.exists() and merges.exists():
            tokenizer = tokenizers.Tokenizer(BPE.from_file(str(vocabulary), str(merges)))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            return Tokenizer(tokenizer, config)
    except Exception as error:  # the library raises bare Exception for every malformed file
        raise ModelError(f"the tokenizer in {folder} is damaged ({error}): fetch it again") from error
    raise ModelError(f"there is no tokenizer in {folder}: it needs tokenizer.json, or vocab.json and merges.txt")
