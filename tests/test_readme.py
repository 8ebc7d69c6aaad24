"""The commands of the README and of docs/, executed as they stand, in an empty folder with an empty home."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Each fenced block of a page with its language."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """The lines that a reader copies into a shell."""
    shell = [block for language, block in blocks(page) if language == "sh"]
    return [line.split("  #")[0].strip() for block in shell for line in block.splitlines() if line.strip()]


DIALOGUES = next(block for language, block in blocks(ROOT / "docs" / "teaching.md") if block.startswith("Person1:"))


def run(command: str, folder: Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    """A shell line of the README; the installed program is this checkout's."""
    program = f"{shlex.quote(sys.executable)} -m person2"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DISCORD_", "SLACK_"))},
        "PYTHONPATH": str(ROOT),
        "PERSON2_HOME": str(folder / "home"),
    }
    return subprocess.run(  # noqa: S602 - the README's own lines
        command.replace(".venv/bin/person2", program),
        shell=True,
        cwd=folder,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture(scope="module")
def folder(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder for each page, with the dialogue file that docs/teaching.md shows, also as held-out file."""
    made = tmp_path_factory.mktemp(page.stem)
    (made / "my-dialogues.txt").write_text(DIALOGUES, encoding="utf-8")
    (made / "held-out.txt").write_text(DIALOGUES, encoding="utf-8")
    return made


def test_every_command_works(page: Path, folder: Path) -> None:
    """Every line a newcomer copies runs, in the order in which the page has them."""
    for command in commands(page):
        if command.startswith("make "):
            continue
        done = run(command, folder, typed="Hello!\n")
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert "Traceback" not in done.stderr
        if " chat" in command:
            assert len(done.stdout.splitlines()) == 1
            assert done.stdout.strip()


def test_links_to_files_lead_somewhere(page: Path) -> None:
    """Every relative link and picture of a page exists."""
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_two_make_commands_are_there() -> None:
    """The README promises `make chat` and `make test`; only their plan is checked here, since `make test` runs us."""
    assert [line for line in commands(README) if line.startswith("make ")][:2] == ["make chat", "make test"]
    for target in ("chat", "test"):
        plan = subprocess.run(
            ["make", "--dry-run", "--always-make", target],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert ("person2 chat" in plan) is (target == "chat")
        assert ("/pytest" in plan) is (target == "test")


def test_make_chat_answers_piped_lines(tmp_path: Path) -> None:
    """From a set-up checkout `make chat` goes straight to the conversation."""
    if not (ROOT / ".venv" / ".ready").exists():
        pytest.skip("no .venv here: these tests were not started by make")
    environment = {**os.environ, "PERSON2_HOME": str(tmp_path)}
    for told_by_the_outer_make in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        environment.pop(told_by_the_outer_make, None)
    done = subprocess.run(
        ["make", "chat"],
        cwd=ROOT,
        env=environment,
        input="Hello!\nHow are you?\n",
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 2
