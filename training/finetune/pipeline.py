"""One whole run: train, evaluate, report, register. `person2 train` and `person2 retrain` both go through here.

Promotes nothing: that is for a person, or for `retrain` after the gate.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError

from core.adapters import AdapterRegistry, Card, check_name
from core.adapters.validation import weights_sha256
from core.atomic_io import write_atomically
from core.errors import AdapterError, Person2Error, TrainingError, reason
from core.generator import Adapter, Sampling
from training.evaluation.comparison import Comparison, compare
from training.evaluation.gate import Reason, Verdict, preferences_reason
from training.evaluation.known_scores import ScoreStore
from training.evaluation.learning_curve import learning_curve
from training.evaluation.memorization import LeftOut
from training.evaluation.metrics import plain_values
from training.evaluation.suite import OnStage, Stage, silent
from training.finetune import checkpoints
from training.finetune.adapter_card import make_card
from training.finetune.config import FinetuneConfig
from training.finetune.corpus import digest
from training.finetune.forecast import evaluation_seconds
from training.finetune.outcome import Outcome, Progress
from training.finetune.run import finetune
from training.finetune.run_folder import begun
from training.finetune.tracking import LogTo
from training.privacy.preferences import Preference
from training.privacy.provenance import funnel_of, people_behind, people_of
from training.privacy.run_registry import Claim, claimed, discard, note_heard
from training.report.page import Report, write_report

MEMORIZED = "memorized.txt"
"""In a run's folder: the memorized passages, one a line, as `--leave-out` takes them."""
ROUNDS = 2
"""How often `drop_memorized` may train again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """The result of a run."""

    adapter: Adapter
    card: Card
    outcome: Outcome
    comparison: Comparison | None
    """None where the evaluation was skipped."""
    report: Path | None
    advice: str = ""
    """Whether there is enough data, where a learning curve was asked for."""
    warning: str = ""
    """Where training improved nothing; such an adapter does not pass the gate."""


def learn(
    files: Sequence[Path],
    *,
    registry: AdapterRegistry,
    run: Path,
    name: str,
    base: str,
    base_folder: str,
    command: str,
    clock: Callable[[], datetime],
    held_out: Sequence[Path] = (),
    start_from: Adapter | None = None,
    current: Adapter | None = None,
    settings: FinetuneConfig | None = None,
    resume: bool = False,
    with_curve: bool = False,
    left_out: LeftOut = LeftOut(),
    drop_memorized: bool = False,
    preferences: Sequence[Preference] = (),
    contexts: int = 200,
    sampling: Sampling | None = None,
    log_to: LogTo = "none",
    other_bases: Mapping[str, str] = MappingProxyType({}),
    on_progress: Callable[[Progress], None] | None = None,
    on_stage: OnStage = silent,
    on_advice: Callable[[str], None] = lambda sentence: None,
) -> Learned | None:
    """Train on `files`, evaluate on held-out dialogues, and register the adapter, passed or not.

    `base` is the base as it was typed and goes on the card; `base_folder` is what loads it. `contexts=0` skips the
    evaluation; `with_curve` trains on a quarter and a half as well, to say whether more data would help. Passages of
    `left_out` are not learned; with `drop_memorized` memorized ones are left out as well and the training begins again,
    `ROUNDS` times at most. `preferences` are learned beside the dialogues. `other_bases` and `on_advice` are as for
    `finetune`.

    Raises DialogueError, ModelError, AdapterError and TrainingError; until the last step the registry is untouched, so
    a run that fails or is killed changes nothing and can be resumed. Of several processes (`accelerate launch`) the
    first alone evaluates and registers the adapter; the others get None.
    """
    check_name(name)
    if registry.taken(name):
        raise AdapterError(f"There is an adapter called {name} already; choose another name.")
    if resume and not begun(run):
        raise TrainingError(f"There is no run called {name} to resume; leave out --resume to start one.")
    if drop_memorized and (not contexts or int(os.environ.get("WORLD_SIZE", "1")) > 1):
        raise TrainingError(
            "--drop-memorized needs the evaluation and a single process; leave out --contexts 0 and accelerate."
        )
    began = time.monotonic()
    options: dict[str, Any] = {
        "run": run,
        "base": base_folder,
        "base_name": base,
        "held_out": held_out,
        "name": name,
        "adapter": start_from.path if start_from else None,
        "settings": settings or FinetuneConfig(),
        "resume": resume,
        "log_to": log_to,
        "preferences": preferences,
    }
    built_on = [adapter for adapter in (start_from, current) if adapter is not None]
    with ExitStack() as stack:
        stack.enter_context(_explaining_failures(name))
        # Of several processes (`accelerate launch`) the first alone writes into the folder.
        claim = stack.enter_context(claimed(run)) if os.environ.get("RANK", "0") == "0" else None
        stack.enter_context(
            _undone_if_someone_is_forgotten([*files, *held_out], built_on, registry=registry, name=name, claim=claim)
        )
        learned_from = digest([*files, *held_out])

        def going_on(progress: Progress | None = None) -> None:
            if claim is not None:
                claim.check()
            if progress is not None and on_progress is not None:
                on_progress(_with_evaluation(progress, curve=with_curve) if contexts else progress)

        def stage(where: Stage) -> None:
            going_on()
            on_stage(where)

        options["on_progress"] = going_on
        if resume and drop_memorized and (run / MEMORIZED).exists():
            left_out = LeftOut({*left_out.passages, *LeftOut.read(run / MEMORIZED).passages})
        options["left_out"] = left_out
        comparison: Comparison | None = None
        compared: dict[str, Any] = {} if with_curve else {"other_bases": other_bases, "on_advice": on_advice}
        for left in range(ROUNDS if drop_memorized else 0, -1, -1):
            advice = learning_curve(files, **options) if with_curve else None
            outcome = replace(advice.outcome if advice else finetune(files, **options, **compared), base=base)
            compared = {}
            if not outcome.leads:
                return None
            made_at = clock()
            card = replace(
                make_card(outcome, created_at=made_at, command=command),
                weights_sha256=weights_sha256(outcome.adapter),
            )
            warning = "" if outcome.improved else nothing_learned(outcome)
            if warning:
                card = replace(card, passed=False, notes=warning)
            if not contexts:
                break
            _check_unchanged([*files, *held_out], learned_from)
            note_heard(run, people_behind(current.path if current else None))
            comparison = compare(
                files,
                held_out=held_out,
                base=base_folder,
                adapter=outcome.adapter,
                current=current.path if current else None,
                contexts=contexts,
                sampling=sampling or Sampling(),
                seconds=evaluation_seconds(outcome.seconds),
                store=ScoreStore(run),
                on_stage=stage,
            )
            if not comparison.memorized:
                break
            going_on()
            if left:
                checkpoints.clear(run)  # before the list changes, so that no run resumes with another one
            left_out = LeftOut({*left_out.passages, *(one.passage.words for one in comparison.memorized)})
            write_atomically(run / MEMORIZED, left_out.to_text())
            options |= {"left_out": left_out, "resume": False}
        page = None
        if comparison is not None:
            comparison = replace(comparison, verdict=_whole_verdict(comparison.verdict, outcome, warning))
            card = replace(
                card,
                passed=comparison.verdict.passed,
                scores={who: plain_values(scores) for who, scores in comparison.scores.items()},
                notes=str(comparison.verdict),
            )
            going_on()
            page = write_report(
                Report(
                    outcome=outcome,
                    comparison=comparison,
                    command=command,
                    created_at=made_at,
                    seconds=time.monotonic() - began,
                    funnel=funnel_of(files),
                    advice=advice.sentence if advice else "",
                    learning_curve=advice.points if advice else (),
                ),
                run / "report.html",
            )
        going_on()
        _check_unchanged([*files, *held_out], learned_from)
        adapter = registry.add(outcome.adapter, card)
        checkpoints.clear(run)  # nothing is left to resume, and they are the bulk of a run
        return Learned(
            adapter=adapter,
            card=card,
            outcome=outcome,
            comparison=comparison,
            report=page,
            advice=advice.sentence if advice else "",
            warning=warning,
        )


@contextmanager
def _explaining_failures(name: str) -> Iterator[None]:
    """Turns the system's errors in the middle of a run, such as a full disk, into sentences that say how to resume."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if _disk_is_full(error):
            raise TrainingError(
                f"The disk is full, so the training stopped; free some space and run the same command with --name "
                f"{name} --resume."
            ) from error
        if isinstance(error, OSError):
            raise TrainingError(
                f"The training stopped ({reason(error)}); correct that and run the same command with --name {name} "
                "--resume."
            ) from error
        raise


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _disk_is_full(error: BaseException | None) -> bool:
    """torch and safetensors give the system's error number in their message, or say only that writing failed."""
    while error is not None:
        words = str(error)
        said = any(f"os error {number}" in words for number in _FULL) or "file write failed" in words
        if said or getattr(error, "errno", None) in _FULL or "PytorchStreamWriter failed writing" in words:
            return True
        error = error.__cause__ or error.__context__
    return False


