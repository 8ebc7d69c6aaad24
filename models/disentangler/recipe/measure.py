"""`python -m models.disentangler.recipe.measure FOLDER`: the paper's figures on a folder of annotated IRC logs.

Knows logs and metrics; the disentangler sees the messages only, never the annotation.
"""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from core.errors import Person2Error
from models.disentangler.recipe.irc import read
from models.disentangler.recipe.metrics import LinkScores, evaluate
from training.data.disentangle import Disentangler


def measure(disentangler: Disentangler, folder: Path) -> tuple[LinkScores, float]:
    """The figures on the annotated lines of every log, and messages per second of processor time."""
    gold: dict[str, dict[int, frozenset[int]]] = {}
    auto: dict[str, dict[int, frozenset[int]]] = {}
    seconds, messages = 0.0, 0
    for log in read(folder):
        begun = time.process_time()
        links = disentangler.links(log.messages)
        seconds += time.process_time() - begun
        messages += len(links)
        gold[log.name] = log.gold
        auto[log.name] = {line: frozenset({line if (answer := links[line]) is None else answer}) for line in log.gold}
    return evaluate(gold, auto), messages / seconds if seconds else 0.0


def main(
    folder: Annotated[Path, typer.Argument(help="Folder with *.ascii.txt and *.annotation.txt.")],
    scorer: Annotated[Path | None, typer.Option(help="A scorer other than the bundled one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Measure the disentangler, for example: python -m models.disentangler.recipe.measure channels/irc_ubuntu/dev"""
    try:
        figures, pace = measure(Disentangler.load(scorer), folder)
    except Person2Error as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(figures.as_dict() | {"messages_per_cpu_second": round(pace)}))
        return
    print(
        f"links      P {figures.precision:.1f}  R {figures.recall:.1f}  F {figures.link_f:.1f}\n"
        f"scaled VI  {figures.scaled_vi:.1f}\n"
        f"one-to-one {figures.one_to_one:.1f}\n"
        f"exact      P {figures.exact_precision:.1f}  R {figures.exact_recall:.1f}  F {figures.exact_f:.1f}\n"
        f"{figures.lines} lines; {pace:,.0f} messages per second of processor time"
    )


if __name__ == "__main__":
    typer.run(main)
