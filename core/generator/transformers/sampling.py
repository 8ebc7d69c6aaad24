"""Which token comes next. Knows logits and settings, nothing of models, queues or text.

A row's choice is a function of its own logits, history, settings and random stream: never of its neighbours.
"""

import math
from collections.abc import Sequence
from random import Random

import torch

from core.generator import Sampling

GREEDY_BELOW = 1e-4
"""A temperature under this is greedy: dividing float32 logits by less only makes infinities."""
HEAD = 1024
"""Candidates looked at before sorting the whole vocabulary: a nucleus is nearly always inside."""


def choose(
    logits: torch.Tensor, seen: Sequence[Sequence[int]], settings: Sequence[Sampling], rng: Sequence[Random]
) -> list[int | None]:
    """One token a row. `logits` is `(B, V) float32` and is changed; `seen[i]` are the row's ids so far.

    None for a row whose logits are not finite: the weights, or its adapter's, hold rubbish.
    """
    for row, (ids, sampling) in enumerate(zip(seen, settings, strict=True)):
        if sampling.repetition_penalty != 1:
            index = torch.tensor(sorted(set(ids)), device=logits.device)
            chosen = logits[row, index]
            penalty = sampling.repetition_penalty
            logits[row, index] = torch.where(chosen > 0, chosen / penalty, chosen * penalty)
    best, tokens = logits.max(dim=-1)
    sound = torch.isfinite(best).tolist()
    choice: list[int | None] = [token if good else None for token, good in zip(tokens.tolist(), sound, strict=True)]
    drawn = [row for row, s in enumerate(settings) if s.temperature >= GREEDY_BELOW and sound[row]]
    if drawn:
        uniform = [rng[row].random() for row in drawn]
        picked = _draw(logits[drawn], [settings[row] for row in drawn], uniform)
        for row, token in zip(drawn, picked, strict=True):
            choice[row] = token
    return choice


def _draw(logits: torch.Tensor, settings: Sequence[Sampling], uniform: Sequence[float]) -> list[int]:
    """Temperature, then top-k, then top-p, in transformers' order; `logits` is `(N, V) float32`.

    The token is where the kept candidates' cumulative mass, most likely first, passes a uniform number.
    """
    device = logits.device
    vocabulary = logits.shape[-1]
    scaled = logits.double() / torch.tensor([[s.temperature] for s in settings], device=device, dtype=torch.float64)
    top_p = torch.tensor([[s.top_p] for s in settings], device=device, dtype=torch.float64)
    top_k = torch.tensor([[s.top_k or vocabulary] for s in settings], device=device)
    size = min(vocabulary, HEAD) if all(s.top_p < 1 or 0 < s.top_k <= HEAD for s in settings) else vocabulary
    while True:
        values, indices = scaled.topk(size, dim=-1)
        kept = torch.arange(size, device=device) < top_k
        whole = torch.where(
            top_k < vocabulary,
            values.masked_fill(~kept, -math.inf).logsumexp(-1, keepdim=True),
            scaled.logsumexp(-1, keepdim=True),
        )
        mass = (values - whole).exp().masked_fill(~kept, 0)
        reach = mass.cumsum(-1)
        # A nucleus that does not end within the head needs the rest of the vocabulary.
        complete = (reach[:, -1:] >= top_p) | (top_k <= size)
        if size == vocabulary or bool(complete.all()):
            break
        size = vocabulary
    mass = mass.masked_fill((reach - mass) >= top_p, 0)
    reach = mass.cumsum(-1)
    target = torch.tensor([[u] for u in uniform], device=device, dtype=torch.float64) * reach[:, -1:]
    place = torch.searchsorted(reach, target, right=True).clamp_(max=size - 1)
    # A number rounded up to the whole mass lands behind the last candidate: step back to it.
    last = (mass > 0).long().cumsum(-1).argmax(-1, keepdim=True)
    picked: list[int] = indices.gather(-1, torch.minimum(place, last)).squeeze(-1).tolist()
    return picked
