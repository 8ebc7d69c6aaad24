"""`python -m models.disentangler.recipe.train TRAIN DEV --out FILE`: makes the bundled scorer again.

Knows torch; what it learns leaves as plain arrays. The second pass learns from first guesses made by networks that
have not seen the log in question (FOLDS), as it will meet them on new talk. DEV is only measured on.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn

from models.disentangler.recipe.examples import Examples, Halves, weigh_words
from models.disentangler.recipe.irc import read
from models.disentangler.recipe.measure import measure
from training.data.disentangle import Disentangler
from training.data.disentangle.columns import Floats, Ints
from training.data.disentangle.scorer import BUNDLED, Network, Scorer
from training.data.disentangle.threads import Guess
from training.data.disentangle.words import Buckets

FOLDS = 5
BATCH = 128
LEARNING_RATE = 4e-3
"""Top of a one-cycle schedule (Smith and Topin 2017, arXiv:1708.07120) with AdamW."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerConfig:
    """A network and how long it learns."""

    hidden: int
    middle: int
    epochs: int
    dropout: float
    decay: float


FIRST = ScorerConfig(hidden=48, middle=16, epochs=4, dropout=0.0, decay=1e-4)
SECOND = ScorerConfig(hidden=96, middle=48, epochs=3, dropout=0.1, decay=1e-3)
ENSEMBLE_SIZE = 5
"""Networks of the second pass."""
HESITATION, LOYALTY = -0.3, 2.0
"""`Scorer.hesitation` and `Scorer.loyalty`: chosen on a fifth of the training logs, held out, and on the development
logs; what both agree on."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Q messages with K candidates each, of all logs together."""

    pairs: Halves
    """(Q, K, PAIRS)"""
    there: NDArray[np.bool_]
    """(Q, K)"""
    gold: Floats
    """(Q, K + 1): column 0 is "answers nobody"."""
    query: NDArray[np.int64]
    """(Q,): row of `message`"""
    option: NDArray[np.int64]
    """(Q, K): row of `message`"""
    message: Floats
    """(N, M)"""
    log: Ints
    """(Q,)"""


class ScorerModel(nn.Module):
    """`scorer.Network` with its inputs brought to mean 0 and deviation 1."""

    def __init__(self, choices: Choices, shape: ScorerConfig) -> None:
        super().__init__()
        sample = choices.pairs[::20][choices.there[::20]].astype(np.float32)
        self.pair_mean, self.pair_scale = _moments(sample)
        self.message_mean, self.message_scale = _moments(choices.message)
        self.pair = nn.Linear(sample.shape[1], shape.hidden)
        self.query = nn.Linear(choices.message.shape[1], shape.hidden, bias=False)
        self.option = nn.Linear(choices.message.shape[1], shape.hidden, bias=False)
        self.alone = nn.Parameter(torch.zeros(shape.hidden))
        self.middle = nn.Linear(shape.hidden, shape.middle)
        self.out = nn.Linear(shape.middle, 1, bias=False)
        self.drop = nn.Dropout(shape.dropout)

    def forward(self, pairs: Tensor, there: Tensor, query: Tensor, option: Tensor) -> Tensor:
        """(B, K, PAIRS), (B, K), (B, M), (B, K, M) → (B, K + 1) log probabilities."""
        asked = self.query((query - self.message_mean) / self.message_scale)
        told = self.option((option - self.message_mean) / self.message_scale)
        hidden = self.pair((pairs - self.pair_mean) / self.pair_scale) + asked[:, None] + told
        hidden = torch.cat([(asked + self.alone + self.pair.bias)[:, None], hidden], dim=1)
        hidden = self.drop(torch.relu(hidden))
        hidden = self.drop(torch.relu(self.middle(hidden)))
        scores = self.out(hidden)[..., 0]
        scores[:, 1:] = scores[:, 1:].masked_fill(~there, -1e9)
        return torch.log_softmax(scores, dim=1)

    def network(self) -> Network:
        """The same function of plain inputs, without torch."""

        def array(tensor: Tensor) -> Floats:
            return np.ascontiguousarray(tensor.detach().numpy().astype(np.float32))

        pair = self.pair.weight / self.pair_scale
        query, option = self.query.weight / self.message_scale, self.option.weight / self.message_scale
        return Network(
            pair=array(pair.T),
            query=array(query.T),
            option=array(option.T),
            bias=array(self.pair.bias - pair @ self.pair_mean - (query + option) @ self.message_mean),
            alone=array(self.alone + pair @ self.pair_mean + option @ self.message_mean),
            middle=array(self.middle.weight.T),
            middle_bias=array(self.middle.bias),
            out=array(self.out.weight[0]),
        )


