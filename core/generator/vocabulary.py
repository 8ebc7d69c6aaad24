"""Which tokens of a base begin a text and end one. Knows the `tokenizers` library and `config.json`; needs no torch."""

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from core.generator import END_OF_TEXT

_ENDS = (END_OF_TEXT, "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "</s>")
"""Tokens that end a text or a turn in the families' vocabularies (`core.generator.families`)."""


def start_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that start every text: Llama's `<s>`, none in most families."""
    whole = tokenizer.encode("a", add_special_tokens=True)
    return tuple(token for token, special in zip(whole.ids, whole.special_tokens_mask, strict=True) if special)[
        : whole.special_tokens_mask.index(0)
    ]


def end_tokens(tokenizer: Tokenizer, config: Mapping[str, Any]) -> frozenset[int]:
    """Ids that end a generation: what `config.json` names, and the vocabulary's own ends of text and of turn.

    A chat model ends a turn with another token than a text, and its configuration often names only one of them.
    """
    named = config.get("eos_token_id")
    listed = named if isinstance(named, list) else [named]
    known = (tokenizer.token_to_id(text) for text in _ENDS)
    size = tokenizer.get_vocab_size()
    return frozenset(token for token in (*listed, *known) if isinstance(token, int) and 0 <= token < size)
