"""Telling the true reply from others: a second task of the cool-down, beside predicting every token.

A row contains a part of a dialogue, followed by other people's replies in place of some of its own. Each of those
attends to the dialogue up to its place and to itself (the layout of `evaluation.ranking`). The loss is −log of the true
reply's share when each candidate is weighed by (P(reply | context) ÷ P(reply)) ^ (1 ÷ temperature): the right answer by
Bayes' rule at temperature 1, where the others are drawn from all replies, and the contrastive loss of van den Oord et
al. 2018 (arXiv:1807.03748) with the language model itself as its critic. So a small model learns to make a reply depend
on its context. Knows tokens and the network; knows no files and no schedule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GPT2LMHeadModel

from core.errors import TrainingError
from training.pretrain import network as net
from training.pretrain.rows import EncodedCorpus

LONGEST_REPLY = 32
"""Tokens of a candidate that are compared; the true reply is cut likewise."""
ENOUGH = 4
"""Dialogues with replies that a corpus must have at least."""

Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveTask:
    """The settings of the contrastive task."""

    every: int = 2
    """Every so-many-th step is a contrastive one; the others read rows of the mixture."""
    candidates: int = 8
    """The true reply and others from other dialogues of the same corpus: their number in all."""
    replies_per_dialogue: int = 3
    """The most replies of Person2's in one dialogue that are compared."""
    window: int = 320
    """Tokens of a dialogue that are read."""
    exchange: float = 0.5
    """Share of the dialogues read with the speakers exchanged, so that both speakers' replies are compared."""
    temperature: float = 2.5
    """Divides the scores. A small model is overconfident: at temperature 1 a few replies that it finds absurd would
    outweigh all others (on unseen talk, the loss is lowest between 2 and 3)."""
    weight: float = 0.25
    """Weight of a reply's loss against a token's."""

    def fitted(self, context: int) -> "ContrastiveTask":
        """With a window that leaves room for a reply after it. Raises TrainingError for a context without room."""
        room = context - LONGEST_REPLY
        if room < LONGEST_REPLY:
            raise TrainingError(
                f"A context of {context} tokens is too short for the contrastive task; raise --context to "
                f"{2 * LONGEST_REPLY} or leave out --contrast."
            )
        return replace(self, window=min(self.window, room))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveBatch:
    """A batch of rows. R rows of T tokens, C candidates in M groups of K, the true one first in each."""

    ids: Tensor
    """(R, T) int64"""
    positions: Tensor
    """(R, T) int64"""
    part: Tensor
    """(R, T) int64: 0 the dialogue, 1 … the other replies, −1 filling."""
    seen: Tensor
    """(R, T) int64: of a token of another reply, how many tokens of the dialogue it attends to."""
    previous: Tensor
    """(N,) int64: places of the flattened rows from which tokens are predicted."""
    targets: Tensor
    """(N,) int64: the tokens predicted there."""
    candidate: Tensor
    """(N,) int64: the candidate the token belongs to, −1 for none; true replies are part of the dialogue."""
    dialogue: Tensor
    """(N,) bool: the token is part of the dialogue, and counts as in any row."""
    replies: tuple[tuple[int, ...], ...]
    """Each candidate's tokens, in groups of K: M × K of them."""


