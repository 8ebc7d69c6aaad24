"""Held-out bits per byte by the convention of `training.evaluation.likelihood`, so that figures from here and from
`person2 evaluate` are comparable; a test checks that they agree.

A dialogue longer than the context is read in windows that overlap by half; each token counts once, with at least half
a context before it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from training.pretrain import network as net

BATCH_TOKENS = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutCorpus:
    """One held-out corpus: each dialogue's tokens, and all of its bytes."""

    name: str
    tokens: tuple[tuple[int, ...], ...]
    bytes: tuple[int, ...]

    def first(self, count: int) -> "HeldOutCorpus":
        """Every n-th dialogue, so that about `count` remain: for quick evaluations during training."""
        every = max(1, len(self.tokens) // count)
        return HeldOutCorpus(name=self.name, tokens=self.tokens[::every], bytes=self.bytes[::every])


def encode(name: str, texts: Sequence[str], tokenizer: Tokenizer) -> HeldOutCorpus:
    encoded = tokenizer.encode_batch_fast(list(texts))
    return HeldOutCorpus(
        name=name,
        tokens=tuple(tuple(item.ids) for item in encoded),
        bytes=tuple(len(text.encode()) for text in texts),
    )


@torch.no_grad()
def bits_per_byte(
    network: GPT2LMHeadModel, corpus: HeldOutCorpus, *, context: int, dtype: torch.dtype, device: torch.device
) -> float:
    """The network's mode is restored. Windows are padded at their end, which causal attention never sees."""
    training = network.training
    network.train(False)
    total = 0.0
    for windows in _batches(corpus.tokens, context):
        longest = max(len(inputs) for inputs, _ in windows)
        inputs = torch.zeros((len(windows), longest), dtype=torch.int64)
        targets = torch.full((len(windows), longest), net.IGNORED, dtype=torch.int64)
        for row, (read, scored) in enumerate(windows):
            inputs[row, : len(read)] = torch.tensor(read)
            targets[row, : len(read)] = torch.tensor(scored)
        total += float(net.nats(network, inputs.to(device), targets.to(device), dtype=dtype))
    network.train(training)
    return total / math.log(2) / sum(corpus.bytes)


_Window: TypeAlias = tuple[Sequence[int], Sequence[int]]


def _windows(tokens: Sequence[int], context: int) -> Iterator[_Window]:
    """Inputs of at most `context` tokens and the targets they predict, each target once."""
    scored = 1
    while scored < len(tokens):
        start = 0 if scored == 1 else scored - context // 2
        end = min(len(tokens) - 1, start + context)
        targets = [net.IGNORED] * (scored - 1 - start) + list(tokens[scored : end + 1])
        yield tokens[start:end], targets
        scored = end + 1


def _batches(dialogues: Iterable[Sequence[int]], context: int) -> Iterator[list[_Window]]:
    """Windows of similar length together, so that there is little padding."""
    windows = sorted((window for tokens in dialogues for window in _windows(tokens, context)), key=lambda w: len(w[0]))
    batch: list[_Window] = []
    for window in windows:
        if batch and (len(batch) + 1) * len(window[0]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch
