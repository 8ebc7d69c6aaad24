"""Forget a member everywhere: memory, dialogue files with a manifest, runs, and the adapters that learned from them.

Knows where an installation keeps things under its home, and by `IMPORTED` where it wrote dialogue files elsewhere;
decides nothing about who may ask. The order matters to a training that runs meanwhile: memory and files first, the
shelf last, so that either the training sees that somebody has gone or the shelf shows what it learned (see
`training.learning`).
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from core.adapters import Shelf
from core.errors import ExportError, TrainingError
from core.memory import Memory, Removed
from training.data import manifest
from training.privacy.consent import PeopleKey
from training.privacy.run_registry import LOCK, discard, imported, locked, runs_with, sweep, sweep_imports

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What was removed, for the person and the operator."""

    removed: Removed
    dialogues: int
    """Dialogues deleted from files under the home."""
    adapters: tuple[str, ...]
    """Taken out of service because they learned from the member."""
    rebuild: tuple[str, ...]
    """The commands that made those adapters; run again on the cleaned files they make clean ones."""
    speaks_now: str
    """The id of the adapter that speaks after this, or `none`."""
    left: tuple[str, ...] = ()
    """What could not be cleaned and why, a sentence each; everything else is gone."""

    def __str__(self) -> str:
        said = (
            f"Deleted: {self.removed.messages} of your messages, {self.removed.replies} of my answers to you, "
            f"{self.removed.feedback} of your votes and {self.dialogues} training dialogues."
        )
        if self.adapters:
            said += f" Voices that had learned from you are out of service: {', '.join(self.adapters)}."
        if self.left:
            said += f" {len(self.left)} of the training files could not be cleaned yet; the operator has been told."
        return said


def dialogue_files(home: Path) -> list[Path]:
    """Every dialogue file with a manifest, under the home and wherever imports were to write."""
    inside = manifest.dialogue_files(home)
    outside = [file for file in imported(home) if manifest.beside(file).exists()]
    return list({file.resolve(): file for file in [*inside, *outside]}.values())


def forget(platform: str, member: str, *, memory: Memory, shelf: Shelf, home: Path, base: str | None = None) -> Receipt:
    """Remove `member` of `platform` from everything under `home`, and from the database.

    A dialogue file that cannot be cleaned, because somebody changed it by hand, does not stop the rest and is named in
    the receipt. Raises StorageError, ExportError, AdapterError; each step is safe to repeat.
    """
    person = PeopleKey.at(home).hash(platform, member)
    removed = memory.forget(platform, member)
    dialogues, left = 0, []
    for file in dialogue_files(home):
        try:
            dialogues += manifest.forget_people(file, [person])
        except (ExportError, OSError) as error:
            left.append(str(error))
            log.warning("%s:%s could not be forgotten in %s: %s", platform, person, file, error)
    if not sweep_imports(home):
        left.append("An import is under way and may write their words once more: wait for its end.")
    try:
        with locked(home / LOCK):
            sweep(home, shelf)
    except TrainingError:
        pass  # a retraining is under way: it looks for who has gone before its adapter may speak
    for run in [*runs_with(home, person)]:
        # Reports and checkpoints quote the words that a run learned or was judged on; one under way stops at this.
        discard(run)
    shelf.sweep()
    learned = shelf.learned_from(person)
    for card in learned:
        shelf.withdraw(card.id, "a member whose words it learned asked to be forgotten", erase=True)
        discard(home / "runs" / card.id)
    speaks = shelf.current(base=base)
    return Receipt(
        removed=removed,
        dialogues=dialogues,
        adapters=tuple(card.id for card in learned),
        rebuild=tuple(str(card.config["command"]) for card in learned if card.config.get("command")),
        speaks_now=speaks.id if speaks else "none",
        left=tuple(left),
    )
