"""Whose words dialogue files and adapters contain, for training and for the report; by keyed hashes only."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from core.adapters import CARD, Card
from core.dialogue import Dialogue
from training.data import manifest
from training.evaluation.copying import Extraction
from training.finetune.corpus import key_of, load

PSEUDONYM = 6
"""Characters of a keyed hash that identify a person in a report."""

PeopleByDialogue: TypeAlias = Mapping[int, tuple[str, ...]]
"""A dialogue's key → keyed hashes of its speakers, where manifests name them; Person2's first."""


def people_by_dialogue(files: Sequence[Path]) -> PeopleByDialogue:
    """Who speaks in the dialogues of `files`."""
    found: dict[int, tuple[str, ...]] = {}
    for file in files:
        document = manifest.describing(file)
        if document is None:
            continue
        part = next((name for name, held in document.files.items() if held == file.name), "out")
        lines = document.dialogues.get(part, [])
        hashes = [person.hash for person in document.people]
        keys = load([file]).dialogues.keys.tolist() if lines else []
        if len(lines) == len(keys):
            for key, line in zip(keys, lines, strict=True):
                found[key] = tuple(hashes[int(at)] for at in line.split() if int(at) < len(hashes))
    return found


def extracted_by_person(
    people: PeopleByDialogue, dialogues: Sequence[Dialogue], tries: Sequence[Extraction]
) -> dict[str, tuple[int, int]]:
    """Keyed hash → (turns of theirs that were tried, how many were reproduced), the most tried first.

    Tries are for turns of Person2's and count for whoever that is in the dialogue; those in dialogues without a
    manifest count for nobody.
    """
    asked, came = Counter[str](), Counter[str]()
    for one in tries:
        for person in people.get(key_of(dialogues[one.dialogue]), ())[:1]:
            asked[person] += 1
            came[person] += one.out
    return {person: (count, came[person]) for person, count in asked.most_common()}


def pseudonym(person: str) -> str:
    """The first characters of a keyed hash: enough to tell a channel's people apart, too few to identify anybody."""
    return person[:PSEUDONYM]


def funnel_of(files: Sequence[Path]) -> dict[str, int]:
    """What an import read, kept and dropped, by reason, summed over the files' manifests; empty without one."""
    counts: dict[str, int] = {}
    for file in files:
        document = manifest.describing(file)
        for name, value in _flat(document.counts if document else {}):
            counts[name] = counts.get(name, 0) + value
    return counts


def _flat(counts: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(counts, dict):
        for name, value in counts.items():
            yield from _flat(value, f"{prefix}: {name}" if prefix else str(name))
    elif isinstance(counts, int) and not isinstance(counts, bool):
        yield prefix, counts


def people_of(files: Sequence[Path]) -> tuple[str, ...]:
    """The keyed hashes of everybody whose words are in `files`, according to their manifests.

    Raises ExportError for a manifest that cannot be read: whose words were learned must never be guessed.
    """
    papers = [document for file in files if (document := manifest.describing(file)) is not None]
    return tuple(sorted({person.hash for document in papers for person in document.people}))


def people_behind(adapter: Path | None) -> tuple[str, ...]:
    """The keyed hashes of the people an adapter learned from, according to its card; adapters trained from it inherit
    them.

    Raises AdapterError for a card that cannot be read.
    """
    card = adapter / CARD if adapter else None
    return Card.from_json(card.read_text(encoding="utf-8")).people if card and card.is_file() else ()
