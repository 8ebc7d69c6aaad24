"""The installed wheel works from an empty folder: migrations, the starter model and package data are inside."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, as pip lays it out."""
    dist, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    return site


def test_the_wheel_talks_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """`person2 chat --once` answers, remembers, and imports nothing from the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PERSON2_HOME": str(tmp_path / "home")}
    script = (
        "import sys, core, migrations, person2; "
        "assert all(str(sys.argv[1]) in module.__file__ for module in (core, migrations, person2)); "
        "sys.argv = ['person2', 'chat', '--once', 'Hello!']; person2.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(installed)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert (tmp_path / "home" / "person2.db").exists()


def test_the_wheel_holds_no_tests_and_no_toys(installed: Path) -> None:
    """Users get the program, not our workshop."""
    names = {path.name for path in installed.iterdir()}
    assert {"person2", "core", "bots", "training", "migrations", "models"} <= names
    assert not names & {"tests", "benchmarks", "examples"}
