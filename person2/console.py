"""What a person at the terminal sees: results on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from core.errors import DialogueError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def write_json(value: Any) -> None:
    """One line of JSON for machines."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def sentence(text: str) -> str:
    """One line that begins with a capital letter and ends with a full stop."""
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def chosen(**options: object) -> dict[str, object]:
    """The options that were given; the others are left to the settings."""
    return {name: value for name, value in options.items() if value is not None}


def check_files(files: Iterable[Path]) -> None:
    """Before anything slow begins. Raises DialogueError."""
    for file in files:
        if not file.is_file():
            raise DialogueError(f"There is no file {file}; check the path.")


class ProgressBar:
    """A progress bar on standard error, shown only in a terminal."""

    def __init__(self, label: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._progress.add_task(label, total=1, state="preparing …")

    def __enter__(self) -> Callable[[float, float, str], None]:
        self._progress.start()
        return lambda done, total, state: self._progress.update(self._task, completed=done, total=total, state=state)

    def __exit__(self, *caught: object) -> None:
        self._progress.stop()
