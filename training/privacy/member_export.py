"""Give members what is stored of them: memory, dialogues made from their words, adapters trained on those.

Reads only. A dialogue is handed over whole: what was said to the member is what makes sense of what they said.
"""

import logging
from pathlib import Path
from typing import Any

from core.adapters import AdapterRegistry
from core.errors import ExportError
from core.memory import Memory
from training.data.manifest import dialogues_of
from training.privacy.consent import PeopleKey
from training.privacy.forget import dialogue_files
from training.privacy.run_registry import runs_with

log = logging.getLogger(__name__)

Stored = dict[str, Any]


def stored_of(platform: str, member: str, *, memory: Memory, registry: AdapterRegistry, home: Path) -> Stored:
    """All of it, ready for JSON. A file that cannot be read is named under `unreadable`. Raises StorageError."""
    person = PeopleKey.at(home).hash(platform, member)
    dialogues, unreadable = [], []
    for file in dialogue_files(home):
        try:
            dialogues += [{"file": name, "dialogue": text} for name, text in dialogues_of(file, person)]
        except (ExportError, OSError) as error:
            unreadable.append(file.name)
            log.warning("%s could not be read for what is stored of %s:%s: %s", file, platform, person, error)
    return memory.export(platform, member) | {
        "dialogues": dialogues,
        "voices": [
            {"id": card.id, "made": card.created_at.isoformat(), "in service": not card.withdrawn}
            for card in registry.cards()
            if person in card.people
        ],
        "training runs": [run.name for run in runs_with(home, person)],
        "unreadable": unreadable,
    }


def is_empty(stored: Stored) -> bool:
    """Whether nothing at all is stored."""
    return stored["consent"] is None and not any(value for value in stored.values() if isinstance(value, list))
