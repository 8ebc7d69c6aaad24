"""What a model is asked over held-out talk, and its answers before they are summed up.

Knows how a model is loaded to be judged and what it is asked; how each answer is scored stands in its own file. The
same exam for every model, so that their answers can be compared one by one.
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
from training.finetune.base import add_adapter, inner, load_base, move
from training.finetune.dataset import Corpus, Encoder, Targets
from training.finetune.model import MaskedLossModel

CONTEXTS = 200
"""Moments of a file at which replies are ranked and made: enough for an interval of about ± 0.06."""
EXTRACTIONS = 100
"""Training turns tried."""
SEED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model that is judged."""

    name: str
    model: MaskedLossModel
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
    """One candidate's answers to one exam, before they are summed up: scores of several exams add."""

    whole: Likelihood
    replied: Likelihood
    found: NDArray[np.float64]
    """1 for each context whose true reply was found, (contexts,)."""
    replies: tuple[str, ...]
    empty: NDArray[np.float64]
    """1 for each reply that is empty or repeats, (contexts,)."""
    runs: NDArray[np.int64]
    """Words in a row shared with the training text, for each reply; empty without training text."""

    @classmethod
    def joined(cls, papers: "Sequence[EvalResult]") -> "EvalResult":
        return cls(
            whole=Likelihood.joined([paper.whole for paper in papers]),
            replied=Likelihood.joined([paper.replied for paper in papers]),
            found=np.concatenate([paper.found for paper in papers]),
            replies=tuple(reply for paper in papers for reply in paper.replies),
            empty=np.concatenate([paper.empty for paper in papers]),
            runs=np.concatenate([paper.runs for paper in papers]),
        )


def run_suite(
    judged: Candidate,
    exam: EvalSuite,
    *,
    text: TrainingText | None = None,
    sampling: Sampling = Sampling(),
    on_stage: Callable[[str], None] = lambda stage: None,
) -> EvalResult:
    """All that one model is asked over one exam."""
    model, encoder = judged.model, judged.encoder
    on_stage(f"{judged.name}: reading {exam.name}")
    whole = likelihood(model, encoder, exam.dialogues, targets=Targets.EVERYTHING)
    replied = likelihood(model, encoder, exam.dialogues, targets=Targets.REPLIES)
    found, replies = np.zeros(0), list[str]()
    if exam.contexts:
        on_stage(f"{judged.name}: ranking replies of {exam.name}")
        found = hits(rank(model, encoder, exam.contexts))
        on_stage(f"{judged.name}: answering {exam.name}")
        before = [context.before for context in exam.contexts]
        replies = speak(model, encoder, before, sampling=sampling, seed=exam.seed)
    return EvalResult(
        whole=whole,
        replied=replied,
        found=found,
        replies=tuple(replies),
        empty=np.array(
            [is_empty(reply, context.before) for reply, context in zip(replies, exam.contexts, strict=True)],
            dtype=np.float64,
        ),
        runs=text.longest_runs(replies) if text else np.zeros(0, dtype=np.int64),
    )
