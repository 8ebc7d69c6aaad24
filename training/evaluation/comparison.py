"""A new adapter against the base and the adapter that speaks now: all take the same suite, and the gate decides.

Promotes nothing and prints nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.generator import Sampling
from training.evaluation.copying import Extraction, TrainingText
from training.evaluation.evaluate import extractions_of, known_by_heart
from training.evaluation.gate import GateLimits, Verdict, decide
from training.evaluation.intervals import Figure
from training.evaluation.memorization import Memorized
from training.evaluation.metrics import Baselines, Scores, baselines, chain_of, differences, run_baselines, summed
from training.evaluation.suite import CONTEXTS, SEED, EvalResult, EvalSuite, load_candidate, run_suite
from training.finetune.dataset import divide
from training.privacy.provenance import given_away

BASE, CURRENT, NEW = "base", "current", "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What each of them scored, how far they differ, and the verdict."""

    suite: EvalSuite
    results: dict[str, EvalResult]
    """By `base`, `current` (where an adapter speaks) and `new`."""
    scores: dict[str, Scores]
    differences: dict[str, dict[str, Figure]]
    """The new adapter's figures less its rivals', by rival and figure."""
    baselines: Baselines
    extractions: tuple[Extraction, ...]
    """Tries with the new adapter."""
    by_person: dict[str, tuple[int, int]]
    """Keyed hash → (turns of theirs that were tried, of which came out)."""
    verdict: Verdict
    memorized: tuple[Memorized, ...] = ()
    """What one person said that the new adapter says by heart."""


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
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Comparison:
    """Compare `adapter`, trained on `files`, with `base` and the `current` adapter.

    The held-out dialogues are found by the same rule as in training. Raises what `evaluate` raises.
    """
    train, held, _ = divide(files, held_out)
    suite = EvalSuite.over("held-out dialogues", held, contexts=contexts, seed=seed)
    text = TrainingText(train.dialogues)
    results: dict[str, EvalResult] = {}
    tries: dict[str, list[Extraction]] = {}
    for name, folder in ((BASE, None), (CURRENT, current), (NEW, adapter)):
        if name == CURRENT and folder is None:
            continue
        candidate = load_candidate(base, folder, name=name)
        results[name] = run_suite(candidate, suite, text=text, sampling=sampling, on_stage=on_stage)
        tries[name] = extractions_of(candidate, train, seed=seed, on_stage=on_stage)
        if name == NEW:
            by_heart = known_by_heart(candidate, train.dialogues, files, seed=seed, on_stage=on_stage)
    rivals = {"the base": results[BASE]}
    if CURRENT in results:
        rivals["the current adapter"] = results[CURRENT]
    return Comparison(
        suite=suite,
        results=results,
        scores={name: summed(paper, tries[name]) for name, paper in results.items()},
        differences={
            name: differences(results[NEW], paper, tries=tries[NEW], rival_tries=tries[name])
            for name, paper in results.items()
            if name != NEW
        },
        baselines=baselines(run_baselines(suite, chain_of(train.dialogues))),
        extractions=tuple(tries[NEW]),
        by_person=given_away(files, train.dialogues, tries[NEW]),
        verdict=decide(
            results[NEW], rivals, tries=tries[NEW], rival_tries=tries[BASE], memorized=by_heart, limits=limits
        ),
        memorized=tuple(by_heart),
    )
