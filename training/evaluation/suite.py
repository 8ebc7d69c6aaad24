"""What a model is asked over held-out talk, and its answers before they are summed up.

Knows how models are loaded and what they are asked; how answers are scored is in the other modules. The same suite for
every model, so that their answers can be compared one by one.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peft.tuners.tuners_utils import BaseTunerLayer

from core.dialogue import Dialogue
from core.generator import Adapter, Sampling
from training.evaluation.contexts import Context, sample_contexts
from training.evaluation.copying import TrainingText
from training.evaluation.generation import ReplyGenerator, ReplyRequest, is_empty
from training.evaluation.likelihood import Likelihood, whole_and_replied
from training.evaluation.ranking import hits, rank
from training.finetune.base import add_adapter, casting, inner, load_base, move, wants_bf16
from training.finetune.corpus import Corpus
from training.finetune.encoder import Encoder
from training.finetune.model import MaskedLossModel

CONTEXTS = 200
"""Contexts of a file for which replies are ranked and generated: enough for an interval of about ± 0.06."""
EXTRACTIONS = 100
"""Training turns tried."""
SEED = 2
LOOKS = (25, 50, 100)
"""Contexts after which it is checked whether more are needed."""
AT_ONCE = 25
"""Contexts asked at a time: a full batch of the generator, one for each candidate."""
FIRST = 10
"""Contexts that are always asked; only then is it known how long one takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What an evaluation is doing, for whoever waits."""

    words: str
    done: float = 0.0
    """Share of it, 0 to 1, as far as it can be told."""
    seconds_left: float | None = None
    """At most."""

    def __str__(self) -> str:
        if self.seconds_left is None:
            return self.words
        left = max(1, round(self.seconds_left))
        return f"{self.words}, at most {f'{math.ceil(left / 60)} min' if left > 90 else f'{left} s'} left"


OnStage = Callable[[Stage], None]


def silent(stage: Stage) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCandidate:
    """A base, bare or with one of the adapters on it."""

    name: str
    model: MaskedLossModel
    encoder: Encoder
    adapter: Adapter | None = None
    layer: str = ""
    """What peft calls the adapter in the model, which the candidates share."""

    @contextmanager
    def active(self) -> Iterator[MaskedLossModel]:
        """The model with only this candidate's adapter active, inside the block."""
        layers = [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]
        for one in layers:
            one.enable_adapters(self.adapter is not None)
            if self.adapter is not None:
                one.set_adapter(self.layer)
        yield self.model