def _moments(sample: Floats) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(sample.mean(0)), torch.from_numpy(sample.std(0) + 1e-3)


def _batches(choices: Choices, use: NDArray[np.int64]) -> Iterator[tuple[Tensor, ...]]:
    for start in range(0, len(use) - BATCH + 1, BATCH):
        index = use[start : start + BATCH]
        yield tuple(
            torch.from_numpy(array)
            for array in (
                choices.pairs[index].astype(np.float32),
                choices.there[index],
                choices.message[choices.query[index]],
                choices.message[choices.option[index]],
                choices.gold[index],
            )
        )


def train_network(choices: Choices, shape: ScorerConfig, *, seed: int, without: Sequence[int] = ()) -> Network:
    """A network taught on all logs but those of `without`."""
    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    use = np.flatnonzero((choices.gold.sum(axis=1) > 0.3) & ~np.isin(choices.log, without))
    learner = ScorerModel(choices, shape)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=LEARNING_RATE, weight_decay=shape.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=shape.epochs * (len(use) // BATCH) + 1
    )
    for epoch in range(shape.epochs):
        total = 0.0
        for *inputs, gold in _batches(choices, order.permutation(use)):
            loss = -(gold * learner(*inputs).clamp_min(-30)).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"seed {seed}, epoch {epoch + 1}: loss {total / (len(use) // BATCH):.4f}", file=sys.stderr)
    learner.eval()
    return learner.network()


def _choices(
    examples: Sequence[Examples], found: Sequence[tuple[Halves, Ints, Floats]], messages: Sequence[Floats]
) -> Choices:
    offset = np.cumsum([0] + [len(message) for message in messages])[:-1]
    return Choices(
        pairs=np.concatenate([features for features, _, _ in found]),
        there=np.concatenate([option >= 0 for _, option, _ in found]),
        gold=np.concatenate([gold for _, _, gold in found]),
        query=np.concatenate([example.row + start for example, start in zip(examples, offset, strict=True)]),
        option=np.concatenate(
            [np.maximum(option, 0) + start for (_, option, _), start in zip(found, offset, strict=True)]
        ),
        message=np.concatenate(messages),
        log=np.repeat(np.arange(len(examples), dtype=np.int32), [len(example.row) for example in examples]),
    )


def first_choices(examples: Sequence[Examples]) -> Choices:
    return _choices(examples, [example.first() for example in examples], [example.talk.message for example in examples])


def second_choices(examples: Sequence[Examples], guesses: Sequence[Guess]) -> Choices:
    """`guesses[k]` are the first ones for `examples[k]`."""
    found = [example.second(guess) for example, guess in zip(examples, guesses, strict=True)]
    return _choices(examples, [(features, option, gold) for features, option, gold, _ in found], [m for *_, m in found])


def main(
    train: Annotated[Path, typer.Argument(help="Folder with the annotated training logs.")],
    dev: Annotated[Path, typer.Argument(help="Folder with the annotated development logs.")],
    out: Annotated[Path, typer.Option(help="Where the scorer goes.")] = BUNDLED,
) -> None:
    """Train the scorer, for example: python -m models.disentangler.recipe.train channels/irc_ubuntu/{train,dev}"""
    torch.set_num_threads(1)
    logs = list(read(train))
    telling, common = weigh_words(logs)
    buckets = Buckets()
    examples = [Examples.of(log, telling=telling, common=common, buckets=buckets) for log in logs]
    choices = first_choices(examples)
    fold = np.random.default_rng(0).permutation(len(logs)) % FOLDS

    def scorer(network: Network) -> Scorer:
        return Scorer(first=network, second=(), telling=telling, common=common, hesitation=HESITATION, loyalty=LOYALTY)

    folds = [
        scorer(train_network(choices, FIRST, seed=number, without=np.flatnonzero(fold == number).tolist()))
        for number in range(FOLDS)
    ]
    final = scorer(train_network(choices, FIRST, seed=FOLDS))
    del choices
    choices = second_choices(
        examples, [folds[number].guess(example.talk) for number, example in zip(fold, examples, strict=True)]
    )
    final = replace(final, second=[train_network(choices, SECOND, seed=seed) for seed in range(ENSEMBLE_SIZE)])
    final.save(out)
    figures, _ = measure(Disentangler(final), dev)
    print(json.dumps(figures.as_dict()))


if __name__ == "__main__":
    typer.run(main)
