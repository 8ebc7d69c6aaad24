"""What the engine asks of a model: caches for keys and values, and logits for chunks of many conversations at once.

Two answer: `model_torch` (torch, float32 or int8, any processor) and `model_native` (int8, one compiled call a step,
where there are kernels for the processor). Nothing here computes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from core.generator.engine.checkpoint import ModelConfig
from core.generator.engine.lora import Lora
from core.generator.sampling import Search

CACHE_STEP = 64
"""Tokens by which a cache grows: whole ones, so that a conversation is seldom moved."""


class KVCache(Protocol):
    """The keys and values of one conversation."""

    @property
    def capacity(self) -> int:
        """Tokens it can hold."""
        ...

    @property
    def bytes(self) -> int: ...

    def resized(self, tokens: int, *, keep: int) -> "KVCache":
        """A cache for at least `tokens` that holds the first `keep` tokens of this one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Consecutive tokens of one conversation to compute in this step."""

    cache: KVCache
    start: int
    """Position of the first token; everything before it is in the cache already."""
    tokens: Sequence[int]
    lora: Lora | None = None
    logits: int = 1
    """How many of the last tokens' logits are wanted; 0 in the middle of a prompt."""


class Model(Protocol):
    @property
    def kernels(self) -> str:
        """Which products run, for `status`: `torch` or a kind of compiled ones."""
        ...

    @property
    def config(self) -> ModelConfig: ...

    def new_cache(self, tokens: int) -> KVCache: ...

    def cache_bytes(self, tokens: int) -> int:
        """What `cache(tokens)` takes."""
        ...

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        """Compute the chunks, put their keys and values into their caches; two chunks may be of one conversation, in
        order. Returns the wanted logits, chunk after chunk: (sum of `logits`, vocabulary) float32. The caller may
        change them; the next call may overwrite them.
        """
        ...

    def release(self) -> None:
        """Free what is kept between steps to be quick; the next one is a little slower."""
        ...

    @property
    def search(self) -> Search | None:
        """A faster way to the top_tokens tokens than `sampling.top_tokens`, where there is one."""
        ...


def rounded(tokens: int) -> int:
    return -(-tokens // CACHE_STEP) * CACHE_STEP
