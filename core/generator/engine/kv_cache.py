"""The caches of keys and values of conversations that may go on, bounded in bytes; the least recently used are dropped.

The bound includes the caches of running requests. Knows no threads.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from core.generator.engine.lora import Lora
from core.generator.engine.model import KVCache, Model


@dataclass(slots=True, kw_only=True)
class _IdleCache:
    cache: KVCache
    tokens: Sequence[int]
    """What the cache holds, from position 0."""
    lora: Lora | None
    since: float
    """When its conversation was last answered."""


SHARED_PREFIX = 32
"""Tokens from which on a prefix shared with another conversation, such as a persona, is copied from its cache: a
shorter one is computed as quickly as it is found."""


class KVCachePool:
    def __init__(self, model: Model, *, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._clock = clock
        self._limit = limit
        self._idle: OrderedDict[str, _IdleCache] = OrderedDict()
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes of all caches, idle and in use."""
        return self._used

    def __len__(self) -> int:
        return len(self._idle)

    def acquire(
        self, conversation: str | None, prompt: Sequence[int], *, tokens: int, lora: Lora | None
    ) -> tuple[KVCache, int] | None:
        """A cache for `tokens` tokens and how many of `prompt` it contains already; None when there is no space yet.

        Its content is the conversation's own, or a copied prefix from another conversation. At least the prompt's last
        token is left to compute, because its logits start the reply. Keys and values depend on the adapter, so those
        of another one cannot be used.
        """
        idle = self._idle.get(conversation) if conversation is not None else None
        same = _common_prefix(idle.tokens, prompt) if idle is not None and idle.lora is lora else 0
        same = min(same, len(prompt) - 1)
        if idle is not None and conversation is not None and (same == 0 or idle.cache.capacity >= tokens):
            del self._idle[conversation]
            if same:
                return idle.cache, same
            self._used -= idle.cache.bytes
            idle = None
        if not self._make_space(self._model.cache_bytes(tokens), spare=conversation if idle else None):
            if idle is None or conversation is None:
                return None
            del self._idle[conversation]  # not enough space for the old cache beside the new one
            self._used -= idle.cache.bytes
            idle = None
            if not self._make_space(self._model.cache_bytes(tokens), spare=None):
                return None
        if idle is not None and conversation is not None:
            cache = idle.cache.resized(tokens, keep=same)
            del self._idle[conversation]
            self._used += cache.bytes - idle.cache.bytes
            return cache, same
        donor, same = self._longest_prefix(prompt, lora)
        cache = donor.resized(tokens, keep=same) if donor else self._model.new_cache(tokens)
        self._used += cache.bytes
        return cache, same

    def _longest_prefix(self, prompt: Sequence[int], lora: Lora | None) -> tuple[KVCache | None, int]:
        """The idle cache with the longest common prefix of the prompt, and that length."""
        best: KVCache | None = None
        most = SHARED_PREFIX - 1
        for idle in self._idle.values():
            if idle.lora is lora and (same := min(_common_prefix(idle.tokens, prompt), len(prompt) - 1)) > most:
                best, most = idle.cache, same
        return best, most if best else 0

    def release(self, cache: KVCache, *, conversation: str | None, tokens: Sequence[int], lora: Lora | None) -> None:
        """Keep the cache, which contains `tokens`, for the conversation's next turn; without a conversation free it."""
        if conversation is None or not tokens:
            self._used -= cache.bytes
            return
        self._forget(conversation)
        self._idle[conversation] = _IdleCache(cache=cache, tokens=tuple(tokens), lora=lora, since=self._clock())

    def drop(self, lora: Lora) -> None:
        """Free the caches that were computed with an adapter."""
        for conversation in [name for name, idle in self._idle.items() if idle.lora is lora]:
            self._forget(conversation)

    def expire(self, seconds: float) -> int:
        """Free the caches that have not been used for so long; returns how many."""
        before = self._clock() - seconds
        old = [name for name, idle in self._idle.items() if idle.since <= before]
        for conversation in old:
            self._forget(conversation)
        return len(old)

    def clear(self) -> None:
        for conversation in list(self._idle):
            self._forget(conversation)

    def _forget(self, conversation: str) -> None:
        idle = self._idle.pop(conversation, None)
        if idle is not None:
            self._used -= idle.cache.bytes

    def _make_space(self, needed: int, *, spare: str | None) -> bool:
        while self._used + needed > self._limit:
            oldest = next((name for name in self._idle if name != spare), None)
            if oldest is None:
                return False
            self._forget(oldest)
        return True


def _common_prefix(kept: Sequence[int], prompt: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    length = min(len(kept), len(prompt))
    other = np.flatnonzero(np.asarray(kept[:length]) != np.asarray(prompt[:length]))
    return int(other[0]) if len(other) else length
