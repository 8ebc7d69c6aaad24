"""What the engine asks of a model: rooms for keys and values, and logits for pieces of many conversations at once.

Two networks answer it: `eager` (torch, float32 or int8, any processor) and `native` (int8, one call a step, where the
processor and a C compiler allow). Nothing here computes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from core.generator.engine.checkpoint import Shape
from core.generator.engine.lora import Lora
from core.generator.engine.sampling import Search

ROOM_STEP = 64
"""Tokens by which a room grows: whole ones, so that a conversation is seldom moved."""


class Room(Protocol):
    """The keys and values of one conversation."""

    @property
    def capacity(self) -> int:
        """Tokens it can hold."""
        ...

    @property
    def bytes(self) -> int: ...

    def grown(self, tokens: int, *, keep: int) -> "Room":
        """A room for at least `tokens` that holds the first `keep` tokens of this one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Consecutive tokens of one conversation to compute in this step."""

    room: Room
    start: int
    """Position of the first token; everything before it is in the room already."""
    tokens: Sequence[int]
    lora: Lora | None = None
    logits: int = 1
    """How many of the last tokens' logits are wanted; 0 in the middle of a prompt."""


class Network(Protocol):
    @property
    def shape(self) -> Shape: ...

    def room(self, tokens: int) -> Room: ...

    def room_bytes(self, tokens: int) -> int:
        """What `room(tokens)` takes."""
        ...

    def forward(self, pieces: Sequence[Piece]) -> Tensor:
        """Compute the pieces, put their keys and values into their rooms; two pieces may be of one conversation, in
        order. Returns the wanted logits, piece after piece: (sum of `logits`, vocabulary) float32. The caller may
        change them; the next call may overwrite them.
        """
        ...

    @property
    def search(self) -> Search | None:
        """A faster way to the likeliest tokens than `sampling.likeliest`, where there is one."""
        ...


def rounded(tokens: int) -> int:
    return -(-tokens // ROOM_STEP) * ROOM_STEP
