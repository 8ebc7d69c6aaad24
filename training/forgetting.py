"""Forget a member everywhere: memory, dialogue files with a manifest, reports, and the adapters that learned from them.

Knows where an installation keeps things under its home; decides nothing about who may ask.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from core.adapters import Shelf
from core.memory import Memory, Removed
from training.consent import PeopleKey
from training.manifest import forget_people

MANIFEST = ".manifest.json"


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

    def __str__(self) -> str:
        said = (
            f"Deleted: {self.removed.messages} of your messages, {self.removed.replies} of my answers to you, "
            f"{self.removed.feedback} of your votes and {self.dialogues} training dialogues."
        )
        if self.adapters:
            said += f" Voices that had learned from you are out of service: {', '.join(self.adapters)}."
        return said


def forget(platform: str, member: str, *, memory: Memory, shelf: Shelf, home: Path, base: str | None = None) -> Receipt:
    """Remove `member` of `platform` from everything under `home`, and from the database.

    Raises StorageError, ExportError, AdapterError; each step is safe to repeat, so a failed call can be made again.
    """
    person = PeopleKey.at(home).hash(platform, member)
    dialogues = 0
    for manifest in sorted(home.rglob(f"*{MANIFEST}")):
        dialogues += forget_people(manifest.with_name(manifest.name.removesuffix(MANIFEST)), [person])
    learned = shelf.learned_from(person)
    for card in learned:
        shelf.withdraw(card.id, "a member whose words it learned asked to be forgotten")
        # Reports and checkpoints of a run quote the words that it learned.
        shutil.rmtree(home / "runs" / card.id, ignore_errors=True)
    removed = memory.forget(platform, member)
    speaks = shelf.current(base=base)
    return Receipt(
        removed=removed,
        dialogues=dialogues,
        adapters=tuple(card.id for card in learned),
        rebuild=tuple(str(card.config["command"]) for card in learned if card.config.get("command")),
        speaks_now=speaks.id if speaks else "none",
    )
