"""The C files here → one library with every kind of kernels for a machine, by any C compiler.

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
"""No contraction: a row's bits must not depend on which operations the compiler fuses."""
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
"""The compiler options of each kind of kernels for a machine; other machines get plain C."""
ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
TIMEOUT = 300.0
"""Seconds that a compiler may take; a Raspberry Pi needs half a minute."""


class BuildError(Exception):
    """The library could not be built; the message says why."""


def machine_of(name: str) -> str:
    """`platform.machine()` under one name per machine."""
    return ALIASES.get(name.lower(), name.lower())


def suffix_of(system: str) -> str:
    return {"darwin": ".dylib", "windows": ".dll"}.get(system.lower(), ".so")


def sources_hash() -> str:
    """Part of a library's name, so that one from other sources is never used."""
    digest = hashlib.sha256()
    for path in sorted([*FOLDER.glob("*.[ch]"), Path(__file__)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def file_name(machine: str, system: str) -> str:
    return f"kernels-{machine_of(machine)}-{sources_hash()}{suffix_of(system)}"


def local_compiler() -> list[str] | None:
    """The command of a C compiler: the machine's, else the `ziglang` package's; None where there is none."""
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if found is not None:
        return [found]
    return zig() if find_spec("ziglang") else None


def zig(target: str | None = None) -> list[str]:
    return [sys.executable, "-m", "ziglang", "cc", *(("-target", target) if target else ())]


def build(compiler: Sequence[str], target: Path, *, machine: str, system: str) -> None:
    """Make the library `target` for a machine and a system (`linux`, `darwin`, `windows`). Raises BuildError.

    It is created atomically, so that programs that start together do not see half of it.
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
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)  # noqa: S603 - the command is ours
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise BuildError(f"{command[0]}: {done.stderr.strip()[:300]}")
