"""Every module is importable on macOS and Windows, as far as Linux can pretend to be one of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("system", ["macOS", "Windows"])
def test_every_module_is_imported(system: str) -> None:
    """Without what Python has on Linux or on Unix alone; locks, signals and the size of memory have their other way."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_system", system],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[0]) > 100
