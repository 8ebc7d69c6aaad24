"""Write a finished model's README anew, when what is known about it has changed and its weights have not.

    python -m training.pretrain.describe models/starter

From its `card.json`, its `about.toml` and, where it lies there, its `said.md` (`benchmarks.reading` writes the tables
of it). What `about.toml` says of decoding and licences is taken over into the card.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from core.errors import Person2Error
from training.pretrain import card

ABOUT = "about.toml"


def describe(folder: Path) -> None:
    """Write `README.md`, `card.json` and `generation_config.json` of `folder`. Raises TrainingError."""
    about = card.read_about(folder / ABOUT)
    made = card.read_card(folder)
    licensed = tuple(replace(item, licence=about.licence_of(item.name)) for item in made.ingredients)
    card.describe(folder, replace(made, ingredients=licensed, decoding=about.decoding), about)


def main(
    folder: Annotated[Path, typer.Argument(help="A folder that training.pretrain wrote, with its about.toml.")],
) -> None:
    """Write the README of a finished model anew. Example: describe models/starter."""
    try:
        describe(folder)
    except Person2Error as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    typer.run(main)
