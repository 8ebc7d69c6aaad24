"""Held-out scores of a base with or without an adapter, over dialogue files, beside those of other models.

Combines the parts for files that somebody names; `comparison` evaluates a finished run. Prints nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core.generator import Sampling
from training.evaluation.copying import Extraction, TrainingText, extract
from training.evaluation.generation import ReplyGenerator, reply_generator
from training.evaluation.intervals import Figure
from training.evaluation.memorization import Memorized, memorized
from training.evaluation.metrics import (
    BaselineResult,
    Baselines,
    Scores,
    baselines,
    chain_of,
    differences,
    plain_values,
    run_baselines,
    summed,
)
from training.evaluation.passages import passages
from training.evaluation.suite import (
    CONTEXTS,
    EXTRACTIONS,
    SEED,
    CandidateAnswers,
    EvalResult,
    EvalSuite,
    ModelCandidate,
    OnStage,
    Stage,
    ask,
    load_candidates,
    read,
    result,
    silent,
)
from training.finetune.base import load_base
from training.finetune.corpus import Corpus, Dialogues, FileFault, load
from training.privacy.provenance import PeopleByDialogue, extracted_by_person, people_by_dialogue, pseudonym


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceResult:
    """A model that took the same suite, for comparison."""

    scores: Scores
    """Of all files together. Perplexity, which is per token, compares only models of one vocabulary."""
    differences: dict[str, Figure]
    """The evaluated model's figures less this one's."""
    files: dict[str, Scores]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of one model and of its references, for each file and for all files together."""

    model: str
    files: dict[str, Scores]
    together: Scores
    baselines: Baselines
    baselines_by_file: dict[str, Baselines]
    references: dict[str, ReferenceResult] = field(default_factory=dict)
    faults: tuple[FileFault, ...] = ()
    extractions: tuple[Extraction, ...] = field(default=(), repr=False)
    by_person: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Keyed hash → (turns of theirs that were tried, how many were reproduced); empty without a manifest."""
    memorized: tuple[Memorized, ...] = ()
    """Passages of one person that the model has memorized."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers first, for machines; their intervals apart."""
        return {
            "model": self.model,
            **plain_values(self.together),
            "intervals": _intervals(self.together),
            "baselines": plain_values(self.baselines),
            "against": {
                name: {
                    **plain_values(reference.scores),
                    "intervals": _intervals(reference.scores),
                    "differences": {
                        what: [gap.value, gap.low, gap.high] for what, gap in reference.differences.items()
                    },
                    "files": _by_file(reference.files),
                }
                for name, reference in self.references.items()
            },
            "files": {
                name: {**figures, "baselines": plain_values(self.baselines_by_file[name])}
                for name, figures in _by_file(self.files).items()
            },
            "extracted_by_person": {
                pseudonym(person): {"tried": tried, "out": out} for person, (tried, out) in self.by_person.items()
            },
            "memorized": [
                {
                    "person": pseudonym(one.passage.person),
                    "words": len(one.passage.words),
                    "said": len(one.passage.places),
                    "asked": one.asked,
                    "out": one.out,
                }
                for one in self.memorized
            ],
            "faults": [str(fault) for fault in self.faults],
        }


