"""A new adapter against the base and the current adapter: all take the same suite, and the gate decides.

Promotes nothing and prints nothing.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.generator import Sampling
from training.evaluation.copying import Extraction, TrainingText
from training.evaluation.evaluate import extractions_of, find_memorized
from training.evaluation.gate import GateLimits, Verdict, decide, is_settled
from training.evaluation.generation import reply_generator
from training.evaluation.intervals import Figure
from training.evaluation.known_scores import KnownScores, ScoreStore, base_sha256, key_of
from training.evaluation.likelihood import Likelihood
from training.evaluation.memorization import Memorized
from training.evaluation.metrics import Baselines, Scores, baselines, chain_of, differences, run_baselines, summed
from training.evaluation.suite import (
    CONTEXTS,
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
from training.finetune.corpus import divide
from training.privacy.provenance import extracted_by_person, people_by_dialogue

BASE, CURRENT, NEW = "base", "current", "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What each of them scored, how far they differ, and the verdict."""

    suite: EvalSuite
    results: dict[str, EvalResult]
    """By `base`, `current` (where there is a current adapter) and `new`."""
    scores: dict[str, Scores]
    differences: dict[str, dict[str, Figure]]
    """The new adapter's figures less its references', by reference and figure."""
    baselines: Baselines
    extractions: tuple[Extraction, ...]
    """Tries with the new adapter."""
    by_person: dict[str, tuple[int, int]]
    """Keyed hash → (turns of theirs that were tried, how many were reproduced)."""
    verdict: Verdict
    memorized: tuple[Memorized, ...] = ()
    """Passages of one person that the new adapter has memorized."""


def compare(
    files: Sequence[Path],
    *,
    held_out: Sequence[Path] = (),
    base: str,
    adapter: Path,
    current: Path | None = None,
    contexts: int = CONTEXTS,
    sampling: Sampling = Sampling(),
    limits: GateLimits = GateLimits(),
    seed: int = SEED,
    seconds: float = math.inf,
    store: ScoreStore | None = None,
    clock: Callable[[], float] = time.monotonic,
    on_stage: OnStage = silent,
) -> Comparison:
    """Compare `adapter`, trained on `files`, with `base` and the `current` adapter.

    The held-out dialogues are found by the same rule as in training. At most `contexts` are asked, fewer once the gate
    is settled or `seconds` are over. `store` knows what the base and the current adapter scored before. Raises what
    `evaluate` raises.
    """
    began = clock()
    train, held, _ = divide(files, held_out)
    suite = EvalSuite.over("held-out dialogues", held, contexts=contexts, seed=seed)
    looks = suite.looks
    on_stage(Stage(words="loading what is compared"))
    adapters = {BASE: None, **({CURRENT: current} if current else {}), NEW: adapter}
    candidates = load_candidates(base, adapters)
    new = candidates[-1]
    earlier = _EarlierScores(store, candidates[:-1], suite)
    whole, replied = dict[str, Likelihood](), dict[str, Likelihood]()
    answers = {one.name: CandidateAnswers() for one in candidates}
    for one in candidates:
        known = earlier.known.get(one.name)
        if known is None:
            on_stage(Stage(words=f"{one.name}: reading {suite.name}"))
        whole[one.name], replied[one.name] = (known.whole, known.replied) if known else read(one, suite)
        if known:
            answers[one.name].found = known.found
    on_stage(Stage(words="reading what was learned"))
    text, people = TrainingText(train.dialogues), people_by_dialogue(files)
    with reply_generator(base) as generator:
        tries = {one.name: extractions_of(one, generator, train, seed=seed, on_stage=on_stage) for one in candidates}
        reproduced = find_memorized(new, generator, text, train.dialogues, people, on_stage=on_stage)

        def settled(asked: int) -> bool:
            return is_settled(
                answers[NEW].found[:asked],
                [answers[one.name].found[:asked] for one in candidates[:-1]],
                answers[NEW].empty(suite.contexts),
                looks=suite.looks,
                limits=limits,
            )

        asked = ask(
            candidates,
            suite,
            generator,
            answers,
            sampling=sampling,
            is_settled=settled,
            seconds=seconds - (clock() - began),
            clock=clock,
            on_stage=on_stage,
        )
    for one in candidates[:-1]:
        earlier.keep(one, KnownScores(whole=whole[one.name], replied=replied[one.name], found=answers[one.name].found))
    results = {
        one.name: result(suite, answers[one.name], asked, whole=whole[one.name], replied=replied[one.name], text=text)
        for one in candidates
    }
    suite = replace(suite, contexts=suite.contexts[:asked])
    references = {"the base": results[BASE]}
    if CURRENT in results:
        references["the current adapter"] = results[CURRENT]
    return Comparison(
        suite=suite,
        results=results,
        scores={name: summed(result, tries[name]) for name, result in results.items()},
        differences={
            name: differences(results[NEW], result, tries=tries[NEW], reference_tries=tries[name])
            for name, result in results.items()
            if name != NEW
        },
        baselines=baselines(run_baselines(suite, chain_of(train, text))),
        extractions=tuple(tries[NEW]),
        by_person=extracted_by_person(people, train.dialogues, tries[NEW]),
        verdict=decide(
            results[NEW],
            references,
            tries=tries[NEW],
            reference_tries=tries[BASE],
            memorized=reproduced,
            limits=limits,
            looks=looks,
        ),
        memorized=tuple(reproduced),
    )


class _EarlierScores:
    """What a store knows of candidates that were evaluated before."""

    def __init__(self, store: ScoreStore | None, candidates: Sequence[ModelCandidate], suite: EvalSuite) -> None:
        self._store = store
        base = base_sha256(candidates[0]) if store else ""
        self._keys = {one.name: key_of(one, suite, base) for one in candidates} if store else {}
        found = {name: store.find(key) for name, key in self._keys.items()} if store else {}
        self.known = {name: scores for name, scores in found.items() if scores is not None}

    def keep(self, candidate: ModelCandidate, scores: KnownScores) -> None:
        if self._store is not None:
            self._store.keep(self._keys[candidate.name], scores)