def load_candidates(base: str, adapters: Mapping[str, Path | None]) -> list[ModelCandidate]:
    """A base once, and on it an adapter for each name, or none. Raises ModelError or AdapterError."""
    model, tokenizer = load_base(base)
    encoder = Encoder(tokenizer)
    shell = None
    for number, folder in enumerate(adapters.values()):
        if folder is not None:
            shell = add_adapter(shell or model, folder, trainable=False, name=f"adapter{number}")
    found = inner(shell) if shell is not None else model
    found.train(False)
    move(found)
    return [
        ModelCandidate(
            name=name,
            model=found,
            encoder=encoder,
            adapter=None if folder is None else Adapter(id=name, path=folder),
            layer=f"adapter{number}",
        )
        for number, (name, folder) in enumerate(adapters.items())
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSuite:
    """What candidates are evaluated on: the same for all of them."""

    name: str
    dialogues: Sequence[Dialogue]
    contexts: tuple[Context, ...]
    seed: int = SEED

    @classmethod
    def over(cls, name: str, corpus: Corpus, *, contexts: int = CONTEXTS, seed: int = SEED) -> "EvalSuite":
        chosen = sample_contexts(corpus.dialogues, contexts, seed=seed)
        return cls(name=name, dialogues=corpus.dialogues, contexts=tuple(chosen), seed=seed)

    @property
    def looks(self) -> int:
        """How often the evaluation may end: at each of LOOKS before the last context, and there."""
        return 1 + sum(look < len(self.contexts) for look in LOOKS)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """One candidate's answers to one suite, before they are summed up, so that suites can be joined."""

    whole: Likelihood
    replied: Likelihood
    found: NDArray[np.float64]
    """1 for each context whose true reply was found, (contexts,)."""
    replies: tuple[str, ...]
    people: tuple[str, ...]
    """What people answered there, one for each of `replies`."""
    empty: NDArray[np.float64]
    """1 for each reply that is empty or repeats itself, (contexts,)."""
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


@dataclass(slots=True, kw_only=True)
class CandidateAnswers:
    """What a candidate answered to the contexts so far."""

    found: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """As in `EvalResult`; may hold more than were asked, where they were known from an earlier evaluation."""
    replies: list[str] = field(default_factory=list)
    bare: dict[tuple[int, ...], float] = field(default_factory=dict)
    """Nats of replies without a context (`ranking.rank`)."""

    def empty(self, contexts: Sequence[Context]) -> NDArray[np.float64]:
        return np.array(
            [is_empty(reply, context.before) for reply, context in zip(self.replies, contexts, strict=False)],
            dtype=np.float64,
        )


def read(candidate: ModelCandidate, suite: EvalSuite) -> tuple[Likelihood, Likelihood]:
    """How well the candidate predicts the suite's dialogues, whole and the replies in them."""
    with candidate.active() as model:
        return whole_and_replied(model, candidate.encoder, suite.dialogues)


def ask(
    candidates: Sequence[ModelCandidate],
    suite: EvalSuite,
    generator: ReplyGenerator,
    answers: Mapping[str, CandidateAnswers],
    *,
    sampling: Sampling,
    is_settled: Callable[[int], bool] = lambda asked: False,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
    on_stage: OnStage = silent,
) -> int:
    """Let every candidate rank and answer the suite's contexts, a few at a time; returns how many were asked.

    All of them, unless `is_settled` says after one of LOOKS that these are enough, or `seconds` are over: how long a
    context takes is independent of the scores, so stopping then favours nobody. At least FIRST are asked. Scores that
    are in `answers` already are not computed again.
    """
    began, asked, total = clock(), 0, len(suite.contexts)
    while asked < total:
        spent = clock() - began
        left = seconds - spent
        each = spent / asked if asked else math.inf
        if asked and left < each:
            break
        if asked:
            at_once = min(AT_ONCE, max(1.0, left / max(each, 1e-9)))
        else:
            at_once = AT_ONCE if math.isinf(seconds) else FIRST
        until = min(asked + int(at_once), next((look for look in LOOKS if look > asked), total), total)
        at_most = min(left, each * (total - asked))
        on_stage(
            Stage(
                words=f"ranking and answering {suite.name}, {asked} of at most {total}",
                done=min(1.0, max(asked / total, spent / seconds)),
                seconds_left=None if math.isinf(at_most) else at_most,
            )
        )
        _ask(candidates, suite, generator, answers, sampling=sampling, start=asked, end=until)
        asked = until
        if asked in LOOKS and is_settled(asked):
            break
    return asked


def _ask(
    candidates: Sequence[ModelCandidate],
    suite: EvalSuite,
    generator: ReplyGenerator,
    answers: Mapping[str, CandidateAnswers],
    *,
    sampling: Sampling,
    start: int,
    end: int,
) -> None:
    contexts = suite.contexts[start:end]
    for one in candidates:
        mine = answers[one.name]
        missing = suite.contexts[max(start, len(mine.found)) : end]
        # bfloat16 where it is native: several times as fast, and a choice among twenty does not depend on the last
        # digits. Bits per byte do, and are computed in float32.
        if missing:
            with one.active() as model, casting(model.device, wants_bf16("auto", model.device)):
                scores = rank(model, one.encoder, missing, bare=mine.bare)
            mine.found = np.concatenate([mine.found, hits(scores)])
    requests = [
        ReplyRequest(before=context.before, adapter=one.adapter, number=number)
        for one in candidates
        for number, context in enumerate(contexts, start)
    ]
    said = generator.replies(requests, sampling=sampling, seed=suite.seed)
    for place, one in enumerate(candidates):
        answers[one.name].replies += said[place * len(contexts) : (place + 1) * len(contexts)]


def result(
    suite: EvalSuite,
    answers: CandidateAnswers,
    asked: int,
    *,
    whole: Likelihood,
    replied: Likelihood,
    text: TrainingText | None,
) -> EvalResult:
    """What a candidate answered to the first `asked` contexts."""
    contexts, replies = suite.contexts[:asked], tuple(answers.replies[:asked])
    return EvalResult(
        whole=whole,
        replied=replied,
        found=answers.found[:asked],
        replies=replies,
        people=tuple(context.reply for context in contexts),
        empty=answers.empty(contexts),
        runs=text.longest_runs(replies) if text else np.zeros(0, dtype=np.int64),
    )
