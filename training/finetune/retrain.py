"""From the bot's own log to a better adapter in one go: log → dialogues → adapter → gate → promotion.

Only the words of members who consented are learned; a reply of the bot is a target only if somebody liked it. Training
goes on from the current adapter, or what that one learned from exports would be lost. A lock keeps two runs apart, and
until the promotion no adapter in service is touched, so it is safe to run from cron.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from core.adapters import AdapterRegistry
from core.errors import TrainingError
from core.generator import Sampling
from core.memory import Memory
from training.data.import_job import import_talk
from training.data.stats import ImportStats
from training.evaluation.suite import OnStage, Stage, silent
from training.finetune.config import FinetuneConfig
from training.finetune.outcome import Progress
from training.finetune.pipeline import Learned, learn, undo
from training.privacy.consent import PeopleKey
from training.privacy.own_log import learnable
from training.privacy.preferences import preferences
from training.privacy.run_registry import LOCK, claimed, locked, sweep

MIN_DIALOGUES = 20
"""With fewer there is too little to hold out for a comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrained:
    stats: ImportStats
    learned: Learned | None
    """None for a dry run."""
    promoted: bool


def retrain(
    *,
    memory: Memory,
    registry: AdapterRegistry,
    home: Path,
    base: str,
    base_folder: str,
    command: str,
    clock: Callable[[], datetime],
    dry_run: bool = False,
    settings: FinetuneConfig | None = None,
    sampling: Sampling | None = None,
    contexts: int = 200,
    drop_memorized: bool = False,
    with_preferences: bool = False,
    count_tokens: Callable[[str], int] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_stage: OnStage = silent,
) -> Retrained:
    """Learn from the log and promote what passes the gate.

    Raises TrainingError where there is too little to learn from, or another run is under way. A dry
    run stops after the dialogues are counted and leaves no file behind.
    """
    with locked(home / LOCK):
        name = f"retrained-{clock():%Y%m%d-%H%M%S}"
        folder = home / "retrain" / name
        sweep(home, registry)
        key = PeopleKey.at(home)
        willing = memory.consented()
        liked, _ = memory.judged()
        on_stage(Stage(words="reading the log"))
        stats = import_talk(
            [],
            out=folder / "log.txt",
            home=home,
            log=learnable(memory),
            consented=willing,
            liked=liked,
            count_tokens=count_tokens,
        )
        if dry_run or stats.dialogues < MIN_DIALOGUES:
            shutil.rmtree(folder, ignore_errors=True)
        if dry_run:
            return Retrained(stats=stats, learned=None, promoted=False)
        if stats.dialogues < MIN_DIALOGUES:
            raise TrainingError(
                f"There are {stats.dialogues} dialogues to learn from and {MIN_DIALOGUES} are needed: wait until "
                "members who said `consent yes` have written more. The current adapter stays active."
            )
        current = registry.current(base=base)
        learned = learn(
            [folder / "log.txt"],
            registry=registry,
            run=home / "runs" / name,
            name=name,
            base=base,
            base_folder=base_folder,
            command=command,
            clock=clock,
            start_from=current,
            current=current,
            settings=settings,
            contexts=contexts,
            drop_memorized=drop_memorized,
            preferences=preferences(memory, key) if with_preferences else (),
            sampling=sampling,
            on_progress=on_progress,
            on_stage=on_stage,
        )
        if learned is not None:
            left = {key.of(person) for person in set(willing) - set(memory.consented())}
            if left & set(learned.card.people):
                with claimed(home / "runs" / name) as claim:
                    undo(registry, name, claim)
                shutil.rmtree(folder, ignore_errors=True)
                raise TrainingError(
                    "Someone withdrew their consent during training, so the new adapter is out of service and the "
                    "current one stays active; run `person2 retrain` again."
                )
        passed = learned is not None and learned.comparison is not None and learned.comparison.verdict.passed
        if passed:
            registry.use(name)
        return Retrained(stats=stats, learned=learned, promoted=passed)
