"""The C files here → one library that holds every kind of kernels of a machine, by any C compiler.

Knows compilers and their options; imports nothing of ours, so that the build of a wheel can run this file by itself.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parent
COMPILERS = ("cc", "gcc", "clang")
COMMON = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fvisibility=hidden")
"""No contraction: a row's bits must not depend on how the compiler fused the loop around it."""
_AVX2 = ("-DAVX2", "-mavx2", "-mfma", "-mf16c")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni")
KINDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "x86_64": {
        "avx512": ("-DAVX512", "-mavx2", "-mfma", "-mf16c", *_AVX512),
        "avxvnni": (*_AVX2, "-DVNNI", "-mavxvnni"),
        "avx2": _AVX2,
        "c": (),
    },
    "aarch64": {
        "i8mm": ("-DNEON", "-DMATMUL", "-mcpu=generic+dotprod+i8mm"),
        "neon": ("-DNEON", "-mcpu=generic+dotprod"),
        "c": (),
    },
}
"""What each kind of a machine is compiled with; machines that are not here get plain C."""
ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
TIMEOUT = 300.0
"""Seconds a compiler may take: a Raspberry Pi needs half a minute."""


class BuildError(Exception):
    """No library came of it; the message says why."""


def machine_of(name: str) -> str:
    """`platform.machine()` by one name a machine."""
    return ALIASES.get(name.lower(), name.lower())


def suffix_of(system: str) -> str:
    return {"darwin": ".dylib", "windows": ".dll"}.get(system.lower(), ".so")


def sources_hash() -> str:
    """Names a library by what it was made of, so that one of other sources is never taken for it."""
    digest = hashlib.sha256()
    for path in sorted([*FOLDER.glob("*.[ch]"), Path(__file__)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def file_name(machine: str, system: str) -> str:
    return f"kernels-{machine_of(machine)}-{sources_hash()}{suffix_of(system)}"


def local_compiler() -> list[str] | None:
    """The command of a C compiler on this machine: its own, else the `ziglang` package's."""
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if found is not None:
        return [found]
    return zig() if find_spec("ziglang") else None


def zig(target: str | None = None) -> list[str]:
    return [sys.executable, "-m", "ziglang", "cc", *(("-target", target) if target else ())]


def build(compiler: Sequence[str], target: Path, *, machine: str, system: str) -> None:
    """Make the library `target` for a machine and a system (`linux`, `darwin`, `windows`). Raises BuildError.

    It appears whole or not at all: two programs that start together do not see half of one.
    """
    windows = system.lower() == "windows"
    libraries = () if windows else ("-pthread", "-lm")
    _make(compiler, target, machine, options=() if windows else ("-fPIC",), link=("-shared", "-s"), libraries=libraries)


def program(compiler: Sequence[str], target: Path, *, machine: str, source: Path) -> None:
    """Make a Linux program of the kernels and the C file `source`: a test that needs no Python. Raises BuildError."""
    libraries = ("-pthread", "-lm")
    _make(compiler, target, machine, options=(), link=(*COMMON, "-static", str(source)), libraries=libraries)


def _make(
    compiler: Sequence[str],
    target: Path,
    machine: str,
    *,
    options: Sequence[str],
    link: Sequence[str],
    libraries: Sequence[str],
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    objects = {name: ("rows.c", (f"-DKIND={name}", *own)) for name, own in kinds_of(machine).items()}
    objects |= {"step": ("step.c", ()), "kinds": ("kinds.c", ())}
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:

        def compiled(name: str) -> str:
            source, own = objects[name]
            made = str(Path(folder) / f"{name}.o")
            _run([*compiler, *COMMON, *options, *own, "-c", str(FOLDER / source), "-o", made])
            return made

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            made = list(pool.map(compiled, objects))
        whole = Path(folder) / target.name
        _run([*compiler, *link, *made, "-o", str(whole), *libraries])
        whole.replace(target)


def kinds_of(machine: str) -> Mapping[str, tuple[str, ...]]:
    return KINDS.get(machine, {"c": ()})


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)  # noqa: S603 - nothing in it comes from outside
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise BuildError(f"{command[0]}: {done.stderr.strip()[:300]}")
