"""The manifest that an import leaves beside a dialogue file (`<file>.manifest.json`): whose words the file holds.

Reads it for training and for the report; how it is made stands with the import.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from core.errors import DialogueError


def manifest_of(file: Path) -> Path:
    """Where the manifest of a dialogue file lies, if it has one."""
    return file.with_name(f"{file.name}.manifest.json")


def people_of(files: Sequence[Path]) -> tuple[str, ...]:
    """The keyed hashes of everybody whose words stand in `files`, as their manifests name them.

    Raises DialogueError for a manifest that cannot be read: whose words were learned must never be guessed.
    """
    people: set[str] = set()
    for file in files:
        manifest = manifest_of(file)
        if not manifest.exists():
            continue
        try:
            named = json.loads(manifest.read_text(encoding="utf-8"))["people"]
            people.update(entry if isinstance(entry, str) else str(entry["hash"]) for entry in named)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DialogueError(
                f"The manifest {manifest} cannot be read, and it says whose words {file.name} holds; import it again."
            ) from error
    return tuple(sorted(people))
