"""Checkpoints that survive a kill at any moment.

The trainer writes a checkpoint file by file; a kill in between leaves half of one. So each gets checksums, written last
and flushed to the disk: the sizes and digests of its files. A folder whose checksums are missing or wrong is ignored,
and the one before it counts. Knows files only.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path

from core.atomic_io import flush, write_atomically
from core.errors import TrainingError

CHECKSUMS = "checksums.json"
KEPT = 3
"""The newest two and the best one: when the newest turns out half-written, the one before it is there."""
_NAME = re.compile(r"checkpoint-(\d+)")


def write_checksums(checkpoint: Path) -> None:
    """Flush every file to the disk, then write the digests of a complete checkpoint."""
    files = {}
    for file in sorted(checkpoint.rglob("*")):
        if file.is_file() and file.name != CHECKSUMS:
            flush(file)
            files[str(file.relative_to(checkpoint))] = _digest(file)
    write_atomically(checkpoint / CHECKSUMS, json.dumps(files, indent=1))


def is_complete(checkpoint: Path) -> bool:
    """Whether every file is there and matches its checksum."""
    try:
        files = json.loads((checkpoint / CHECKSUMS).read_text(encoding="utf-8"))
        return bool(files) and all(_digest(checkpoint / name) == digest for name, digest in files.items())
    except (OSError, ValueError, AttributeError):
        return False


def newest(run: Path) -> Path | None:
    """The newest complete checkpoint of a run; newer broken ones are deleted."""
    for checkpoint in sorted(all_of(run), key=step_of, reverse=True):
        if is_complete(checkpoint):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def all_of(run: Path) -> list[Path]:
    return [entry for entry in run.iterdir() if entry.is_dir() and _NAME.fullmatch(entry.name)] if run.is_dir() else []


def step_of(checkpoint: Path) -> int:
    """Optimizer steps done when it was written."""
    match = _NAME.fullmatch(checkpoint.name)
    return int(match[1]) if match else -1


def clear(run: Path) -> None:
    """Delete all checkpoints, so that a new run in the folder does not take them for its own."""
    for checkpoint in all_of(run):
        shutil.rmtree(checkpoint)


def check_room(run: Path, parameters: int) -> None:
    """Raises TrainingError where the disk has no room for the checkpoints of a run that trains so many `parameters`.

    A checkpoint is the parameters and AdamW's two moments, in float32; one more than is kept exists while it is
    written. The adapter exists three times: in the run, as a draft, and in the registry.
    """
    kept = sum(file.stat().st_size for checkpoint in all_of(run) for file in checkpoint.rglob("*") if file.is_file())
    needed = 4 * parameters * (3 * (KEPT + 1) + 3) - kept
    free = shutil.disk_usage(run).free
    if free < needed:
        raise TrainingError(
            f"The checkpoints of this run need {needed / 1e6:,.0f} MB and {run} has {free / 1e6:,.0f} MB left; free "
            "some space, choose a smaller --rank, or set PERSON2_HOME to a larger disk."
        )


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "blake2b").hexdigest()
