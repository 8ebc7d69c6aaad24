"""Continuous batching: what each sequence computes in the next step, and what becomes of the tokens.

Sequences join and leave between steps. A long prompt is computed in chunks beside the next tokens of the others, so
that they do not wait for it; chunks end at fixed positions, whatever the load, so that a prompt is always computed in
the same way. Knows neither threads nor queues.
"""

from collections import abc
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.generator import INFORMATION, Sampling
from core.generator.engine.kv_cache import KVCachePool
from core.generator.engine.lora import Lora
from core.generator.engine.model import Chunk, KVCache, Model
from core.generator.engine.tokenizer import Tokenizer
from core.generator.sampling import RowSampling, choose

IDLE_CHUNKS = 4
"""Chunks of prompts computed in one step while no sequence is decoding."""


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """A prompt and one candidate reply, while it runs."""

    sampling: Sampling
    rng: Random
    lora: Lora | None
    conversation: str | None
    cache: KVCache
    tokens: NDArray[np.int64]
    """(prompt + largest reply,): the first `count` are set."""
    count: int
    computed: int
    """Tokens whose keys and values are in the cache."""
    prompt_tokens: int
    reused: int
    """Prompt tokens that were in the cache already."""
    finish: Literal["stop", "length", "damaged"] | None = None
    nats: float = 0.0
    """Log-probability of its new tokens, where candidates are compared."""
    leader: "Sequence | None" = None
    """The sequence that computes the prompt for it; None once it has a copy."""

    @property
    def prefilling(self) -> bool:
        """Whether its prompt is not computed yet."""
        return self.count - self.computed > 1

    @property
    def new_tokens(self) -> abc.Sequence[int]:
        ids: list[int] = self.tokens[self.prompt_tokens : self.count].tolist()
        return ids


