"""Texts → rows of tokens: a mixture of corpora by weight, packed without padding, resumable at any row.

A row begins with the beginning of a dialogue (or of a turn, where one dialogue fills several rows), because that is how
a prompt begins. Best-fit packing fills the rest; only the last piece of a row is cut, and it is used whole elsewhere.
Knows numpy, not torch: the training loop owns tensors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from core.errors import TrainingError
from training.pretrain import bpe

Tokens: TypeAlias = NDArray[np.uint16]

PENDING = 256
"""Pieces waiting to be packed: enough that nearly every gap finds a piece of its size."""

_ENCODE_BATCH = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedCorpus:
    """One corpus as tokens: text i is `tokens[starts[i]:starts[i + 1]]` and ends with end of text."""

    name: str
    tokens: Tokens
    """(N,) uint16"""
    starts: NDArray[np.int64]
    """(texts + 1,) int64"""
    newline: int
    """The token after which a long text may be divided."""

    def pieces(self, length: int) -> NDArray[np.int64]:
        """(P, 2) int64: where rows of at most `length` tokens may begin and end.

        A text that fits is one piece. A longer one fills whole rows; each begins after a newline and overlaps the row
        before by what was left of the last line.
        """
        found: list[tuple[int, int]] = []
        for start, end in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            if end - start <= length:
                found.append((start, end))
                continue
            breaks = np.flatnonzero(self.tokens[start:end] == self.newline) + start + 1
            while end - start > length:
                found.append((start, start + length))
                index = int(np.searchsorted(breaks, start + length, side="right")) - 1
                start = int(breaks[index]) if index >= 0 and breaks[index] > start else start + length
            if end - start > 1:
                found.append((start, end))
        return np.asarray(found, dtype=np.int64).reshape(-1, 2)


def encode(name: str, texts: Sequence[str], tokenizer: Tokenizer) -> EncodedCorpus:
    """Tokens of all texts, each followed by end of text."""
    end = bpe.end_of(tokenizer)
    parts: list[Tokens] = []
    for at in range(0, len(texts), _ENCODE_BATCH):
        batch = tokenizer.encode_batch_fast(list(texts[at : at + _ENCODE_BATCH]))
        parts.extend(np.asarray([*item.ids, end], dtype=np.uint16) for item in batch)
    starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    (newline,) = tokenizer.encode("\n").ids
    return EncodedCorpus(name=name, tokens=np.concatenate(parts), starts=starts, newline=newline)


@dataclass(slots=True)
class _Stream:
    """One corpus, shuffled anew in each pass; its position is two numbers."""

    corpus: EncodedCorpus
    weight: float
    seed: Sequence[int]
    pieces: NDArray[np.int64]
    epoch: int = 0
    at: int = 0
    drawn: int = 0
    """Tokens handed out since the start of this mixture."""
    order: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def shuffle(self) -> None:
        self.order = np.random.default_rng([*self.seed, self.epoch]).permutation(len(self.pieces))

    @property
    def share_drawn(self) -> float:
        return self.drawn / (self.weight * len(self.corpus.tokens))

    def draw(self) -> int:
        if self.at == len(self.order):
            self.epoch, self.at = self.epoch + 1, 0
            self.shuffle()
        piece = int(self.order[self.at])
        self.at += 1
        self.drawn += int(self.pieces[piece, 1] - self.pieces[piece, 0])
        return piece


class Mixture:
    """An endless stream of rows. The next text always comes from the corpus furthest behind its share."""

    def __init__(self, corpora: Mapping[str, tuple[EncodedCorpus, float]], *, length: int, seed: int) -> None:
        if not corpora:
            raise TrainingError("There is nothing to train on; name at least one dialogue file.")
        self.length = length
        self._streams: dict[str, _Stream] = {}
        for index, (name, (corpus, weight)) in enumerate(sorted(corpora.items())):
            stream = _Stream(corpus, weight, (seed, index), corpus.pieces(length + 1))
            stream.shuffle()
            self._streams[name] = stream
        self._pending: list[tuple[str, int]] = []

    def shares(self) -> dict[str, float]:
        """What part of the tokens each corpus makes up."""
        sizes = {name: stream.weight * len(stream.corpus.tokens) for name, stream in self._streams.items()}
        return {name: size / sum(sizes.values()) for name, size in sizes.items()}

    def passes(self) -> dict[str, float]:
        """How often each corpus was seen so far."""
        return {name: stream.drawn / len(stream.corpus.tokens) for name, stream in self._streams.items()}

    def batch(self, rows: int) -> NDArray[np.int64]:
        """(rows, length + 1) int64: inputs are `[:, :-1]`, targets `[:, 1:]`."""
        return np.stack([self._row() for _ in range(rows)]).astype(np.int64)

    def _row(self) -> Tokens:
        self._refill()
        parts = [self._tokens(self._pending.pop(0))]
        room = self.length + 1 - len(parts[0])
        while room > 0:
            self._refill()
            sizes = np.asarray([self._size(item) for item in self._pending])
            fitting = np.flatnonzero(sizes <= room)
            if len(fitting):
                parts.append(self._tokens(self._pending.pop(int(fitting[np.argmax(sizes[fitting])]))))
            else:
                parts.append(self._tokens(self._pending[-1])[:room])
            room -= len(parts[-1])
        return np.concatenate(parts)

    def _refill(self) -> None:
        while len(self._pending) < PENDING:
            name = min(self._streams, key=lambda key: self._streams[key].share_drawn)
            self._pending.append((name, self._streams[name].draw()))

    def _size(self, item: tuple[str, int]) -> int:
        start, end = self._streams[item[0]].pieces[item[1]]
        return int(end - start)

    def _tokens(self, item: tuple[str, int]) -> Tokens:
        stream = self._streams[item[0]]
        start, end = stream.pieces[item[1]]
        return stream.corpus.tokens[start:end]

    def state(self) -> dict[str, object]:
        """The position of the stream, as plain values."""
        return {
            "streams": {name: [stream.epoch, stream.at, stream.drawn] for name, stream in self._streams.items()},
            "pending": [list(item) for item in self._pending],
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Restore a `state` of the same corpora, weights, length and seed. Raises TrainingError."""
        streams, pending = state["streams"], state["pending"]
        if not isinstance(streams, dict) or not isinstance(pending, Iterable) or set(streams) != set(self._streams):
            raise TrainingError("The checkpoint was made from other files; name the same ones, or start a new run.")
        for name, (epoch, at, drawn) in streams.items():
            stream = self._streams[name]
            stream.epoch, stream.at, stream.drawn = epoch, at, drawn
            stream.shuffle()
        self._pending = [(str(name), int(piece)) for name, piece in pending]
