"""The interface of a model: caches of keys and values, and logits for chunks of many conversations at once.

Two implementations: `model_torch` (torch, float32 or int8, any processor) and `model_native` (int8, one compiled call
per step, where there are kernels for the processor). Nothing here computes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from core.generator.engine.checkpoint import ModelConfig
from core.generator.engine.lora import Lora
from core.generator.sampling import Search

CACHE_STEP = 64
"""Caches have a multiple of so many tokens, so that a growing conversation is seldom copied."""


class KVCache(Protocol):
    """The keys and values of one conversation."""

    @property
    def capacity(self) -> int:
        """Tokens it can hold."""
        ...

    @property
    def bytes(self) -> int: ...

    def resized(self, tokens: int, *, keep: int) -> "KVCache":
        """A new cache for at least `tokens` tokens with a copy of the first `keep` of this one."""
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
    """For how many of the last tokens logits are needed; 0 in the middle of a prompt."""


class Model(Protocol):
    @property
    def kernels(self) -> str:
        """Which kernels are used, for `status`: `torch` or a kind of compiled ones."""
        ...

    @property
    def config(self) -> ModelConfig: ...

    def new_cache(self, tokens: int) -> KVCache: ...

    def cache_bytes(self, tokens: int) -> int:
        """Size of `new_cache(tokens)`."""
        ...

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        """Compute the chunks and store their keys and values in their caches; several chunks may be of one
        conversation, in order. Returns the requested logits, chunk after chunk: (sum of `logits`, vocabulary) float32.
        The caller may change them; the next call may overwrite them.
        """
        ...

    def release(self) -> None:
        """Free buffers that are kept between steps; the next step is a little slower."""
        ...

    @property
    def search(self) -> Search | None:
        """A faster replacement for `sampling.top_tokens`, where there is one."""
        ...


def rounded(tokens: int) -> int:
    """The capacity of a cache for so many tokens."""
    return -(-tokens // CACHE_STEP) * CACHE_STEP
