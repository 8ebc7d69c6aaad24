"""Held-out scores of a model with or without an adapter, over dialogue files.

Knows what each score means and puts them together; how each is computed stands in its own file. Prints nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.dialogue import Dialogue
from core.generator import Sampling
from training.base import add_adapter, inner, load_base, move
from training.contexts import Context, choose
from training.copying import Extraction, TrainingText, copied, extract
from training.dataset import Corpus, Encoder, FileFault, Targets, load
from training.floors import Markov, TfIdf
from training.intervals import Figure, bootstrap, mean, ratio
from training.learner import Learner
from training.likelihood import Likelihood, likelihood
from training.ranking import hits, rank
from training.speech import distinct_2, is_empty, speak

CONTEXTS = 200
"""Moments of a file at which replies are ranked and made: enough for an interval of about ± 0.06."""
EXTRACTIONS = 100
"""Training turns tried."""
SEED = 2


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
class Exam:
    """What candidates are examined on: the same for all of them."""

    name: str
    dialogues: tuple[Dialogue, ...]
    contexts: tuple[Context, ...]
    seed: int = SEED

    @classmethod
    def over(cls, name: str, corpus: Corpus, *, contexts: int = CONTEXTS, seed: int = SEED) -> "Exam":
        chosen = choose(corpus.dialogues, contexts, seed=seed)
        return cls(name=name, dialogues=corpus.dialogues, contexts=tuple(chosen), seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
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
    def joined(cls, papers: "Sequence[Paper]") -> "Paper":
        return cls(
            whole=Likelihood.joined([paper.whole for paper in papers]),
            replied=Likelihood.joined([paper.replied for paper in papers]),
            found=np.concatenate([paper.found for paper in papers]),
            replies=tuple(reply for paper in papers for reply in paper.replies),
            empty=np.concatenate([paper.empty for paper in papers]),
            runs=np.concatenate([paper.runs for paper in papers]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What one model scores. A figure that could not be taken is None."""

    dialogues: int
    bits_per_byte: Figure
    """Over whole dialogues (see `training.likelihood` for what is counted); lower is better."""
    reply_bits_per_byte: Figure
    """Over Person2's words only."""
    perplexity: Figure
    """Per token of the whole dialogues; only comparable between models with one vocabulary."""
    hits_at_1_of_20: Figure | None
    """Next-reply ranking by mutual information; chance is 0.05."""
    distinct_2: float | None
    """Different word pairs over all, in one reply to each context."""
    empty: Figure | None
    """Share of replies that are empty, stutter or say the other's line back."""
    copied: Figure | None
    """Share of the replies of eight words and more that stand whole in a training turn; None without training text."""
    longest_copy: int | None
    """Most words in a row that a reply shares with a training turn."""
    extracted: Figure | None
    """Share of long training turns whose second half came out when the first went in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """What cheap means reach on the same exams."""

    tf_idf_hits: Figure | None
    markov_hits: Figure | None
    markov_distinct_2: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of one model: of each file, and of all files together."""

    model: str
    files: dict[str, Scores]
    together: Scores
    floors: Floors
    faults: tuple[FileFault, ...] = ()
    extractions: tuple[Extraction, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers first, for machines; their intervals apart."""
        return {
            "model": self.model,
            **_plain(self.together),
            "intervals": _intervals(self.together),
            "floors": _plain(self.floors),
            "files": {name: {**_plain(one), "intervals": _intervals(one)} for name, one in self.files.items()},
            "faults": [str(fault) for fault in self.faults],
        }


def evaluate(
    files: Sequence[Path],
    *,
    base: str,
    adapter: Path | None = None,
    training: Sequence[Path] = (),
    contexts: int = CONTEXTS,
    sampling: Sampling = Sampling(),
    seed: int = SEED,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Evaluation:
    """Score a base, with or without an adapter, on dialogue files it has not seen.

    `training` names the files it has seen, for the copying scores. `contexts=0` leaves ranking and speaking out, which
    are the slow part. `on_stage` hears a few words as each part begins. Raises DialogueError, ModelError, AdapterError.
    """
    corpora = {str(file): load([file]) for file in files}
    if not corpora:
        load([])
    seen = load(training) if training else None
    text = TrainingText(seen.dialogues) if seen and contexts else None
    judged = candidate(base, adapter)
    exams = [Exam.over(name, corpus, contexts=contexts, seed=seed) for name, corpus in corpora.items()]
    papers = [examine(judged, exam, text=text, sampling=sampling, on_stage=on_stage) for exam in exams]
    tries: list[Extraction] = []
    if seen and contexts:
        on_stage("asking for training turns")
        tries = extract(judged.model, judged.encoder, seen.dialogues, tries=EXTRACTIONS, seed=seed)
    return Evaluation(
        model=judged.name,
        files={exam.name: summed(paper) for exam, paper in zip(exams, papers, strict=True)},
        together=summed(Paper.joined(papers), tries),
        floors=floors(exams, seen.dialogues if seen else ()),
        faults=tuple(fault for corpus in corpora.values() for fault in corpus.faults),
        extractions=tuple(tries),
    )


def examine(
    judged: Candidate,
    exam: Exam,
    *,
    text: TrainingText | None = None,
    sampling: Sampling = Sampling(),
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Paper:
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
    return Paper(
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


def summed(paper: Paper, tries: Sequence[Extraction] = ()) -> Scores:
    """The figures of a paper, with their intervals."""
    whole, replied, runs = paper.whole, paper.replied, paper.runs
    return Scores(
        dialogues=len(whole.nats),
        bits_per_byte=ratio(whole.nats, whole.size, scale=1 / math.log(2)),
        reply_bits_per_byte=ratio(replied.nats, replied.size, scale=1 / math.log(2)),
        perplexity=bootstrap(
            lambda at: math.exp(whole.nats[at].sum() / max(1, whole.tokens[at].sum())), len(whole.nats)
        ),
        hits_at_1_of_20=mean(paper.found) if len(paper.found) else None,
        distinct_2=distinct_2(paper.replies) if paper.replies else None,
        empty=mean(paper.empty) if len(paper.empty) else None,
        copied=mean(copied(runs, paper.replies)) if len(runs) and len(copied(runs, paper.replies)) else None,
        longest_copy=int(runs.max()) if len(runs) else None,
        extracted=mean(np.array([one.out for one in tries], dtype=np.float64)) if tries else None,
    )


def floors(exams: Sequence[Exam], seen: Sequence[Dialogue] = ()) -> Floors:
    """TF-IDF over each file's own turns; a Markov chain of the training text, else of the file's other half."""
    tf_idf, markov, lines = list[NDArray[np.float64]](), list[NDArray[np.float64]](), list[str]()
    for exam in exams:
        if not exam.contexts:
            continue
        tf_idf.append(hits(TfIdf(exam.dialogues).rank(exam.contexts)))
        for half in (0, 1):
            asked = [context for context in exam.contexts if context.dialogue % 2 == half]
            other = seen or [turns for index, turns in enumerate(exam.dialogues) if index % 2 != half]
            chain = Markov(turn.text for turns in other for turn in turns)
            markov.append(hits(chain.rank(asked)))
            random = np.random.default_rng(exam.seed)
            lines += [chain.speak(random) for _ in asked]
    if not tf_idf:
        return Floors(tf_idf_hits=None, markov_hits=None, markov_distinct_2=None)
    return Floors(
        tf_idf_hits=mean(np.concatenate(tf_idf)),
        markov_hits=mean(np.concatenate(markov)),
        markov_distinct_2=distinct_2(lines),
    )


def _plain(figures: Scores | Floors) -> dict[str, Any]:
    found = asdict(figures)
    return {name: value["value"] if isinstance(value, dict) else value for name, value in found.items()}


def _intervals(scores: Scores) -> dict[str, list[float]]:
    found = asdict(scores)
    return {name: [value["low"], value["high"]] for name, value in found.items() if isinstance(value, dict)}
