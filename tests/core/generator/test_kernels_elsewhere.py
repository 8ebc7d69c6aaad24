"""The kernels of processors that this machine is not: aarch64 under emulation, beside this machine's own.

A small program in C (`kernels_check.c`) puts a random model through every kind. Plain C computes the same bits
everywhere, and it is held against transformers elsewhere; so it is the measure for the others.
"""

import platform
import shutil
import struct
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from core.generator.engine.kernels import build

CHECK = Path(__file__).with_name("kernels_check.c")
EMULATOR = shutil.which("qemu-aarch64")
KINDS = {machine: tuple(build.kinds_of(machine)) for machine in ("x86_64", "aarch64")}

pytestmark = pytest.mark.skipif(not find_spec("ziglang"), reason="no ziglang to compile for other machines")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@cache
def program(folder: Path, machine: str) -> Path:
    """The check as a program of its own, which needs nothing of the system it runs on."""
    made = folder / machine
    build.program(build.zig(f"{machine}-linux-musl"), made, machine=machine, source=CHECK)
    return made


def logits(folder: Path, machine: str, model: str) -> dict[str, tuple[float, ...]]:
    """What each kind of a machine computes; rows that have other bits in company than alone fail here."""
    emulator = [] if machine == build.machine_of(platform.machine()) else [str(EMULATOR), "-cpu", "max"]
    command = [*emulator, str(program(folder, machine)), model, *KINDS[machine]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    found: dict[str, tuple[float, ...]] = {}
    for line in done.stdout.splitlines():
        kind, company, *bits = line.split()
        assert company == "same", kind
        found[kind] = struct.unpack(f">{len(bits)}f", bytes.fromhex("".join(bits)))
    return found


def error(found: tuple[float, ...], right: tuple[float, ...]) -> float:
    """Root mean square of the difference, against that of the right logits."""
    wrong = sum((a - b) ** 2 for a, b in zip(found, right, strict=True))
    return float((wrong / sum(b * b for b in right)) ** 0.5)


@pytest.mark.skipif(platform.system() != "Linux", reason="the program is made for Linux")
@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_the_kinds_of_this_machine_agree(programs: Path, model: str) -> None:
    """Every kind this processor runs is near plain C, and those that round alike are nearer."""
    found = logits(programs, build.machine_of(platform.machine()), model)
    assert "c" in found
    assert all(error(values, found["c"]) < 0.02 for values in found.values())


@pytest.mark.skipif(EMULATOR is None, reason="no qemu-aarch64 (Debian: qemu-user)")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="aarch64 is emulated on x86-64 only")
@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_aarch64_computes_what_x86_does(programs: Path, model: str) -> None:
    """Plain C has the same bits, dot products and matrix products have the same as each other, all are near."""
    here, there = logits(programs, "x86_64", model), logits(programs, "aarch64", model)
    assert set(there) == {"c", "neon", "i8mm"}
    assert there["c"] == here["c"]
    assert there["neon"] == there["i8mm"]
    assert error(there["neon"], here["c"]) < 0.02
