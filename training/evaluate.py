"""Held-out scores of a model with or without an adapter, over dialogue files.

Knows what each score means and puts them together; how each is computed stands in its own file. Prints nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.base import add_adapter, inner, load_base, move
from training.dataset import Encoder, FileFault, Targets, load
from training.intervals import Figure, bootstrap, ratio
from training.learner import Learner
from training.likelihood import Likelihood, likelihood


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model that is judged."""

    name: str
    model: Learner
    encoder: Encoder


def candidate(base: str, adapter: Path | None = None, *, name: str | None = None) -> Candidate:
    """Load a base, with an adapter or bare. Raises ModelError or AdapterError."""
    model, tokenizer = load_base(base)
    encoder = Encoder(tokenizer)
    if adapter is not None:
        model = inner(add_adapter(model, adapter, trainable=False))
    model.train(False)
    move(model)
    return Candidate(name=name or (adapter.name if adapter else base), model=model, encoder=encoder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What one model scores on one file, or on several together."""

    dialogues: int
    bits_per_byte: Figure
    """Over whole dialogues (see `training.likelihood` for what is counted); lower is better."""
    reply_bits_per_byte: Figure
    """Over Person2's words only."""
    perplexity: Figure
    """Per token of the whole dialogues; only comparable between models with one vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of one model: of each file, and of all files together."""

    model: str
    files: dict[str, Scores]
    together: Scores
    faults: tuple[FileFault, ...]


def evaluate(files: Sequence[Path], *, base: str, adapter: Path | None = None) -> Evaluation:
    """Score a base, with or without an adapter, on dialogue files it has not seen.

    Raises DialogueError, ModelError and AdapterError.
    """
    corpora = {str(file): load([file]) for file in files}
    judged = candidate(base, adapter)
    found = {
        name: tuple(
            likelihood(judged.model, judged.encoder, corpus.dialogues, targets=targets)
            for targets in (Targets.EVERYTHING, Targets.REPLIES)
        )
        for name, corpus in corpora.items()
    }
    return Evaluation(
        model=judged.name,
        files={name: _scores(*pair) for name, pair in found.items()},
        together=_scores(*(Likelihood.joined([pair[which] for pair in found.values()]) for which in (0, 1))),
        faults=tuple(fault for corpus in corpora.values() for fault in corpus.faults),
    )


def _scores(whole: Likelihood, replies: Likelihood) -> Scores:
    return Scores(
        dialogues=len(whole.nats),
        bits_per_byte=ratio(whole.nats, whole.size, scale=1 / math.log(2)),
        reply_bits_per_byte=ratio(replies.nats, replies.size, scale=1 / math.log(2)),
        perplexity=bootstrap(
            lambda at: math.exp(whole.nats[at].sum() / max(1, whole.tokens[at].sum())), len(whole.nats)
        ),
    )