@dataclass(slots=True, kw_only=True)
class Scheduler:
    model: Model
    pool: KVCachePool
    tokenizer: Tokenizer
    chunk: int
    """Most tokens of a prompt computed in a step while others are decoding."""
    sequences: list[Sequence] = field(default_factory=list)

    def join(
        self, prompt: abc.Sequence[int], *, sampling: Sampling, seed: int, lora: Lora | None, conversation: str | None
    ) -> Sequence | None:
        """Start a sequence; None while there is no memory for it. `prompt` fits into the context."""
        capacity = len(prompt) + room_for(sampling, self.model.config.context)
        lent = self.pool.acquire(conversation, prompt, tokens=capacity, lora=lora)
        if lent is None:
            return None
        cache, reused = lent
        known = np.zeros(capacity, dtype=np.int64)
        known[: len(prompt)] = prompt
        sequence = Sequence(
            sampling=sampling,
            rng=Random(seed),  # noqa: S311 - sampling needs no secure randomness
            lora=lora,
            conversation=conversation,
            cache=cache,
            tokens=known,
            count=len(prompt),
            computed=reused,
            prompt_tokens=len(prompt),
            reused=reused,
        )
        self.sequences.append(sequence)
        return sequence

    def candidate(self, leader: Sequence, *, seed: int) -> Sequence | None:
        """Another candidate for the prompt of `leader`, which has just joined; None without memory."""
        prompt = leader.tokens[: leader.prompt_tokens].tolist()
        candidate = self.join(prompt, sampling=leader.sampling, seed=seed, lora=leader.lora, conversation=None)
        if candidate is not None:
            candidate.leader = leader
        return candidate

    def information(self, sequences: abc.Sequence[Sequence]) -> list[float]:
        """Each finished reply's mutual information with the prompt, in nats (`core.generator.INFORMATION`).

        A reply's log-probability after the whole prompt was summed as its tokens were drawn. That after the prompt's
        last line alone is computed here, for all replies after computing that line once.
        """
        lora = sequences[0].lora
        line = [*self.tokenizer.start, *self._last_line(sequences[0])]
        front = len(line) - 1
        read = self.model.new_cache(len(line))
        if front:
            self.model.forward([Chunk(cache=read, start=0, tokens=line[:-1], lora=lora, logits=0)])
        said = [sequence.tokens[sequence.prompt_tokens : sequence.count] for sequence in sequences]
        logits = self.model.forward(
            [
                Chunk(
                    cache=read.resized(len(line) + len(reply), keep=front),
                    start=front,
                    tokens=[line[-1], *reply[:-1].tolist()],
                    lora=lora,
                    logits=len(reply),
                )
                for reply in said
            ]
        )
        nats = _log_probabilities(logits, torch.from_numpy(np.concatenate(said))).split([len(reply) for reply in said])
        return [sequence.nats - INFORMATION * float(bare.sum()) for sequence, bare in zip(sequences, nats, strict=True)]

    def _last_line(self, sequence: Sequence) -> abc.Sequence[int]:
        """The tokens after the prompt's last newline, or its last token where there are none."""
        last = self.prompt(sequence).rsplit("\n", 1)[-1]
        return self.tokenizer.encode(last) or sequence.tokens[: sequence.prompt_tokens][-1:].tolist()

    def prompt(self, sequence: Sequence) -> str:
        return self.tokenizer.decode(sequence.tokens[: sequence.prompt_tokens].tolist())

    def leave(self, sequence: Sequence) -> None:
        """End a sequence; its cache is kept for the conversation's next turn."""
        self.sequences.remove(sequence)
        self.pool.release(
            sequence.cache,
            conversation=sequence.conversation,
            tokens=sequence.tokens[: sequence.computed].tolist(),
            lora=sequence.lora,
        )

    def step(self) -> int:
        """One token for every decoding sequence, and chunks of prompts; returns how many tokens were chosen."""
        chunks, choosing = self._plan()
        if not chunks:
            return 0
        logits = self.model.forward(chunks)
        if not choosing:
            return 0
        rows = [
            RowSampling(sampling=sequence.sampling, rng=sequence.rng, seen=sequence.tokens[: sequence.count])
            for sequence in choosing
        ]
        compared = [row for row, sequence in enumerate(choosing) if sequence.sampling.best_of > 1]
        drawn_from = logits[compared].clone() if compared else logits  # `choose` changes them
        tokens = choose(logits, rows, self.model.search)
        if compared:
            drawn = torch.tensor([tokens[row] or 0 for row in compared])
            for row, nats in zip(compared, _log_probabilities(drawn_from, drawn).tolist(), strict=True):
                choosing[row].nats += nats
        for sequence, token in zip(choosing, tokens, strict=True):
            self._append(sequence, token)
        return len(choosing)

    def text(self, sequence: Sequence) -> str:
        """The reply without the stop text, and without a last character whose bytes are incomplete."""
        said = self.tokenizer.decode(sequence.new_tokens)
        if sequence.sampling.stop and sequence.finish == "stop":
            said = said.split(sequence.sampling.stop, 1)[0]
        return said.rstrip("\ufffd")

    def _fork(self) -> None:
        """Copy the prompt's cache to candidates whose leader has computed it; they compute its last token
        themselves."""
        for sequence in self.sequences:
            if sequence.leader is not None and not sequence.leader.prefilling:
                read = sequence.prompt_tokens - 1
                sequence.cache = sequence.leader.cache.resized(len(sequence.tokens), keep=read)
                sequence.computed, sequence.leader = read, None

    def _plan(self) -> tuple[list[Chunk], list[Sequence]]:
        chunks: list[Chunk] = []
        choosing: list[Sequence] = []
        self._fork()
        decoding = [sequence for sequence in self.sequences if not sequence.prefilling and sequence.finish is None]
        for sequence in decoding:
            chunks.append(self._chunk(sequence, sequence.count))
            choosing.append(sequence)
        budget = self.chunk if decoding else IDLE_CHUNKS * self.chunk
        for sequence in self.sequences:
            if not sequence.prefilling or sequence.leader is not None:
                continue
            while budget > 0 and sequence.computed < sequence.count:
                end = min(sequence.count, (sequence.computed // self.chunk + 1) * self.chunk)
                budget -= end - sequence.computed
                chunks.append(self._chunk(sequence, end))
                if end == sequence.count:
                    choosing.append(sequence)
            if budget <= 0:
                break
        return chunks, choosing

    def _chunk(self, sequence: Sequence, end: int) -> Chunk:
        start, sequence.computed = sequence.computed, end
        return Chunk(
            cache=sequence.cache,
            start=start,
            tokens=sequence.tokens[start:end].tolist(),
            lora=sequence.lora,
            logits=int(end == sequence.count),
        )

    def _append(self, sequence: Sequence, token: int | None) -> None:
        """Add a token; is the reply over? The stop text may end inside a token or span several."""
        if token is None:
            sequence.finish = "damaged"
            return
        sequence.tokens[sequence.count] = token
        sequence.count += 1
        stop = sequence.sampling.stop
        tail = self.tokenizer.decode(sequence.new_tokens[-len(stop.encode()) :]) if stop else ""
        if token in self.tokenizer.ends or (stop and stop in tail):
            sequence.finish = "stop"
        elif sequence.count == len(sequence.tokens):
            sequence.finish = "length"


def room_for(sampling: Sampling, context: int) -> int:
    """Most tokens that a reply may have; leaves room for at least one of the prompt."""
    return min(sampling.max_new_tokens, context - 1)


def _log_probabilities(logits: Tensor, tokens: Tensor) -> Tensor:
    """(M, V) float32 and (M,) int64 → (M,)"""
    return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=1)
