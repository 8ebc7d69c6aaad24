"""Paragraphs of books as dialogues: more talk to tell replies apart in than was ever collected.

    python -m models.starter.recipe.prose_talk OUT FILE … [--count 12000]

Neighbouring short paragraphs of fiction stand as turns of `Person1` and `Person2`, in the order of the book. What
follows in a story hangs on what was said there much as a reply hangs on a talk, in far more words than the dialogues
hold; the lessons of `training.pretrain.contrast` need no more than that. Little of it belongs among what a bot learns
to say. Knows text files and dialogues only.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from core.dialogue import Dialogue
from core.errors import Person2Error
from models.starter.recipe.files import by_turns, save
from training.pretrain.corpora import lines_of

WORDS = 60
"""Of a paragraph at most; a longer one ends the dialogue before it."""
SHORTEST, LONGEST = 4, 8
"""Turns of a dialogue."""
SEED = 1


def passages(lines: Iterable[str]) -> Iterator[Dialogue]:
    """Neighbouring paragraphs, one a line, of `WORDS` words at most; empty lines do not part them."""
    run: list[str] = []
    for paragraph in filter(None, map(str.strip, lines)):
        if len(paragraph.split()) <= WORDS:
            run.append(paragraph)
            if len(run) < LONGEST:
                continue
        if len(run) >= SHORTEST:
            yield by_turns(run)
        run = []
    if len(run) >= SHORTEST:
        yield by_turns(run)


def write(out: Path, books: Sequence[Path], *, count: int) -> int:
    """Write at most `count` passages of `books` to `out`, in a shuffled order; gives how many. Raises TrainingError."""
    found: list[Dialogue] = []
    for book in books:
        found += passages(lines_of(book))
    random.Random(SEED).shuffle(found)
    return save(out, found[:count])


def main(
    out: Annotated[Path, typer.Argument(help="Dialogue file to write.")],
    books: Annotated[list[Path], typer.Argument(help="Text files, a paragraph a line.")],
    count: Annotated[int, typer.Option(min=1, help="Passages at most.")] = 12_000,
) -> None:
    """Make dialogues of the paragraphs of books. Example: prose_talk out.txt emma.txt persuasion.txt."""
    try:
        typer.echo(f"{write(out, books, count=count)} passages in {out}")
    except Person2Error as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    typer.run(main)
