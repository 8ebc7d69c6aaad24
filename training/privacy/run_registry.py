"""What training keeps under the home: run folders, the dialogues of retrainings, and their locks.

Knows folders and files only, so that a bot can forget somebody without loading torch.
"""

import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from core import atomic_io
from core.adapters import AdapterRegistry
from core.errors import TrainingError, reason

PLAN = "plan.json"
"""In a run's folder: what it is made from, and whose words it may contain."""
HEARD = "heard.json"
"""In a run's folder: the people behind the adapter it is compared with, whose words the report may quote."""
LOCK = "retrain.lock"
IMPORTS = "import.lock"
IMPORTED = "imported.txt"
"""Under the home: the path of every dialogue file that an import was to write, one a line."""


def note_heard(run: Path, people: Collection[str]) -> None:
    """Call before an adapter that learned from these people generates replies for the run's report."""
    (run / HEARD).write_text(json.dumps({"people": sorted(people)}), encoding="utf-8")


def runs_with(home: Path, person: str) -> Iterator[Path]:
    """The folders of runs that used the person's words, whatever became of them: killed, failed, not passed."""
    for run in sorted((home / "runs").glob("*")):
        papers = [*run.rglob(PLAN), *run.rglob(HEARD)]  # a learning curve has a plan for each of its parts
        nameless = not papers and any(run.rglob("checkpoint-*"))  # written after its plan was deleted
        if nameless or any(_names(document, person) for document in papers):
            yield run


@dataclass(frozen=True, slots=True)
class Claim:
    """A run's folder while one process trains in it. The lock is the folder's own, so it goes with the folder."""

    run: Path
    descriptor: int

    @property
    def stands(self) -> bool:
        """False once the folder was deleted, or deleted and made again by another process."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), atomic_io.lock_of(self.run).stat())
        except OSError:
            return False

    def check(self) -> None:
        """Raises TrainingError once the folder was deleted, as forgetting somebody does."""
        if not self.stands:
            raise TrainingError(
                f"The run {self.run.name} was deleted while it was running, as forgetting a member does, so it "
                "stopped; train again without them."
            )


@contextmanager
def claimed(run: Path) -> Iterator[Claim]:
    """Make the run's folder and lock it against every other process. An empty one is removed at the end.

    Raises TrainingError at once where another process trains in it, or where it cannot be made.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        descriptor = atomic_io.open_lock_of(run)
    except OSError as error:
        raise TrainingError(f"The folder {run} cannot be written ({reason(error)}); choose another one.") from error
    try:
        if not atomic_io.try_lock(descriptor):
            raise TrainingError(
                f"A training called {run.name} is already running; wait for it to end, or give another --name."
            )
        claim = Claim(run, descriptor)
        claim.check()
        try:
            yield claim
        finally:
            if claim.stands:
                with suppress(OSError):
                    run.rmdir()  # only where nothing was written
    finally:
        os.close(descriptor)


def discard(run: Path) -> None:
    """Delete a run's folder, atomically for other processes: a training in it stops at its next step."""
    gone = run.with_name(f".{run.name[:40]}-{secrets.token_hex(8)}")
    try:
        run.rename(gone)
    except OSError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def _names(document: Path, person: str) -> bool:
    try:
        return person in json.loads(document.read_text(encoding="utf-8")).get("people", [])
    except (OSError, ValueError, AttributeError):
        return True  # it is unknown who is in it, so it must be deleted


def remember_import(home: Path, *files: Path) -> None:
    """Note dialogue files before an import writes them, so that forgetting finds them and what a killed one left."""
    register = home / IMPORTED
    home.mkdir(parents=True, exist_ok=True)
    known = imported(home)
    with register.open("a", encoding="utf-8") as out:
        out.writelines(f"{file.resolve()}\n" for file in files if file.resolve() not in known)


def imported(home: Path) -> list[Path]:
    register = home / IMPORTED
    return [Path(line) for line in register.read_text(encoding="utf-8").splitlines()] if register.exists() else []


@contextmanager
def importing(home: Path) -> Iterator[None]:
    """A shared lock that every import holds."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / IMPORTS).open("a") as handle:
        atomic_io.lock_shared(handle.fileno())
        yield


def sweep_imports(home: Path) -> bool:
    """Delete what killed imports left beside the files they were to write; False while an import is running."""
    with (home / IMPORTS).open("a") as handle:
        if not atomic_io.try_lock(handle.fileno()):
            return False
        for file in imported(home):
            for left in file.parent.iterdir() if file.parent.is_dir() else ():
                if left.name.startswith(f".{file.name}."):
                    shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    return True


def sweep(home: Path, registry: AdapterRegistry) -> None:
    """Delete the dialogues of killed retrainings, whose adapters were never registered."""
    known = {card.id for card in registry.cards()}
    for folder in (home / "retrain").glob("*"):
        if folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(home / "runs" / folder.name, ignore_errors=True)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock inside the block; the system releases it even if the process is killed. Raises TrainingError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        if not atomic_io.try_lock(handle.fileno()):
            raise TrainingError("Another retraining is already running; wait for it to end.")
        yield
