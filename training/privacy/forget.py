"""Forget a member everywhere: memory, dialogue files with a manifest, runs, and the adapters that learned from them.

Knows where an installation keeps things under its home, and by `IMPORTED` where it wrote dialogue files elsewhere;
decides nothing about who may ask. The order matters to a training that runs meanwhile: memory and files first, the
registry last, so that either the training notices that somebody is gone or the registry shows what it learned (see
`training.finetune.pipeline`).
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from core import forgotten
from core.adapters import AdapterRegistry, Card
from core.errors import ExportError, Person2Error, StorageError, TrainingError, reason
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
    """Dialogues deleted from files, under the home or elsewhere."""
    adapters: tuple[str, ...]
    """Taken out of service because they learned from the member."""
    rebuild: tuple[str, ...]
    """The commands that made those adapters; run again on the cleaned files, they make clean ones."""
    speaks_now: str
    """The id of the current adapter after this, or `none`."""
    left: tuple[str, ...] = ()
    """What could not be deleted and why, a sentence each; everything else is gone."""

    def __str__(self) -> str:
        said = (
            f"Deleted: {self.removed.messages} of your messages, {self.removed.replies} of my answers to you, "
            f"{self.removed.feedback} of your votes and {self.dialogues} training dialogues."
        )
        if self.adapters:
            said += f" Voices that had learned from you are out of service: {', '.join(self.adapters)}."
        if self.left:
            said += " Not everything could be deleted yet; the operator has been told what is left."
        return said


def dialogue_files(home: Path) -> list[Path]:
    """Every dialogue file with a manifest, under the home and wherever imports were to write. Raises OSError."""
    return _once([*manifest.dialogue_files(home), *_outside(home)])


def _outside(home: Path) -> list[Path]:
    return [file for file in imported(home) if manifest.beside(file).exists()]


def _once(files: Iterable[Path]) -> list[Path]:
    return list({file.resolve(): file for file in files}.values())


def forget(
    platform: str, member: str, *, memory: Memory, registry: AdapterRegistry, home: Path, base: str | None = None
) -> Receipt:
    """Remove `member` of `platform` from everything under `home`, and from the database.

    A step that fails (a locked database, a file changed by hand, a folder that cannot be written) does not stop the
    others and is named in the receipt. Each step is safe to repeat.
    """
    left: list[str] = []

    @contextmanager
    def step() -> Iterator[None]:
        try:
            yield
        except (Person2Error, OSError) as error:
            sentence = str(error) if isinstance(error, Person2Error) else f"{error.filename or home}: {reason(error)}."
            left.append(sentence)
            log.warning("a member could not be forgotten everywhere: %s", sentence)

    removed, dialogues, speaks = Removed(), 0, None
    learned: list[Card] = []
    with step():
        # The bot must not say their names any more: keep their hashes before the names are deleted.
        forgotten.keep(memory, PeopleKey.at(home).of, platform, member, datetime.now(UTC))
    with step():
        removed = memory.forget(platform, member)
        if removed.left:
            raise StorageError(removed.left)
    with step():
        person = PeopleKey.at(home).hash(platform, member)
        files: list[Path] = []
        for found in (manifest.dialogue_files, _outside):
            with step():
                files += found(home)
        for file in _once(files):
            with step():
                dialogues += manifest.forget_people(file, [person])
        with step():
            if not sweep_imports(home):
                raise ExportError("An import is running and may write their words again: wait for it to end.")
        # A retraining in progress checks for forgotten people before it promotes its adapter.
        with step(), suppress(TrainingError), locked(home / LOCK):
            sweep(home, registry)
        for run in [*runs_with(home, person)]:
            with step():
                # Reports and checkpoints contain the words that a run learned or was evaluated on; a running one stops.
                _discard(run)
        with step():
            registry.sweep()
        for card in registry.learned_from(person):
            with step():
                registry.withdraw(card.id, "a member whose words it learned asked to be forgotten", erase=True)
                learned.append(card)
                _discard(home / "runs" / card.id)
    with step():
        speaks = registry.current(base=base)
    return Receipt(
        removed=removed,
        dialogues=dialogues,
        adapters=tuple(card.id for card in learned),
        rebuild=tuple(str(card.config["command"]) for card in learned if card.config.get("command")),
        speaks_now=speaks.id if speaks else "none",
        left=tuple(left),
    )


def _discard(run: Path) -> None:
    discard(run)
    if run.exists():
        raise TrainingError(f"The folder {run} cannot be deleted: delete it by hand.")
