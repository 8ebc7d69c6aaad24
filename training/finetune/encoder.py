"""Dialogues → tokens of one model's vocabulary, with which of them are targets.

Knows the dialogue format (through `core.dialogue`) and tokenizers; knows no file and no model. A model that learns from
these tokens sees exactly the text it will be prompted with. Only Person2's words are targets.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, islice
from typing import cast

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from core.dialogue import Dialogue, Speaker, Turn, prompt, render
from core.errors import ModelError
from core.generator import END_OF_TEXT
from core.generator.vocabulary import end_tokens, start_tokens


class Targets(Enum):
    """Which tokens a model is asked to predict."""

    REPLIES = "replies"
    """What follows `Person2:`, its newline included, since that is where a reply stops. Used to train, and for
    reply_bits_per_byte. The end of text after a dialogue is no target: a bot is never asked what follows its line."""
    EVERYTHING = "everything"
    """Every token of the rendered dialogue but the first, which has no context. Used for bits_per_byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedDialogue:
    """One dialogue in tokens."""

    ids: NDArray[np.int32]
    """(T,)"""
    target: NDArray[np.bool_]
    """(T,): the model is asked to predict this token from those before it."""
    turns: NDArray[np.int32]
    """(turns,): where each turn begins."""


class Encoder:
    """Dialogues in tokens of one model's vocabulary.

    Turns are encoded piece by piece, the tag apart from the words; a byte-level BPE never merges across those
    boundaries, so the pieces are the tokens of the whole text (a property test checks this). Where a vocabulary does
    merge them, or marks the beginning of a text (SentencePiece), the whole text is encoded and then divided.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, left_out: Callable[[str], bool] = lambda text: False
    ) -> None:
        """`left_out` says whether a turn of Person2's is not to be a target."""
        self._left_out = left_out
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError("This base has no fast tokenizer; use one with a tokenizer.json.")
        self.start = start_tokens(backend)
        """Tokens that begin every dialogue and prompt; none in most families."""
        # A special token that somebody types is text, not a control token.
        backend.encode_special_tokens = True
        self._backend = backend
        own = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
        unknown = own == tokenizer.unk_token_id and tokenizer.unk_token != END_OF_TEXT
        end = tokenizer.eos_token_id if own is None or unknown else own
        if not isinstance(end, int):
            raise ModelError(f"This base's tokenizer has neither {END_OF_TEXT} nor an end of text of its own.")
        self.end: int = end
        self.ends = frozenset({end, *end_tokens(backend, {"eos_token_id": tokenizer.eos_token_id})})
        """What ends a generation."""
        vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=False)
        self.newlines = tuple(number for token, number in vocabulary.items() if "Ċ" in token or "<0x0A>" in token)
        """Tokens that contain a newline, alone or after punctuation, as byte-level and SentencePiece vocabularies write
        it."""
        self._tags = {speaker: self._encode([f"{speaker}:"])[0] for speaker in Speaker}
        pieces = [*self._tags[Speaker.PERSON1], *self.text(" a\n"), *self._tags[Speaker.PERSON2], *self.text(" b\n")]
        self._in_pieces = pieces == self.text(f"{Speaker.PERSON1}: a\n{Speaker.PERSON2}: b\n")

    def _encode(self, texts: list[str]) -> list[list[int]]:
        encodings = self._backend.encode_batch(texts, add_special_tokens=False)
        return [cast("list[int]", encoding.ids) for encoding in encodings]

    def text(self, text: str) -> list[int]:
        """Tokens of any text, with special tokens in it as plain text."""
        return self._encode([text])[0]

    def prompt(self, turns: Iterable[Turn]) -> list[int]:
        """What a model continues with Person2's next words."""
        return [*self.start, *self.text(prompt(turns))]

    def reply(self, words: str) -> list[int]:
        """Tokens of what follows `Person2:`, including the space before it."""
        if self._in_pieces:
            return self.text(f" {words}")
        front = self._tags[Speaker.PERSON2]
        return self.text(f"{Speaker.PERSON2}: {words}")[len(front) :]

    def words(self, ids: list[int]) -> str:
        """The text of tokens, special ones left out."""
        return cast("str", self._backend.decode(ids, skip_special_tokens=True))

    def encode(self, dialogues: Iterable[Dialogue], targets: Targets) -> Iterator[EncodedDialogue]:
        """Each dialogue in tokens, in order; in batches, which the tokenizer encodes fastest."""
        stream = iter(dialogues)
        while batch := list(islice(stream, 256)):
            if not self._in_pieces:
                yield from (self._divided(turns, targets) for turns in batch)
                continue
            words = iter(self._encode([f" {turn.text}\n" for turns in batch for turn in turns]))
            for turns in batch:
                yield self._one(turns, words, targets)

    def _divided(self, turns: Dialogue, targets: Targets) -> EncodedDialogue:
        """A dialogue encoded as a whole; a token belongs to the turn, and to the part of it, in which it ends."""
        found = self._backend.encode(render(turns), add_special_tokens=False)
        ends = [last - 1 for _, last in found.offsets]
        turn_ends = list(accumulate(len(f"{turn}\n") for turn in turns))
        cuts = [bisect_left(ends, place) for place in (0, *turn_ends)]
        tokens = iter(found.ids)

        def parts() -> Iterator[tuple[list[int], list[int]]]:
            for number, turn in enumerate(turns):
                words_begin = (turn_ends[number - 1] if number else 0) + len(f"{turn.speaker}:")
                seam = bisect_left(ends, words_begin)
                tag = list(islice(tokens, seam - cuts[number]))
                yield tag, list(islice(tokens, cuts[number + 1] - seam))

        return self._joined(turns, parts(), targets)

    def _one(self, turns: Dialogue, words: Iterator[list[int]], targets: Targets) -> EncodedDialogue:
        return self._joined(turns, ((self._tags[turn.speaker], next(words)) for turn in turns), targets)

    def _joined(
        self, turns: Dialogue, parts: Iterable[tuple[list[int], list[int]]], targets: Targets
    ) -> EncodedDialogue:
        """`parts` are each turn's tag and words."""
        ids: list[int] = [*self.start]
        target: list[bool] = [False] * len(ids)
        starts: list[int] = []
        everything = targets is Targets.EVERYTHING
        for turn, (tag, said) in zip(turns, parts, strict=True):
            starts.append(len(ids) if starts else 0)
            ids += tag + said
            answers = turn.speaker is Speaker.PERSON2 and len(starts) > 1  # an opening answers nothing
            answers = answers and not self._left_out(turn.text)
            target += [everything] * len(tag) + [everything or answers] * len(said)
        ids.append(self.end)
        target.append(False)
        if everything:
            target[len(self.start)] = False  # it has no context
        return EncodedDialogue(
            ids=np.asarray(ids, dtype=np.int32),
            target=np.asarray(target, dtype=np.bool_),
            turns=np.asarray(starts, dtype=np.int32),
        )