class ContrastiveData:
    """Dialogues of several corpora and Person2's replies in them."""

    def __init__(
        self,
        corpora: Mapping[str, tuple[EncodedCorpus, float]],
        task: ContrastiveTask,
        *,
        person2: int,
        tags: Sequence[int],
        seed: int,
    ) -> None:
        """`corpora`: name → tokens and weight, as in a `Mixture`. `person2`: the token of its tag; `tags`: of both."""
        if person2 not in tags or len(tags) != 2:
            raise ValueError("there are two tags, and person2 is one of them")
        self._task, self._seed, self.person2 = task, seed, person2
        self._names = sorted(corpora)
        self._corpora = {name: corpora[name][0] for name in self._names}
        self._tags = np.asarray(tags)
        self._texts = {name: self._answering(corpus) for name, corpus in self._corpora.items()}
        if short := [name for name, texts in self._texts.items() if len(texts) < ENOUGH]:
            raise TrainingError(
                f"{', '.join(short)} has too few dialogues for the contrastive task; leave it out of --contrast."
            )
        sizes = np.array([corpora[name][1] * len(self._corpora[name].tokens) for name in self._names])
        self.shares = dict(zip(self._names, (sizes / sizes.sum()).tolist(), strict=True))

    def _answering(self, corpus: EncodedCorpus) -> NDArray[np.int64]:
        """Texts in which Person2 answers something."""
        starts = corpus.starts[:-1]
        answers = np.flatnonzero(corpus.tokens == self.person2)
        texts = np.searchsorted(corpus.starts, answers, side="right") - 1
        return np.unique(texts[answers > starts[texts]])

    def batch(self, number: int, tokens: int) -> ContrastiveBatch:
        """The `number`-th batch, of one corpus and about so many tokens: a function of the seed and the number."""
        random = np.random.default_rng([self._seed, number])
        name = self._names[int(random.choice(len(self._names), p=list(self.shares.values())))]
        corpus, task = self._corpora[name], self._task
        pieces: list[tuple[NDArray[np.int64], list[Span]]] = []
        spent = 0
        for text in random.permutation(self._texts[name]):
            read, replies = self._piece(corpus, int(text), random)
            if not replies:
                continue
            cost = len(read) + (task.candidates - 1) * sum(end - start for start, end in replies)
            if spent + cost > tokens and len(pieces) >= ENOUGH:
                break
            pieces.append((read, replies))
            spent += cost
        if len(pieces) < 2:  # there are no replies of others
            raise TrainingError(
                f"Answers in fewer than two dialogues of {name} fit {task.window} tokens; raise --context, or leave "
                "it out of --contrast."
            )
        return _laid_out(pieces, task.candidates, random)

    def _piece(
        self, corpus: EncodedCorpus, text: int, random: np.random.Generator
    ) -> tuple[NDArray[np.int64], list[Span]]:
        """A dialogue, or whole turns of it that fit the window, and the spans of some of Person2's answers in it."""
        tokens = corpus.tokens[corpus.starts[text] : corpus.starts[text + 1] - 1].astype(np.int64)
        if random.random() < self._task.exchange:
            tokens = np.where(np.isin(tokens, self._tags), self._tags.sum() - tokens, tokens)
        turns = [*np.flatnonzero(np.isin(tokens, self._tags)).tolist(), len(tokens)]
        if len(tokens) > self._task.window:
            first = int(random.integers(sum(len(tokens) - start > self._task.window // 2 for start in turns)))
            last = int(np.searchsorted(turns, turns[first] + self._task.window, side="right")) - 1
            turns = turns[first : last + 1]
        if len(turns) < 2:
            return tokens[:0], []
        base = turns[0]
        answers = [
            (start + 1 - base, min(end, start + 1 + LONGEST_REPLY) - base)
            for start, end in pairwise(turns[1:])
            if tokens[start] == self.person2
        ]
        chosen = sorted(random.permutation(len(answers))[: self._task.replies_per_dialogue].tolist())
        return tokens[base : turns[-1]], [answers[index] for index in chosen]


def _laid_out(
    pieces: Sequence[tuple[NDArray[np.int64], list[Span]]], candidates: int, random: np.random.Generator
) -> ContrastiveBatch:
    pool = [
        (row, tuple(read[start:end].tolist())) for row, (read, replies) in enumerate(pieces) for start, end in replies
    ]
    rows: list[list[int]] = []
    layout: list[tuple[list[int], list[int], list[int]]] = []
    previous: list[tuple[int, int]] = []
    targets: list[int] = []
    owner: list[int] = []
    own: list[bool] = []
    given: list[tuple[int, ...]] = []
    for row, (read, replies) in enumerate(pieces):
        ids, positions, part, seen = read.tolist(), list(range(len(read))), [0] * len(read), [0] * len(read)
        first = len(previous)
        previous += [(row, at) for at in range(len(read) - 1)]
        targets += ids[1:]
        owner += [-1] * (len(read) - 1)
        own += [True] * (len(read) - 1)
        for start, end in replies:
            true = tuple(ids[start:end])
            owner[first + start - 1 : first + end - 1] = [len(given)] * len(true)
            given.append(true)
            others = _others(pool, row, true, candidates - 1, random)
            for other in others:
                at = len(ids)
                ids += other
                positions += range(start, start + len(other))
                part += [max(part) + 1] * len(other)
                seen += [start] * len(other)
                previous += [(row, start - 1), *((row, place) for place in range(at, at + len(other) - 1))]
                targets += other
                owner += [len(given)] * len(other)
                own += [False] * len(other)
                given.append(other)
        rows.append(ids)
        layout.append((positions, part, seen))
    width = max(map(len, rows))

    def filled(lines: Sequence[list[int]], by: int) -> Tensor:
        return torch.tensor([line + [by] * (width - len(line)) for line in lines])

    return ContrastiveBatch(
        ids=filled(rows, 0),
        positions=filled([line[0] for line in layout], 0),
        part=filled([line[1] for line in layout], -1),
        seen=filled([line[2] for line in layout], 0),
        previous=torch.tensor([row * width + at for row, at in previous]),
        targets=torch.tensor(targets),
        candidate=torch.tensor(owner),
        dialogue=torch.tensor(own),
        replies=tuple(given),
    )


def _others(
    pool: Sequence[tuple[int, tuple[int, ...]]],
    row: int,
    true: tuple[int, ...],
    count: int,
    random: np.random.Generator,
) -> list[tuple[int, ...]]:
    """`count` replies of other dialogues, none the true one; the same may come twice where there are too few."""
    found = [reply for place, reply in pool if place != row and reply != true]
    if not found:
        found = [reply for place, reply in pool if place != row]
    order = random.permutation(len(found))
    return [found[int(order[index % len(order)])] for index in range(count)]


def attention(batch: ContrastiveBatch, dtype: torch.dtype) -> Tensor:
    """(R, 1, T, T) of `dtype`: 0 where a token reads another, the least number elsewhere."""
    width = batch.ids.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    mine = batch.part[:, :, None] == batch.part[:, None, :]
    before = (batch.part[:, None, :] == 0) & (torch.arange(width) < batch.seen[:, :, None])
    mask = torch.zeros(mine.shape, dtype=dtype)
    return mask.masked_fill_(~(causal & (mine | before)), torch.finfo(dtype).min)[:, None]


@torch.no_grad()
def bare(network: GPT2LMHeadModel, replies: Sequence[tuple[int, ...]], *, person2: int, dtype: torch.dtype) -> Tensor:
    """−ln P of each reply after nothing but `Person2:`: (C,) float32."""
    known = {reply: index for index, reply in enumerate(dict.fromkeys(replies))}
    width = max(map(len, known))
    inputs = torch.zeros((len(known), width), dtype=torch.int64)
    targets = torch.full((len(known), width), net.IGNORED, dtype=torch.int64)
    for reply, row in known.items():
        inputs[row, : len(reply)] = torch.tensor([person2, *reply[:-1]])
        targets[row, : len(reply)] = torch.tensor(reply)
    where = network.device
    hidden = net.states(network, inputs.to(where), dtype=dtype)
    nats = net.token_nats(hidden, network.transformer.wte.weight, targets.to(where).reshape(-1))
    return nats.reshape(len(known), width).sum(dim=1)[[known[reply] for reply in replies]]


def losses(
    network: GPT2LMHeadModel, batch: ContrastiveBatch, task: ContrastiveTask, *, person2: int, dtype: torch.dtype
) -> tuple[Tensor, float, float, int]:
    """The loss, () float32 and differentiable; nats per token of the dialogues; nats per reply; the number of tokens.

    The sum over replies is not differentiated as it stands: its gradient by a candidate's −ln P is (true or not) less
    the candidate's share, over the temperature, so each token weighs as much as its candidate, and one pass over the
    output head serves both tasks.
    """
    where = network.device
    alone = bare(network, batch.replies, person2=person2, dtype=dtype)
    hidden = net.states(
        network,
        batch.ids.to(where),
        dtype=dtype,
        position_ids=batch.positions.to(where),
        attention_mask=attention(batch, dtype).to(where),
    )[batch.previous.to(where)]
    targets, candidate, own = batch.targets.to(where), batch.candidate.to(where), batch.dialogue.to(where)
    table = network.transformer.wte.weight
    with torch.no_grad():
        nats = net.token_nats(hidden, table, targets)
        belongs = candidate >= 0
        sums = torch.zeros_like(alone).index_add_(0, candidate[belongs], nats[belongs])
        information = (alone - sums).reshape(-1, task.candidates) / task.temperature
        shares = torch.softmax(information, dim=1)
        found = float(-torch.log_softmax(information, dim=1)[:, 0].mean())
        pull = -shares
        pull[:, 0] += 1.0
        count = int(own.sum())
        weights = own.float() / count
        weights[belongs] += task.weight / task.temperature / len(pull) * pull.reshape(-1)[candidate[belongs]]
        token_nats = float(nats[own].sum()) / count
    return net.weighted_nats(hidden, table, targets, weights), token_nats, found, count
