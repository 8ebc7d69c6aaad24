"""Held-out scores of a model with or without an adapter, over dialogue files, beside those of its rivals.

Puts the parts together for files that somebody names; how a finished run is judged stands in `comparison`. Prints
nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core.generator import Sampling
from training.evaluation.copying import Extraction, TrainingText, extract
from training.evaluation.intervals import Figure
from training.evaluation.metrics import (
    BaselineResult,
    Floors,
    Scores,
    chain_of,
    differences,
    floors,
    run_baselines,
    summed,
)
from training.evaluation.suite import (
    CONTEXTS,
    EXTRACTIONS,
    SEED,
    Candidate,
    EvalResult,
    EvalSuite,
    candidate,
    run_suite,
)
from training.finetune.base import load_base
from training.finetune.dataset import Corpus, FileFault, load
from training.privacy.provenance import given_away, pseudonym


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A model that took the same exam, for comparison."""

    scores: Scores
    """Of all files together. Perplexity, which is per token, compares only models of one vocabulary."""
    differences: dict[str, Figure]
    """The judged model's figures less this one's."""
    files: dict[str, Scores]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of one model and of what it is compared with: of each file, and of all files together."""

    model: str
    files: dict[str, Scores]
    together: Scores
    floors: Floors
    floors_by_file: dict[str, Floors]
    rivals: dict[str, Rival] = field(default_factory=dict)
    faults: tuple[FileFault, ...] = ()
    extractions: tuple[Extraction, ...] = field(default=(), repr=False)
    by_person: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Keyed hash → (turns of theirs that were tried, of which came out); empty without a manifest beside the files."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers first, for machines; their intervals apart."""
        return {
            "model": self.model,
            **_plain(self.together),
            "intervals": _intervals(self.together),
            "floors": _plain(self.floors),
            "against": {
                name: {
                    **_plain(rival.scores),
                    "intervals": _intervals(rival.scores),
                    "differences": {what: [gap.value, gap.low, gap.high] for what, gap in rival.differences.items()},
                    "files": _by_file(rival.files),
                }
                for name, rival in self.rivals.items()
            },
            "files": {
                name: {**figures, "floors": _plain(self.floors_by_file[name])}
                for name, figures in _by_file(self.files).items()
            },
            "extracted_by_person": {
                pseudonym(person): {"tried": tried, "out": out} for person, (tried, out) in self.by_person.items()
            },
            "faults": [str(fault) for fault in self.faults],
        }


def evaluate(
    files: Sequence[Path],
    *,
    base: str,
    adapter: Path | None = None,
    rivals: Mapping[str, tuple[str, Path | None]] = MappingProxyType({}),
    training: Sequence[Path] = (),
    contexts: int = CONTEXTS,
    sampling: Sampling = Sampling(),
    seed: int = SEED,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Evaluation:
    """Score a base, with or without an adapter, on dialogue files it has not seen.

    `rivals` take the same exam: the name in the report → a base and an adapter on it (None: bare). `training` names the
    files that were learned, for the copying scores. `contexts=0` leaves ranking and speaking out, which are the slow
    part. `on_stage` hears a few words as each part begins. Raises DialogueError, ModelError, AdapterError.
    """
    for other in {theirs for theirs, _ in rivals.values()} - {base}:
        load_base(other)  # one that cannot be loaded is refused now, not after the judged model's long exam
    corpora = {str(file): load([file]) for file in files}
    if not corpora:
        load([])
    seen = load(training) if training and contexts else None
    text = TrainingText(seen.dialogues) if seen else None
    exams = [EvalSuite.over(name, corpus, contexts=contexts, seed=seed) for name, corpus in corpora.items()]

    def sit(judged: Candidate) -> tuple[list[EvalResult], list[Extraction]]:
        papers = [run_suite(judged, exam, text=text, sampling=sampling, on_stage=on_stage) for exam in exams]
        return papers, asked(judged, seen, seed=seed, on_stage=on_stage)

    judged = candidate(base, adapter)
    papers, tries = sit(judged)
    together = EvalResult.joined(papers)
    others = {}
    for name, (theirs, folder) in rivals.items():  # loaded one at a time: a small machine holds no more
        found, rival_tries = sit(candidate(theirs, folder, name=name))
        paper = EvalResult.joined(found)
        others[name] = Rival(
            scores=summed(paper, rival_tries),
            differences=differences(together, paper, tries=tries, rival_tries=rival_tries),
            files=_summed(exams, found),
        )
    chain = chain_of(seen.dialogues) if seen else None
    floor_papers = {exam.name: run_baselines(exam, chain) for exam in exams}
    return Evaluation(
        model=judged.name,
        files=_summed(exams, papers),
        together=summed(together, tries),
        floors=floors(BaselineResult.joined(list(floor_papers.values()))),
        floors_by_file={name: floors(paper) for name, paper in floor_papers.items()},
        rivals=others,
        faults=tuple(fault for corpus in corpora.values() for fault in corpus.faults),
        extractions=tuple(tries),
        by_person=given_away(training, seen.dialogues, tries) if seen else {},
    )


def asked(
    judged: Candidate, seen: Corpus | None, *, seed: int = SEED, on_stage: Callable[[str], None]
) -> list[Extraction]:
    """Every candidate is asked for the same turns of the training dialogues; for none where those are unknown."""
    if seen is None:
        return []
    on_stage(f"{judged.name}: asking for training turns")
    return extract(judged.model, judged.encoder, seen.dialogues, tries=EXTRACTIONS, seed=seed)


def _summed(exams: Sequence[EvalSuite], papers: Sequence[EvalResult]) -> dict[str, Scores]:
    return {exam.name: summed(paper) for exam, paper in zip(exams, papers, strict=True)}


def _by_file(files: Mapping[str, Scores]) -> dict[str, dict[str, Any]]:
    return {name: {**_plain(one), "intervals": _intervals(one)} for name, one in files.items()}


def _plain(figures: Scores | Floors) -> dict[str, Any]:
    found = asdict(figures)
    return {name: value["value"] if isinstance(value, dict) else value for name, value in found.items()}


def _intervals(scores: Scores) -> dict[str, list[float]]:
    found = asdict(scores)
    return {name: [value["low"], value["high"]] for name, value in found.items() if isinstance(value, dict)}
