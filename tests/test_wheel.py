"""The installed wheel works from an empty folder: migrations, the starter model and package data are inside."""

import os
import platform
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from core.generator.engine.kernels import build

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


def test_the_wheel_brings_the_kernels(installed: Path) -> None:
    """The library that this machine looks for lies beside its sources, so no compiler is needed."""
    name = build.file_name(platform.machine(), platform.system())
    assert (installed / "core/generator/engine/kernels" / name).is_file()


@pytest.mark.skipif(not find_spec("ziglang"), reason="no ziglang to compile for other machines")
def test_a_wheel_of_another_platform(tmp_path: Path) -> None:
    """PERSON2_WHEEL names it: the wheel says so in its name and holds its library; an unknown one is a sentence."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    environment = {**os.environ, "PERSON2_WHEEL": "linux-aarch64"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=600)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl")
    with zipfile.ZipFile(wheel) as packed:
        library = packed.read(f"core/generator/engine/kernels/{build.file_name('aarch64', 'Linux')}")
    assert library[:4] == b"\x7fELF"
    assert int.from_bytes(library[18:20], "little") == 183  # EM_AARCH64 of the ELF format
    environment["PERSON2_WHEEL"] = "amiga"
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode
    assert "PERSON2_WHEEL is amiga, and it should be one of linux-x86_64" in done.stderr + done.stdout


def test_the_wheel_holds_no_tests_and_no_toys(installed: Path) -> None:
    """Users get the program, not our workshop."""
    names = {path.name for path in installed.iterdir()}
    assert {"person2", "core", "bots", "training", "migrations", "models"} <= names
    assert not names & {"tests", "benchmarks", "examples"}


def test_the_wheel_holds_no_recipe(installed: Path) -> None:
    """What made the models stays out; what they need to run, and their cards, are in."""
    assert not list(installed.rglob("recipe"))
    for name in ("starter/model.safetensors", "disentangler/scorer.safetensors"):
        assert (installed / "models" / name).is_file()
        assert (installed / "models" / name).with_name("README.md").is_file()


def test_the_wheel_says_who_answers_whom(installed: Path, tmp_path: Path) -> None:
    """The disentangler finds its weights where they are installed."""
    script = (
        "import sys; from training.data.disentangle import Disentangler, scorer; "
        "assert str(scorer.BUNDLED).startswith(sys.argv[1]); print(Disentangler.load().links([]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(installed)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
