"""The pictures of the documentation, made by the program itself.

`python -m docs.pictures terminal` has a conversation with the bundled model and writes `terminal.svg`. `python -m
docs.pictures report` trains a small adapter on made-up dialogues and writes `report.png`, the top of its report, by a
headless Chromium. Uses the program only through its command line.
"""

import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

DOCS = Path(__file__).resolve().parent
SEED = 5
LINES = (
    "Hello! How are you?",
    "I am fine. Have you seen any good films?",
    "I saw Titanic last night.",
    "Do you like music?",
)
COLUMNS = 64

SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""rich's own template without fonts from a server."""

PLANTS = ("roses", "tulips", "sunflowers", "sweet peas", "dahlias", "peonies", "lilies", "herbs", "ferns", "daisies")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
EXCHANGES = (
    ("Do you have {plant} today?", "We do, the {plant} came in fresh this morning."),
    ("Are you open on {day}?", "On {day} the gate is open from nine until dusk."),
    ("How do I look after {plant}?", "Give your {plant} water in the morning and some shade at noon."),
    ("Can I pick up {plant} on {day}?", "Of course, I will put the {plant} aside until {day}."),
    ("What goes well with {plant}?", "Between {plant} I would plant a little lavender."),
)

cli = typer.Typer(no_args_is_help=True, add_completion=False)


def person2(*arguments: str, home: Path, typed: str = "") -> str:
    """The output of the program. Raises CalledProcessError where it fails."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PERSON2_")}
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "person2", *arguments],
        cwd=home,
        # With the kernels that every machine has, the replies are the same everywhere.
        env={**own, "PYTHONPATH": str(DOCS.parent), "PERSON2_HOME": str(home), "PERSON2_KERNELS": "c"},
        input=typed,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def conversation() -> list[tuple[str, str]]:
    """What the bundled model answers to each of `LINES`."""
    with tempfile.TemporaryDirectory() as home:
        typed = "".join(f"{line}\n" for line in LINES)
        replies = person2("chat", "--seed", str(SEED), home=Path(home), typed=typed).splitlines()
    return list(zip(LINES, replies, strict=True))


@cli.command()
def terminal(out: Annotated[Path, typer.Option(help="The picture to write.")] = DOCS / "terminal.svg") -> None:
    """Have a conversation with the bundled model and draw it as a terminal window."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.assemble(("$ ", "green"), f"person2 chat --seed {SEED}"))
        for said, reply in conversation():
            console.print(Text.assemble(("Person1: ", "bold"), said))
            console.print(Text.assemble(("Person2: ", "bold magenta"), reply))
    out.write_text(
        console.export_svg(title="Person2", theme=SVG_EXPORT_THEME, code_format=SVG, unique_id="terminal"),
        encoding="utf-8",
    )


def dialogues() -> str:
    """Dialogues of an imaginary garden shop, always the same."""
    rng = random.Random(0)  # noqa: S311 - no secret
    found = []
    for first, second in itertools.permutations(EXCHANGES, 2):
        for plant in rng.sample(PLANTS, 6):
            words = {"plant": plant, "day": rng.choice(DAYS)}
            turns = [("Person1", first[0]), ("Person2", first[1]), ("Person1", second[0]), ("Person2", second[1])]
            found.append("".join(f"{speaker}: {text.format(**words)}\n" for speaker, text in turns))
    rng.shuffle(found)
    return "\n".join(found)


@cli.command()
def report(out: Annotated[Path, typer.Option(help="The picture to write.")] = DOCS / "report.png") -> None:
    """Train a small adapter and take a screenshot of its report; takes some minutes and needs Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise typer.BadParameter("The screenshot is taken by Chromium: install it first.")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "garden.txt").write_text(dialogues(), encoding="utf-8")
        person2("train", "garden.txt", "--name", "garden", home=home)
        page = home / "runs" / "garden" / "report.html"
        subprocess.run(  # noqa: S603 - found on the path
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--user-data-dir={home / 'browser'}", "--window-size=1000,1110"),
                *(f"--screenshot={out.resolve()}", page.as_uri()),
            ],
            check=True,
            capture_output=True,
        )


if __name__ == "__main__":
    cli()
