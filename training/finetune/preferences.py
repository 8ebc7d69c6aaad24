"""Learning from preferences: a loss that makes a liked answer likelier than another one to the same question.

DPO (Rafailov et al. 2023, arXiv:2305.18290) beside the loss of replies: −log σ(β · m), where the margin m is how many
nats the liked answer has gained on the other since training began. The starting weights are the reference and are
evaluated once. The two answers of a pair are packed into one row, like dialogues.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from core.dialogue import Dialogue, fit, render
from core.errors import TrainingError
from training.finetune.base import casting
from training.finetune.dataset import IGNORE, Batch
from training.finetune.encoder import Encoder
from training.finetune.model import MaskedLossModel, nats_with_gradients
from training.privacy.preferences import Preference

FEWEST = 20
"""With fewer pairs there is nothing to hold out."""
HELD_OUT_SHARE = 5
"""One pair in five, the newest, is held out."""
AT_ONCE = 8
"""Pairs in an optimizer step."""
BETA = 0.1
WEIGHT = 0.1
"""Weight of this loss beside that of the replies, in nats per target. At 1 it drowned the replies: 118 pairs beside 100
dialogues cost 0.125 bits per byte of held-out liked answers, at 0.1 they cost 0.008 (`benchmarks/README.md`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceScore:
    """How many held-out pairs of how many gained a margin: chance is half."""

    gained: int
    pairs: int
    learned: int
    """Pairs that were trained on."""

    def __str__(self) -> str:
        return (
            f"The liked answer gained on the other one in {self.gained} of {self.pairs} held-out pairs "
            f"({self.learned} learned)."
        )


def divide(pairs: Sequence[Preference]) -> tuple[Sequence[Preference], Sequence[Preference]]:
    """The older pairs to learn, the newest to hold out. Raises TrainingError for too few."""
    if len(pairs) < FEWEST:
        raise TrainingError(
            f"There are {len(pairs)} pairs of a liked and another answer to one question, and {FEWEST} are needed: "
            "members make one with 👍 on an answer and 👎 or `again` on another; leave --preferences out until then."
        )
    cut = len(pairs) - len(pairs) // HELD_OUT_SHARE
    return pairs[:cut], pairs[cut:]


def digest(pairs: Sequence[Preference]) -> str:
    """A hash of the pairs, for the run's plan."""
    found = sha256()
    for one in pairs:
        found.update(f"{render(one.before)}{one.liked}\n{one.other}\n\n".encode())
    return found.hexdigest()


class PreferenceLoss:
    """Tokenized pairs and their margins under the starting weights."""

    def __init__(
        self,
        pairs: Sequence[Preference],
        model: MaskedLossModel,
        encoder: Encoder,
        *,
        block: int,
        seed: int,
        bf16: bool,
        beta: float = BETA,
        weight: float = WEIGHT,
    ) -> None:
        """`block`: the most tokens of a conversation with an answer."""
        self._rows = [[_encoded(encoder, one.before, text, block) for text in (one.liked, one.other)] for one in pairs]
        self._block = block
        self._seed, self._beta, self._weight, self._bf16 = seed, beta, weight, bf16
        self._end = encoder.end
        self._reference = self._margins(model)

    def loss(self, model: MaskedLossModel, *, step: int, part: int, parts: int) -> torch.Tensor:
        """The loss of a few pairs in one of `parts` micro-batches of an optimizer step; which pairs depends on the step
        alone."""
        random = np.random.default_rng([self._seed, step])
        drawn = random.permutation(len(self._rows))[:AT_ONCE]
        mine = drawn[part::parts]
        if not len(mine):
            return torch.zeros((), device=model.device)
        batch, owners = self._batch(mine, model.device)
        hidden, targets = model.predicting(batch["input_ids"], batch["position_ids"], batch["labels"])
        nats, gradients = nats_with_gradients(hidden.detach(), model.lm_head.weight, targets)
        margins = _by_pair(nats, owners, len(mine)) - self._reference[mine].to(nats.device)
        # The loss's derivative by each answer's nats; by the hidden states it is that times each nat's own.
        push = -self._beta * torch.sigmoid(-self._beta * margins) / len(drawn)
        by_answer = torch.stack([-push, push], dim=1).flatten()
        value = nn.functional.softplus(-self._beta * margins).sum() / len(drawn)
        through = (hidden * (gradients * by_answer[owners][:, None].to(gradients.dtype))).float().sum()
        return self._weight * (through + (value - through).detach())

    def score(self, model: MaskedLossModel, *, learned: int) -> PreferenceScore:
        """How many of these pairs gained a margin."""
        gained = self._margins(model) > self._reference
        return PreferenceScore(gained=int(gained.sum()), pairs=len(gained), learned=learned)

    @torch.no_grad()
    def _margins(self, model: MaskedLossModel) -> torch.Tensor:
        """By how many nats each liked answer is likelier than the other, (pairs,)."""
        learning = model.training
        model.train(False)
        found = []
        for at in range(0, len(self._rows), AT_ONCE):
            mine = np.arange(at, min(at + AT_ONCE, len(self._rows)))
            batch, owners = self._batch(mine, model.device)
            with casting(model.device, self._bf16):
                hidden, targets = model.predicting(batch["input_ids"], batch["position_ids"], batch["labels"])
                nats, _ = nats_with_gradients(hidden, model.lm_head.weight, targets)
            found.append(_by_pair(nats, owners, len(mine)).cpu())
        model.train(learning)
        return torch.cat(found)

    def _batch(self, pairs: NDArray[np.int64], where: torch.device) -> tuple[Batch, torch.Tensor]:
        """A row for each pair, and for each target in row order the answer it belongs to: 2 · pair, and + 1 for the
        other one."""
        width = max(sum(len(ids) for ids, _ in self._rows[pair]) for pair in pairs)
        shape = (len(pairs), width)
        ids, positions = torch.full(shape, self._end), torch.zeros(shape, dtype=torch.int64)
        labels, owners = torch.full(shape, IGNORE), torch.zeros(shape, dtype=torch.int64)
        for row, pair in enumerate(pairs):
            at = 0
            for number, (tokens, answer) in enumerate(self._rows[pair]):
                here = slice(at, at + len(tokens))
                ids[row, here] = torch.tensor(tokens)
                positions[row, here] = torch.arange(len(tokens))
                labels[row, here.stop - answer : here.stop] = ids[row, here.stop - answer : here.stop]
                owners[row, here] = 2 * row + number
                at += len(tokens)
            positions[row, at:] = torch.arange(width - at) % self._block  # two answers may be longer than a context
        owners = owners[:, 1:][labels[:, 1:] != IGNORE]
        batch = {"input_ids": ids, "position_ids": positions, "labels": labels}
        return {name: tensor.to(where) for name, tensor in batch.items()}, owners.to(where)


def _encoded(encoder: Encoder, before: Dialogue, answer: str, block: int) -> tuple[list[int], int]:
    """A conversation's tokens with an answer, and how many of them are the answer's."""
    reply = encoder.reply(f"{answer}\n")[: block // 2]
    room = max(8, block - len(reply) - len(encoder.start))
    front = encoder.prompt(fit(before, budget=room, count=lambda text: len(encoder.text(text))))
    return [*front, *reply][-block:], len(reply)


def _by_pair(nats: torch.Tensor, owners: torch.Tensor, pairs: int) -> torch.Tensor:
    """Nats of the other answers less those of the liked ones, (pairs,)."""
    sums = torch.zeros(2 * pairs, dtype=torch.float32, device=nats.device).index_add_(0, owners, nats)
    return sums[1::2] - sums[::2]
