"""The manifest that an import leaves beside a dialogue file (`<file>.manifest.json`): whose words the file holds.

Reads it for training and for the report; how it is made stands with the import.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from core.adapters import CARD, Card
from core.dialogue import Dialogue, render
from core.errors import DialogueError
from training.copying import Extraction
from training.dataset import load

PSEUDONYM = 6
"""Letters of a keyed hash that stand for a person."""


def manifest_of(file: Path) -> Path:
    """Where the manifest of a dialogue file lies, if it has one: beside it, or, for the held-out part of an import,
    beside the file that was written with it."""
    own = file.with_name(f"{file.name}.manifest.json")
    if not own.exists():
        for other in sorted(file.parent.glob("*.manifest.json")):
            if file.name in _read(other).get("files", {}).values():
                return other
    return own


def people_by_dialogue(files: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Rendered dialogue → keyed hashes of those who speak in it, where manifests say so; Person2's first."""
    found: dict[str, tuple[str, ...]] = {}
    for file in files:
        manifest = _read(manifest_of(file))
        part = next((name for name, held in manifest.get("files", {}).items() if held == file.name), "out")
        lines = manifest.get("dialogues", {}).get(part, [])
        hashes = _hashes(manifest)
        dialogues = load([file]).dialogues if lines else ()
        if len(lines) == len(dialogues):
            for turns, line in zip(dialogues, lines, strict=True):
                found[render(turns)] = tuple(hashes[int(at)] for at in line.split() if int(at) < len(hashes))
    return found


def given_away(
    files: Sequence[Path], dialogues: Sequence[Dialogue], tries: Sequence[Extraction]
) -> dict[str, tuple[int, int]]:
    """Keyed hash → (turns of theirs that a model was asked for, of which came out), those asked most first.

    A try is for a turn of Person2's, and it counts for whoever Person2 is in that dialogue; `files` are the training
    files, whose manifests tell. Tries in dialogues without a manifest count for nobody.
    """
    people = people_by_dialogue(files)
    asked, came = Counter[str](), Counter[str]()
    for one in tries:
        for person in people.get(render(dialogues[one.dialogue]), ())[:1]:
            asked[person] += 1
            came[person] += one.out
    return {person: (count, came[person]) for person, count in asked.most_common()}


def pseudonym(person: str) -> str:
    """The first letters of a keyed hash: enough to tell the people of a channel apart, too few to look one up."""
    return person[:PSEUDONYM]


def funnel_of(files: Sequence[Path]) -> dict[str, int]:
    """What an import read, kept and dropped, by reason, summed over the files' manifests; empty without one."""
    counts: dict[str, int] = {}
    for file in files:
        for name, value in _flat(_read(manifest_of(file)).get("counts", {})):
            counts[name] = counts.get(name, 0) + value
    return counts


def _flat(counts: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(counts, dict):
        for name, value in counts.items():
            yield from _flat(value, f"{prefix}: {name}" if prefix else str(name))
    elif isinstance(counts, int) and not isinstance(counts, bool):
        yield prefix, counts


def _hashes(manifest: dict[str, Any]) -> list[str]:
    return [entry if isinstance(entry, str) else str(entry["hash"]) for entry in manifest.get("people", [])]


def _read(manifest: Path) -> dict[str, Any]:
    """Empty where there is none. Raises DialogueError where there is one that cannot be read."""
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
        _hashes(found)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DialogueError(
            f"The manifest {manifest} cannot be read, and it says whose words were taken; import the data again."
        ) from error
    return cast("dict[str, Any]", found)


def people_of(files: Sequence[Path]) -> tuple[str, ...]:
    """The keyed hashes of everybody whose words stand in `files`, as their manifests name them.

    Raises DialogueError for a manifest that cannot be read: whose words were learned must never be guessed.
    """
    return tuple(sorted({person for file in files for person in _hashes(_read(manifest_of(file)))}))


def people_behind(adapter: Path | None) -> tuple[str, ...]:
    """The keyed hashes of those an adapter learned from, as its card names them; what goes on from it knows them too.

    Raises AdapterError for a card that cannot be read.
    """
    card = adapter / CARD if adapter else None
    return Card.from_json(card.read_text(encoding="utf-8")).people if card and card.is_file() else ()
