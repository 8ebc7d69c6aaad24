"""What a model is asked over held-out talk, and its answers before they are summed up.

Knows how a model is loaded to be candidate and what it is asked; how each answer is scored stands in its own file. The
same suite for every model, so that their answers can be compared one by one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.dialogue import Dialogue
from core.generator import Sampling
from training.evaluation.contexts import Context, sample_contexts
from training.evaluation.copying import TrainingText
from training.evaluation.generation import is_empty, speak
from training.evaluation.likelihood import Likelihood, likelihood
from training.evaluation.ranking import hits, rank
from training.finetune.base import add_adapter, casting, inner, load_base, move, wants_bf16
from training.finetune.dataset import Corpus, Encoder, Targets
from training.finetune.model import MaskedLossModel

CONTEXTS = 200
"""Moments of a file at which replies are ranked and made: enough for an interval of about ± 0.06."""
EXTRACTIONS = 100
"""Training turns tried."""
SEED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCandidate:
    """A model that is candidate."""

    name: str
    model: MaskedLossModel
    encoder: Encoder


def load_candidate(base: str, adapter: Path | None = None, *, name: str | None = None) -> ModelCandidate:
    """Load a base, with an adapter or bare. Raises ModelError or AdapterError."""
    model, tokenizer = load_base(base)
    encoder = Encoder(tokenizer)
    if adapter is not None:
        model = inner(add_adapter(model, adapter, trainable=False))
    model.train(False)
    move(model)
    return ModelCandidate(name=name or (adapter.name if adapter else base), model=model, encoder=encoder)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSuite:
    """What candidates are examined on: the same for all of them."""

    name: str
    dialogues: tuple[Dialogue, ...]
    contexts: tuple[Context, ...]
    seed: int = SEED

    @classmethod
    def over(cls, name: str, corpus: Corpus, *, contexts: int = CONTEXTS, seed: int = SEED) -> "EvalSuite":
        chosen = sample_contexts(corpus.dialogues, contexts, seed=seed)
        return cls(name=name, dialogues=corpus.dialogues, contexts=tuple(chosen), seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """One candidate's answers to one suite, before they are summed up: scores of several suites add."""

    whole: Likelihood
    replied: Likelihood
    found: NDArray[np.float64]
    """1 for each context whose true reply was found, (contexts,)."""
    replies: tuple[str, ...]
    people: tuple[str, ...]
    """What people answered there, one for each of `replies`."""
    empty: NDArray[np.float64]
    """1 for each reply that is empty or repeats, (contexts,)."""
    runs: NDArray[np.int64]
    """Words in a row shared with the training text, for each reply; empty without training text."""

    @classmethod
    def joined(cls, results: "Sequence[EvalResult]") -> "EvalResult":
        return cls(
            whole=Likelihood.joined([result.whole for result in results]),
            replied=Likelihood.joined([result.replied for result in results]),
            found=np.concatenate([result.found for result in results]),
            replies=tuple(reply for result in results for reply in result.replies),
            people=tuple(reply for result in results for reply in result.people),
            empty=np.concatenate([result.empty for result in results]),
            runs=np.concatenate([result.runs for result in results]),
        )


def run_suite(
    candidate: ModelCandidate,
    suite: EvalSuite,
    *,
    text: TrainingText | None = None,
    sampling: Sampling = Sampling(),
    on_stage: Callable[[str], None] = lambda stage: None,
) -> EvalResult:
    """All that one model is asked over one suite."""
    model, encoder = candidate.model, candidate.encoder
    on_stage(f"{candidate.name}: reading {suite.name}")
    whole = likelihood(model, encoder, suite.dialogues, targets=Targets.EVERYTHING)
    replied = likelihood(model, encoder, suite.dialogues, targets=Targets.REPLIES)
    found, replies = np.zeros(0), list[str]()
    if suite.contexts:
        on_stage(f"{candidate.name}: ranking replies of {suite.name}")
        # Products in bfloat16 where they are native: several times as quick, and a choice among twenty does not hang
        # on the last digits. Bits per byte, which do, are taken in float32.
        with casting(model.device, wants_bf16("auto", model.device)):
            found = hits(rank(model, encoder, suite.contexts))
            on_stage(f"{candidate.name}: answering {suite.name}")
            before = [context.before for context in suite.contexts]
            replies = speak(model, encoder, before, sampling=sampling, seed=suite.seed)
    return EvalResult(
        whole=whole,
        replied=replied,
        found=found,
        replies=tuple(replies),
        people=tuple(context.reply for context in suite.contexts),
        empty=np.array(
            [is_empty(reply, context.before) for reply, context in zip(replies, suite.contexts, strict=True)],
            dtype=np.float64,
        ),
        runs=text.longest_runs(replies) if text else np.zeros(0, dtype=np.int64),
    )
