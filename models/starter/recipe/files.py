"""Reading and writing the dialogue files that the tools of this folder turn into others."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from itertools import cycle
from pathlib import Path

import typer

from core import dialogue
from core.errors import Person2Error, TrainingError
from training.pretrain.corpora import HOLD_OUT_EVERY, clean_dialogue, dialogues_in, lines_of

_LONELY_I = re.compile(r"(?<![\w.'])i(?=$|[\s'’,!?])")


def cleaned(dialogues: Iterable[dialogue.Dialogue]) -> Iterator[dialogue.Dialogue]:
    """Without what their collection left in them, and with a capital I; what cannot be cleaned is left out."""
    for turns in dialogues:
        if kept := clean_dialogue(turns):
            yield tuple(dialogue.Turn(turn.speaker, _LONELY_I.sub("I", turn.text)) for turn in kept)


def save(out: Path, dialogues: Sequence[dialogue.Dialogue]) -> int:
    """Write dialogues to a file; gives how many. Raises TrainingError if it cannot be written."""
    try:
        out.write_text("".join(dialogue.write(dialogues)), encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{out} cannot be written ({error.strerror}); check the path.") from error
    return len(dialogues)


def run(out: Path, write: Callable[[], int]) -> None:
    """Write a file of dialogues and say how many it holds, or what was wrong: the end of a tool of this folder."""
    try:
        typer.echo(f"{write()} dialogues in {out}")
    except Person2Error as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


def by_turns(texts: Iterable[str]) -> dialogue.Dialogue:
    """The dialogue in which Person1 and Person2 say them by turns, Person1 first."""
    return tuple(dialogue.Turn(speaker, text) for text, speaker in zip(texts, cycle(dialogue.Speaker), strict=False))


def learned(path: Path, tenth: Set[Path]) -> Iterator[dialogue.Dialogue]:
    """The dialogues of a file, without every tenth where its path is in `tenth`. Raises TrainingError."""
    every = HOLD_OUT_EVERY if path.resolve() in tenth else 0
    return (turns for number, turns in enumerate(dialogues_in(lines_of(path)), 1) if not every or number % every)
