"""One whole run: train, judge, report, put on the shelf. `person2 train` and `person2 retrain` both go through here.

Promotes nothing: that is for a person, or for `retrain` after the gate.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from core.adapters import Card, Shelf
from core.errors import AdapterError, Person2Error, TrainingError
from core.generator import Adapter, Sampling
from training import checkpoints
from training.advisor import learning_curve
from training.card import make_card
from training.finetune import LogTo, Outcome, Progress, Settings, finetune
from training.finetune.folder import begun
from training.gate import Reason, Verdict
from training.judge import Judgement, judge
from training.provenance import funnel_of, people_behind, people_of
from training.report import Report, write_report
from training.runs import note_heard


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What came of a run."""

    adapter: Adapter
    card: Card
    outcome: Outcome
    judgement: Judgement | None
    """None where judging was left out."""
    report: Path | None
    advice: str = ""
    """Whether there is enough data, where a learning curve was asked for."""
    warning: str = ""
    """Where training made nothing better; the gate does not let such an adapter pass."""


def learn(
    files: Sequence[Path],
    *,
    shelf: Shelf,
    run: Path,
    name: str,
    base: str,
    base_folder: str,
    command: str,
    clock: Callable[[], datetime],
    held_out: Sequence[Path] = (),
    start_from: Adapter | None = None,
    current: Adapter | None = None,
    settings: Settings | None = None,
    resume: bool = False,
    with_curve: bool = False,
    contexts: int = 200,
    sampling: Sampling | None = None,
    log_to: LogTo = "none",
    on_progress: Callable[[Progress], None] | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Learned | None:
    """Train on `files`, judge on what was held out, and put the adapter on the shelf, passed or not.

    `base` is the base as it was typed and goes on the card; `base_folder` is what loads it. `contexts=0` leaves the
    judging out; `with_curve` trains on a quarter and a half as well, to say whether more data would help.

    Raises DialogueError, ModelError, AdapterError and TrainingError; until the last step the shelf is
    untouched, so a run that fails or is killed changes nothing and can be resumed. Of several processes (`accelerate
    launch`) the first alone judges and fills the shelf; the others get None.
    """
    if shelf.taken(name):
        raise AdapterError(f"There is an adapter called {name} already; choose another name.")
    if resume and not begun(run):
        raise TrainingError(f"There is no run called {name} to go on with; leave --resume out to begin one.")
    began = time.monotonic()
    what: dict[str, Any] = {
        "run": run,
        "base": base_folder,
        "held_out": held_out,
        "name": name,
        "adapter": start_from.path if start_from else None,
        "settings": settings or Settings(),
        "resume": resume,
        "log_to": log_to,
        "on_progress": on_progress,
    }
    voices = [voice for voice in (start_from, current) if voice is not None]
    with _noticing_who_leaves([*files, *held_out], voices, shelf=shelf, name=name, run=run):
        advice = learning_curve(files, **what) if with_curve else None
        outcome = replace(advice.outcome if advice else finetune(files, **what), base=base)
        if not outcome.leads:
            return None
        made_at = clock()
        card = make_card(outcome, created_at=made_at, command=command)
        warning = "" if outcome.improved else nothing_learned(outcome)
        if warning:
            card = replace(card, passed=False, notes=warning)
        judgement, page = None, None
        if contexts:
            note_heard(run, people_behind(current.path if current else None))
            judgement = judge(
                files,
                held_out=held_out,
                base=base_folder,
                adapter=outcome.adapter,
                current=current.path if current else None,
                contexts=contexts,
                sampling=sampling or Sampling(),
                on_stage=on_stage,
            )
            if warning:
                reasons = (Reason(ok=False, sentence=warning), *judgement.verdict.reasons)
                judgement = replace(judgement, verdict=Verdict(reasons=reasons))
            card = replace(
                card,
                passed=judgement.verdict.passed,
                scores={who: _plain(asdict(scores)) for who, scores in judgement.scores.items()},
                notes=str(judgement.verdict),
            )
            page = write_report(
                Report(
                    outcome=outcome,
                    judgement=judgement,
                    command=command,
                    created_at=made_at,
                    seconds=time.monotonic() - began,
                    funnel=funnel_of(files),
                    advice=advice.sentence if advice else "",
                    learning_curve=advice.points if advice else (),
                ),
                run / "report.html",
            )
        adapter = shelf.add(outcome.adapter, card)
        checkpoints.clear(run)  # there is nothing left to go on with, and they are the bulk of a run
        return Learned(
            adapter=adapter,
            card=card,
            outcome=outcome,
            judgement=judgement,
            report=page,
            advice=advice.sentence if advice else "",
            warning=warning,
        )


@contextmanager
def _noticing_who_leaves(
    files: Sequence[Path], voices: Sequence[Adapter], *, shelf: Shelf, name: str, run: Path
) -> Iterator[None]:
    """Whoever is forgotten while their words are learned must not be in the adapter: then it is undone, and said so.
    Nor may they be heard through one of `voices`, from which training went on or which spoke into the report.

    Whoever is forgotten once the adapter is on the shelf is found on its card, so at the end of the block nobody is
    missed. Forgetting takes the run's folder away, so what fails in the block may fail for that reason.
    """
    known = set(people_of(files))

    def somebody_left() -> TrainingError | None:
        if not known - set(people_of(files)) and all(_in_service(voice, shelf) for voice in voices):
            return None
        undo(shelf, name, run)
        return TrainingError(
            f"Somebody in {files[0].name} or in a voice it was to go on from asked to be forgotten while their words "
            "were learned, so there is no new adapter; train again without them."
        )

    try:
        yield
    except (Person2Error, OSError, RuntimeError, ValueError) as error:
        raise somebody_left() or error from error
    if left := somebody_left():
        raise left


def _in_service(voice: Adapter, shelf: Shelf) -> bool:
    return not any(card.id == voice.id and card.withdrawn for card in shelf.cards())


def undo(shelf: Shelf, name: str, run: Path) -> None:
    """Take an adapter that learned from somebody now forgotten out of service, with all that its run wrote."""
    if any(card.id == name for card in shelf.cards()):
        shelf.withdraw(name, "a member whose words it learned asked to be forgotten", erase=True)
    shutil.rmtree(run, ignore_errors=True)


def nothing_learned(outcome: Outcome) -> str:
    """What to say of a run whose adapter is what it began with."""
    return (
        f"No look at the held-out replies found them foreseen better than before training ({outcome.before:.3f} bits "
        "per byte), so the adapter is what training began with; give more dialogues, or a lower --learning-rate."
    )


def _plain(scores: dict[str, object]) -> dict[str, object]:
    """Figures without their intervals, as a card shows them."""
    return {name: value["value"] if isinstance(value, dict) else value for name, value in scores.items()}
