"""Next-reply ranking: does a model find the true reply among nineteen others from the same talk?

Score: the mutual information log P(reply | context) − log P(reply | no context), the second after `Person2:` alone
(after Li et al. 2016, arXiv:1510.03055). Plain likelihood favours stock phrases and stays near chance. A tie for the
first place counts as a share of a hit. Chance is 0.05.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from core.dialogue import Dialogue, fit
from training.evaluation.contexts import Context
from training.finetune.encoder import Encoder
from training.finetune.model import HEAD_ROWS, MaskedLossModel

GROUP_TOKENS = 4_096
"""Tokens in a scoring batch, filling included; a bound on memory."""
NO_CONTEXT_GROUP = 20
"""Replies that share the bare prompt in one row."""


def hits(scores: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """1 where a context's first score, the true reply's, is the highest; a share of 1 where it ties; else 0."""
    return np.array([(one[0] == one.max()) / max(1, int((one == one.max()).sum())) for one in scores], dtype=np.float64)


def rank(
    model: MaskedLossModel,
    encoder: Encoder,
    contexts: Sequence[Context],
    *,
    bare: dict[tuple[int, ...], float] | None = None,
) -> list[NDArray[np.float64]]:
    """Mutual information of each context's replies in nats, the true one first, (choices,) each.

    `bare` caches the nats of replies without a context, for the next contexts of the same model.
    """
    longest = model.context_length
    replies = [[encoder.reply(f"{text}\n")[: longest // 2] for text in (one.reply, *one.others)] for one in contexts]
    bare = {} if bare is None else bare
    new = {tuple(ids): ids for group in replies for ids in group if tuple(ids) not in bare}
    bare.update(zip(new, _bare(model, encoder.prompt(()), list(new.values())), strict=True))
    groups = [
        (encoder.prompt(_fitting(encoder, one.before, longest - max(map(len, group)) - len(encoder.start))), group)
        for one, group in zip(contexts, replies, strict=True)
    ]
    given = continuation_nats(model, groups)
    return [
        np.array([bare[tuple(ids)] - nats for ids, nats in zip(group, found, strict=True)])
        for group, found in zip(replies, given, strict=True)
    ]


def _bare(model: MaskedLossModel, start: list[int], replies: list[list[int]]) -> Iterator[float]:
    """Each reply's nats after nothing but `Person2:`."""
    groups = [(start, replies[at : at + NO_CONTEXT_GROUP]) for at in range(0, len(replies), NO_CONTEXT_GROUP)]
    for found in continuation_nats(model, groups):
        yield from found


def _fitting(encoder: Encoder, before: Dialogue, budget: int) -> Dialogue:
    return fit(before, budget=max(budget, 8), count=lambda text: len(encoder.text(text)))


def continuation_nats(
    model: MaskedLossModel, groups: Sequence[tuple[list[int], Sequence[list[int]]]]
) -> list[list[float]]:
    """−log P of each continuation of a prefix, in nats: for each group (prefix, continuations) a list.

    A group is one row: the prefix once, then every continuation, each of which sees the prefix and itself and takes
    the positions that follow the prefix. So a prefix is computed once however many continuations it has.
    """
    order = sorted(range(len(groups)), key=lambda index: -_length(groups[index]))
    results: list[list[float]] = [[] for _ in groups]
    for batch in _batches(order, [_length(group) for group in groups]):
        for index, found in zip(batch, _score(model, [groups[index] for index in batch]), strict=True):
            results[index] = found
    return results


def _length(group: tuple[list[int], Sequence[list[int]]]) -> int:
    return len(group[0]) + sum(len(continuation) for continuation in group[1])


def _batches(order: Iterable[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Groups of similar length together, the longest first, within GROUP_TOKENS."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > GROUP_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.inference_mode()
def _score(model: MaskedLossModel, groups: Sequence[tuple[list[int], Sequence[list[int]]]]) -> list[list[float]]:
    width = max(map(_length, groups))
    shape = (len(groups), width)
    ids = torch.zeros(shape, dtype=torch.int64)
    positions = torch.zeros(shape, dtype=torch.int64)
    part = torch.full(shape, -1, dtype=torch.int64)  # 0 the prefix, 1… the continuations, −1 filling
    for row, (prefix, continuations) in enumerate(groups):
        at = 0
        for number, piece in enumerate((prefix, *continuations)):
            here = slice(at, at + len(piece))
            ids[row, here] = torch.tensor(piece)
            start = len(prefix) if number else 0
            positions[row, here] = torch.arange(start, start + len(piece))
            part[row, here] = number
            at += len(piece)
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    mine = part[:, :, None] == part[:, None, :]  # (B, T, T)
    mask = causal & (mine | (part[:, None, :] == 0) & (part[:, :, None] > 0))
    where = model.device
    states = model.base_model(
        input_ids=ids.to(where),
        position_ids=positions.to(where),
        attention_mask=mask[:, None].to(where),
        use_cache=False,
    ).last_hidden_state
    # A token is predicted from the one before it in the row, the first of a continuation from the prefix's last one.
    columns = torch.arange(width).expand(shape)
    previous = columns - 1
    firsts = (part > 0) & (part != part.roll(1, dims=1))
    ends = torch.tensor([len(prefix) - 1 for prefix, _ in groups])[:, None].expand(shape)
    previous = torch.where(firsts, ends, previous)
    rows, places = torch.nonzero(part > 0, as_tuple=True)
    hidden = states[rows.to(where), previous[rows, places].to(where)]
    losses = torch.cat(
        [
            nn.functional.cross_entropy(
                model.lm_head(hidden[slice(start, start + HEAD_ROWS)]).float(),
                ids[rows, places][start : start + HEAD_ROWS].to(where),
                reduction="none",
            ).cpu()
            for start in range(0, len(rows), HEAD_ROWS)
        ]
    ).double()
    sums = torch.zeros(len(groups), int(part.max()) + 1, dtype=torch.float64)
    sums.index_put_((rows, part[rows, places]), losses, accumulate=True)
    return [sums[row, 1 : 1 + len(continuations)].tolist() for row, (_, continuations) in enumerate(groups)]
