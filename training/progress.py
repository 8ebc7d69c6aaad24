"""A run's progress, shown to a person: one line on stderr that vanishes when it is no terminal.

Knows rich and what a run tells (`training.finetune.Progress`); knows nothing of training.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from training.finetune import Progress


@contextmanager
def bar(console: Console | None = None) -> Iterator[Callable[[Progress], None]]:
    """Give a function for `finetune(on_progress=…)`; the bar is gone when the block ends."""
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("training", total=None, figures="")

        def show(told: Progress) -> None:
            figures = [f"{told.tokens_per_second:,.0f} tokens/s"]
            if told.loss is not None:
                figures.append(f"loss {told.loss:.3f}")
            if told.held_out is not None:
                figures.append(f"held-out {told.held_out:.3f} bits/byte")
            shown.update(task, completed=told.step, total=told.steps, figures=" · ".join(figures))

        yield show