def _check_unchanged(files: Sequence[Path], learned_from: str) -> None:
    if digest(files) != learned_from:
        names = ", ".join(file.name for file in files)
        raise TrainingError(
            f"{names} changed during training, so held-out dialogues may have been trained on; run the command again."
        )


@contextmanager
def _undone_if_someone_is_forgotten(
    files: Sequence[Path], built_on: Sequence[Adapter], *, registry: AdapterRegistry, name: str, claim: Claim | None
) -> Iterator[None]:
    """If somebody is forgotten while their words are being learned, undo the adapter and raise TrainingError. The same
    holds for the people behind `built_on`: the adapters that training started from or that replied for the report.

    Whoever is forgotten after the adapter was registered is found on its card, so nobody is missed at the end of the
    block. Forgetting deletes the run's folder, so an error in the block may have that reason.
    """
    known = set(people_of(files))

    def someone_left() -> TrainingError | None:
        taken_away = claim is not None and not claim.stands
        if not taken_away and not known - set(people_of(files)) and all(_in_service(one, registry) for one in built_on):
            return None
        if claim is not None:
            undo(registry, name, claim)
        return TrainingError(
            f"Someone in {files[0].name}, or in an adapter that this training builds on, asked to be forgotten "
            "meanwhile, so there is no new adapter; train again without them."
        )

    try:
        yield
    except (Person2Error, OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise someone_left() or error from error
    if left := someone_left():
        raise left


def _in_service(adapter: Adapter, registry: AdapterRegistry) -> bool:
    return not any(card.id == adapter.id and card.withdrawn for card in registry.cards())


def undo(registry: AdapterRegistry, name: str, claim: Claim) -> None:
    """Withdraw an adapter that learned from somebody who was forgotten, and delete all that its run wrote."""
    if any(card.id == name for card in registry.cards()):
        registry.withdraw(name, "a member whose words it learned asked to be forgotten", erase=True)
    if claim.stands:
        discard(claim.run)
        return
    # Delete what was written after the folder was deleted; another run that has claimed it keeps its own.
    with suppress(TrainingError), claimed(claim.run):
        discard(claim.run)


def _with_evaluation(progress: Progress, *, curve: bool) -> Progress:
    """The forecast of the training with that of the evaluation; for the parts of a learning curve there is none."""
    if progress.forecast is None:
        return progress
    forecast = replace(progress.forecast, evaluation=evaluation_seconds(progress.forecast.learning))
    return replace(progress, forecast=None if curve else forecast)


def _whole_verdict(verdict: Verdict, outcome: Outcome, warning: str) -> Verdict:
    """The gate's verdict with what training itself showed: preferences that were not learned, and a `warning`."""
    reasons = verdict.reasons
    if outcome.preferred is not None:
        preferred = outcome.preferred
        reasons = (*reasons, preferences_reason(preferred.gained, preferred.pairs, str(preferred)))
    if warning:
        reasons = (Reason(ok=False, sentence=warning), *reasons)
    return Verdict(reasons=reasons)


def nothing_learned(outcome: Outcome) -> str:
    """The warning for a run whose adapter is what it started from."""
    return (
        f"Training never improved on the {outcome.before:.3f} bits per byte of held-out replies that it started from, "
        "so the adapter is what it was at the start; give more dialogues, or a lower --learning-rate."
    )
