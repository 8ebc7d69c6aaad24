"""A finished run before the judge: base, current and new adapter take the same exam, and the gate decides.

Knows how the parts of judging hang together; promotes nothing and prints nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from core.dialogue import render
from core.generator import Sampling
from training.evaluation.copying import Extraction, TrainingText
from training.evaluation.evaluate import asked
from training.evaluation.gate import Limits, Verdict, decide
from training.evaluation.intervals import Figure
from training.evaluation.memorization import Memorized, memorized, passages
from training.evaluation.metrics import Floors, Scores, chain_of, differences, floors, run_baselines, summed
from training.evaluation.suite import CONTEXTS, SEED, EvalResult, EvalSuite, candidate, run_suite
from training.finetune.base import without_adapter
from training.finetune.dataset import divide
from training.privacy.provenance import given_away, people_by_dialogue

BASE, CURRENT, NEW = "base", "current", "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the judge found."""

    exam: EvalSuite
    papers: dict[str, EvalResult]
    """By `base`, `current` (where an adapter speaks) and `new`."""
    scores: dict[str, Scores]
    differences: dict[str, dict[str, Figure]]
    """The new adapter's figures less its rivals', by rival and figure."""
    floors: Floors
    extractions: tuple[Extraction, ...]
    """Tries with the new adapter."""
    by_person: dict[str, tuple[int, int]]
    """Keyed hash → (turns of theirs that were tried, of which came out)."""
    verdict: Verdict
    memorized: tuple[Memorized, ...] = ()
    """What one person said that the new adapter says by heart."""


def judge(
    files: Sequence[Path],
    *,
    held_out: Sequence[Path] = (),
    base: str,
    adapter: Path,
    current: Path | None = None,
    contexts: int = CONTEXTS,
    sampling: Sampling = Sampling(),
    limits: Limits = Limits(),
    seed: int = SEED,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Comparison:
    """Judge `adapter`, trained on `files`, against `base` and the `current` adapter.

    The held-out dialogues are found by the same rule as in training. Raises what `evaluate` raises.
    """
    train, held, _ = divide(files, held_out)
    exam = EvalSuite.over("held-out dialogues", held, contexts=contexts, seed=seed)
    text = TrainingText(train.dialogues)
    people = people_by_dialogue(files)
    papers: dict[str, EvalResult] = {}
    tries: dict[str, list[Extraction]] = {}
    for name, folder in ((BASE, None), (CURRENT, current), (NEW, adapter)):
        if name == CURRENT and folder is None:
            continue
        judged = candidate(base, folder, name=name)
        papers[name] = run_suite(judged, exam, text=text, sampling=sampling, on_stage=on_stage)
        tries[name] = asked(judged, train, seed=seed, on_stage=on_stage)
        if name == NEW:
            on_stage(f"{judged.name}: asking for what one person said")
            by_heart = memorized(
                judged.model,
                judged.encoder,
                train.dialogues,
                passages(train.dialogues, [people.get(render(turns), ()) for turns in train.dialogues]),
                seed=seed,
                bare=partial(without_adapter, judged.model),
            )
    rivals = {"the base": papers[BASE]}
    if CURRENT in papers:
        rivals["the current adapter"] = papers[CURRENT]
    return Comparison(
        exam=exam,
        papers=papers,
        scores={name: summed(paper, tries[name]) for name, paper in papers.items()},
        differences={
            name: differences(papers[NEW], paper, tries=tries[NEW], rival_tries=tries[name])
            for name, paper in papers.items()
            if name != NEW
        },
        floors=floors(run_baselines(exam, chain_of(train.dialogues))),
        extractions=tuple(tries[NEW]),
        by_person=given_away(files, train.dialogues, tries[NEW]),
        verdict=decide(
            papers[NEW], rivals, tries=tries[NEW], rival_tries=tries[BASE], memorized=by_heart, limits=limits
        ),
        memorized=tuple(by_heart),
    )