def evaluate(
    files: Sequence[Path],
    *,
    base: str,
    adapter: Path | None = None,
    references: Mapping[str, tuple[str, Path | None]] = MappingProxyType({}),
    training: Sequence[Path] = (),
    contexts: int = CONTEXTS,
    sampling: Sampling = Sampling(),
    seed: int = SEED,
    on_stage: OnStage = silent,
) -> Evaluation:
    """Score a base, with or without an adapter, on dialogue files it has not seen.

    `references` take the same suite: the name in the report → a base and an adapter on it (None: bare). `training`
    names the training files, for the scores of copying and memorization. `contexts=0` skips ranking and generating,
    which are the slow part. `on_stage` is called as each part begins. Raises DialogueError, ModelError, AdapterError.
    """
    for other in {theirs for theirs, _ in references.values()} - {base}:
        load_base(other)  # fails now where one cannot be loaded, not after the first model's long suite
    corpora = {str(file): load([file]) for file in files}
    if not corpora:
        load([])
    seen = load(training) if training and contexts else None
    text = TrainingText(seen.dialogues) if seen else None
    people = people_by_dialogue(training) if seen else {}
    suites = [EvalSuite.over(name, corpus, contexts=contexts, seed=seed) for name, corpus in corpora.items()]

    def run(generator: ReplyGenerator, candidate: ModelCandidate) -> tuple[list[EvalResult], list[Extraction]]:
        results = [
            _result(candidate, suite, generator, text=text, sampling=sampling, on_stage=on_stage) for suite in suites
        ]
        return results, extractions_of(candidate, generator, seen, seed=seed, on_stage=on_stage)

    # The evaluated model and the references on its base share one copy of it; others are loaded one at a time.
    mine = {"": adapter, **{name: folder for name, (theirs, folder) in references.items() if theirs == base}}
    others: dict[str, ReferenceResult] = {}

    def compared(name: str, found: list[EvalResult], reference_tries: list[Extraction]) -> None:
        result = EvalResult.joined(found)
        others[name] = ReferenceResult(
            scores=summed(result, reference_tries),
            differences=differences(together, result, tries=tries, reference_tries=reference_tries),
            files=_summed(suites, found),
        )

    with reply_generator(base) as generator:
        first, *rest = load_candidates(base, mine)
        candidate = replace(first, name=adapter.name if adapter else base)
        results, tries = run(generator, candidate)
        reproduced = (
            find_memorized(candidate, generator, text, seen.dialogues, people, on_stage=on_stage)
            if text and seen
            else []
        )
        together = EvalResult.joined(results)
        for reference in rest:
            compared(reference.name, *run(generator, reference))
        del first, rest
    for name, (theirs, folder) in references.items():
        if theirs != base:
            with reply_generator(theirs) as generator:
                compared(name, *run(generator, load_candidates(theirs, {name: folder})[0]))
    others = {name: others[name] for name in references}
    chain = chain_of(seen, text) if seen and text else None
    baseline_results = {suite.name: run_baselines(suite, chain) for suite in suites}
    return Evaluation(
        model=candidate.name,
        files=_summed(suites, results),
        together=summed(together, tries),
        baselines=baselines(BaselineResult.joined(list(baseline_results.values()))),
        baselines_by_file={name: baselines(result) for name, result in baseline_results.items()},
        references=others,
        faults=tuple(fault for corpus in corpora.values() for fault in corpus.faults),
        extractions=tuple(tries),
        by_person=extracted_by_person(people, seen.dialogues, tries) if seen else {},
        memorized=tuple(reproduced),
    )


def _result(
    candidate: ModelCandidate,
    suite: EvalSuite,
    generator: ReplyGenerator,
    *,
    text: TrainingText | None,
    sampling: Sampling,
    on_stage: OnStage,
) -> EvalResult:
    """All that one model is asked over one suite."""
    on_stage(Stage(words=f"{candidate.name}: reading {suite.name}"))
    whole, replied = read(candidate, suite)
    answers = {candidate.name: CandidateAnswers()}
    asked = ask([candidate], suite, generator, answers, sampling=sampling, on_stage=on_stage)
    return result(suite, answers[candidate.name], asked, whole=whole, replied=replied, text=text)


def extractions_of(
    candidate: ModelCandidate,
    generator: ReplyGenerator,
    seen: Corpus | None,
    *,
    seed: int = SEED,
    on_stage: OnStage,
) -> list[Extraction]:
    """Every candidate is asked for the same training turns; none where the training dialogues are unknown."""
    if seen is None:
        return []
    on_stage(Stage(words=f"{candidate.name}: asking for training turns"))
    return extract(generator, candidate.adapter, seen.dialogues, tries=EXTRACTIONS, seed=seed)


def find_memorized(
    candidate: ModelCandidate,
    generator: ReplyGenerator,
    text: TrainingText,
    dialogues: Dialogues,
    people: PeopleByDialogue,
    *,
    on_stage: OnStage,
) -> list[Memorized]:
    """Memorized passages of one person in the training `dialogues`, whose text is `text`; `people` says who is who."""
    on_stage(Stage(words=f"{candidate.name}: asking for what one person said"))
    tried = passages(text, dialogues, [people.get(key, ()) for key in dialogues.keys.tolist()])
    return memorized(generator, candidate.adapter, dialogues, tried)


def _summed(suites: Sequence[EvalSuite], results: Sequence[EvalResult]) -> dict[str, Scores]:
    return {suite.name: summed(result) for suite, result in zip(suites, results, strict=True)}


def _by_file(files: Mapping[str, Scores]) -> dict[str, dict[str, Any]]:
    return {name: {**plain_values(one), "intervals": _intervals(one)} for name, one in files.items()}


def _intervals(scores: Scores) -> dict[str, list[float]]:
    found = asdict(scores)
    return {name: [value["low"], value["high"]] for name, value in found.items() if isinstance(value, dict)}
