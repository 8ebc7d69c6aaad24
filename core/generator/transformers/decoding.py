"""Rows that share a batch, one token per step. Rows join and leave between steps.

Left-padded, so that every row's newest token is in the last column. Each row has its own positions, mask, settings
and random stream, so its text does not depend on who shares the batch: in float32 to the last token, in bfloat16 up to
the rounding of matrix products of another shape. Knows neither queues nor threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, Protocol, cast

import numpy as np
import torch
from transformers import DynamicCache

from core.errors import NumericalError
from core.generator import NOT_FINITE, Sampling
from core.generator.sampling import RowSampling, choose
from core.generator.transformers.loader import Base


class Forward(Protocol):
    def __call__(
        self,
        input_ids: torch.Tensor,
        *,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        cache: DynamicCache,
        adapter_names: Sequence[str],
    ) -> torch.Tensor:
        """The last column's logits, `(B, V) float32`; `(B, T) int64` in, an adapter's name per row."""
        ...


@dataclass(slots=True, kw_only=True)
class Row:
    """A prompt and one candidate reply, while it runs."""

    ids: list[int]
    """Prompt and reply so far; never longer than the context."""
    prompt_tokens: int
    room: int
    """Most tokens the reply may have."""
    sampling: Sampling
    rng: Random
    adapter_name: str
    """The name under which peft knows the adapter (`AdapterPool.name`)."""
    text: str = ""
    finish: Literal["stop", "length"] | None = None
    """None while it runs."""
    error: Exception | None = None

    @property
    def new_tokens(self) -> int:
        return len(self.ids) - self.prompt_tokens


def make_row(base: Base, prompt: Sequence[int], *, sampling: Sampling, seed: int, adapter_name: str) -> Row:
    """Drop the oldest tokens of a prompt that leaves too little room for the reply; at least one token stays."""
    context = base.context_length - len(base.start)
    room = min(sampling.max_new_tokens, context - 1)
    ids = [*base.start, *prompt[-(context - room) :]] or [base.end]
    rng = Random(seed)  # noqa: S311 - sampling needs no secure randomness
    return Row(ids=ids, prompt_tokens=len(ids), room=room, sampling=sampling, rng=rng, adapter_name=adapter_name)


@dataclass(slots=True, kw_only=True)
class Batch:
    """The rows that run, with their keys and values: per layer `(B, H, T, D)`, T the longest row, zeros on the left."""

    base: Base
    forward: Forward
    rows: list[Row] = field(default_factory=list)
    _cache: DynamicCache | None = None
    _mask: torch.Tensor | None = None
    """`(B, T) int64`: 1 where a row has a token."""

    def admit(self, rows: Sequence[Row]) -> None:
        """Compute the prompts of new rows, choose each one's first token, and add them to the batch.

        Rows of similar length are computed together. An error there fails those rows alone (`Row.error`).
        """
        for group in _of_similar_length(rows):
            try:
                self._prefill(group)
            except Exception as error:  # whatever torch raises must not end the thread
                for row in group:
                    row.error = error

    def step(self) -> None:
        """One token for every row; finished rows stay until `drop`."""
        if not self.rows or self._cache is None or self._mask is None:
            return
        device = self.base.model.device
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(self.rows), 1))], dim=1)
        logits = self.forward(
            torch.tensor([[row.ids[-1]] for row in self.rows], device=device),
            attention_mask=self._mask,
            position_ids=torch.tensor([[len(row.ids) - 1] for row in self.rows], device=device),
            cache=self._cache,
            adapter_names=[row.adapter_name for row in self.rows],
        )
        self._append(self.rows, logits)

    def drop(self, gone: Sequence[Row]) -> None:
        """Remove rows, finished or not, and the columns that only they needed."""
        if not gone:
            return
        ids = {id(row) for row in gone}
        keep = [index for index, row in enumerate(self.rows) if id(row) not in ids]
        if len(keep) == len(self.rows):
            return
        self.rows = [self.rows[index] for index in keep]
        if not self.rows or self._cache is None or self._mask is None:
            self._cache = self._mask = None
            return
        index = torch.tensor(keep, device=self._mask.device)
        mask = self._mask[index]
        width = max(len(row.ids) for row in self.rows) - 1  # the newest token is not in the cache yet
        self._mask = mask[:, -width:].contiguous()
        for layer in _layers(self._cache):
            layer.keys = layer.keys[index][:, :, -width:].contiguous()
            layer.values = layer.values[index][:, :, -width:].contiguous()

    def clear(self) -> None:
        self.rows = []
        self._cache = self._mask = None

    def _prefill(self, rows: Sequence[Row]) -> None:
        device = self.base.model.device
        width = max(len(row.ids) for row in rows)
        pads = [width - len(row.ids) for row in rows]
        ids = [[self.base.end] * pad + row.ids for pad, row in zip(pads, rows, strict=True)]
        positions = [[0] * pad + list(range(len(row.ids))) for pad, row in zip(pads, rows, strict=True)]
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads], device=device)
        cache = DynamicCache(config=self.base.model.config)
        logits = self.forward(
            torch.tensor(ids, device=device),
            attention_mask=mask,
            position_ids=torch.tensor(positions, device=device),
            cache=cache,
            adapter_names=[row.adapter_name for row in rows],
        )
        self._append(rows, logits)
        self._join(rows, cache, mask)

    def _join(self, rows: Sequence[Row], cache: DynamicCache, mask: torch.Tensor) -> None:
        if self._cache is None or self._mask is None:
            self.rows, self._cache, self._mask = list(rows), cache, mask
            return
        width = max(mask.shape[1], self._mask.shape[1])
        joined = torch.cat([_pad_left(self._mask, width, dim=1), _pad_left(mask, width, dim=1)])
        for mine, theirs in zip(_layers(self._cache), _layers(cache), strict=True):
            mine.keys = torch.cat([_pad_left(mine.keys, width, dim=2), _pad_left(theirs.keys, width, dim=2)])
            mine.values = torch.cat([_pad_left(mine.values, width, dim=2), _pad_left(theirs.values, width, dim=2)])
        self._mask = joined
        self.rows = [*self.rows, *rows]

    def _append(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        choosers = [RowSampling(sampling=row.sampling, rng=row.rng, seen=np.array(row.ids)) for row in rows]
        for row, token in zip(rows, choose(logits, choosers), strict=True):
            if token is None:
                row.error = NumericalError(NOT_FINITE)
                row.ids.append(self.base.end)  # keeps the columns aligned until it is dropped
            else:
                row.ids.append(token)
                self._update_finish(row, token)

    def _update_finish(self, row: Row, token: int) -> None:
        """Decide whether the reply is finished. The stop text may end inside a token or span several."""
        row.text = self.base.decode(row.ids[row.prompt_tokens :])
        stop = row.sampling.stop
        if token in self.base.ends:
            row.finish = "stop"
        elif stop and stop in row.text:
            row.text = row.text[: row.text.index(stop)]
            row.finish = "stop"
        elif row.new_tokens >= row.room:
            row.finish = "length"
        if row.finish is not None:
            row.text = row.text.rstrip("\ufffd")  # a character whose bytes are incomplete


class _CacheLayer(Protocol):
    """The part of a layer of transformers' DynamicCache that is used here: `(B, H, T, D)` each."""

    keys: torch.Tensor
    values: torch.Tensor


def _layers(cache: DynamicCache) -> list[_CacheLayer]:
    return cast(list[_CacheLayer], cache.layers)


def _pad_left(tensor: torch.Tensor, width: int, *, dim: int) -> torch.Tensor:
    """Zeros on the left of `dim`, up to `width`."""
    missing = width - tensor.shape[dim]
    if missing <= 0:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dim)


def _of_similar_length(rows: Sequence[Row]) -> list[list[Row]]:
    """Groups in which the longest is at most twice the shortest, so that padding at most doubles the work."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if groups and len(row.ids) <= 2 * len(groups[-1][0].ids):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
