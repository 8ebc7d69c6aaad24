"""The documentation's pictures show what the program does today."""

import re
from html import unescape
from pathlib import Path

from core.dialogue import DialogueFault, read
from docs.pictures import SEED, conversation, dialogues

ROOT = Path(__file__).parents[1]


def shown(picture: Path) -> list[str]:
    """The lines of text in a picture of a terminal, top down."""
    lines: dict[float, list[tuple[float, str]]] = {}
    matrix = picture.read_text(encoding="utf-8").partition('class="terminal-matrix"')[2]
    found = re.findall(r'<text [^>]*\bx="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', matrix)
    for x, y, text in found:
        lines.setdefault(float(y), []).append((float(x), unescape(text)))
    return ["".join(text for _, text in sorted(lines[y])).replace("\xa0", " ").strip() for y in sorted(lines)]


def test_the_terminal_and_the_readme_show_what_the_bundled_model_says() -> None:
    """The picture and the README's conversation, line by line, at the same seed."""
    had = conversation()
    said = [line for first, second in had for line in (f"Person1: {first}", f"Person2: {second}")]
    lines = [line for line in shown(ROOT / "docs" / "terminal.svg") if line]
    assert lines == [f"$ person2 chat --seed {SEED}", *said]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"| {first} | {second} |" in readme for first, second in had)


def test_the_report_is_made_from_whole_dialogues() -> None:
    """What the report's adapter is trained on has no fault, and enough of it."""
    found = list(read(dialogues().splitlines()))
    assert not [item for item in found if isinstance(item, DialogueFault)]
    assert len(found) >= 100
