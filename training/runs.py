"""What training leaves under the home: run folders, the talk of retrainings, and the lock that keeps those apart.

Knows folders and files only, so that a bot may forget somebody without loading torch.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.adapters import Shelf
from core.errors import TrainingError

PLAN = "plan.json"
"""In a run's folder: what it is made of, and whose words it may hold."""
LOCK = "retrain.lock"


def sweep(home: Path, shelf: Shelf) -> None:
    """Delete what runs that were killed left of people's words: talk of a run whose adapter never reached the shelf."""
    known = {card.id for card in shelf.cards()}
    for folder in (home / "retrain").glob("*"):
        if folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(home / "runs" / folder.name, ignore_errors=True)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock while inside; the system lets go of it even when the process is killed. Raises TrainingError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainingError("Another retraining is under way; wait for it to end.") from error
        yield
