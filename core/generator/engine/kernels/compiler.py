"""`step.c` → a library in the user's cache folder, where there is a C compiler and a processor for it.

Compiled once for a source, a compiler and a processor, on the machine it runs on; takes two seconds the first time.
Knows nothing of what the library does.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("step.c")
COMPILERS = ("cc", "gcc", "clang")
OPTIONS = ("-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC", "-pthread")
"""No contraction: a row's bits must not depend on how the compiler fused the loop around it."""
NEEDED = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "f16c"})
"""Processor flags as Linux names them."""
TIMEOUT = 60.0
"""Seconds a compiler may take."""


def library(cache: Path, *, processor: Path = Path("/proc/cpuinfo")) -> ctypes.CDLL | None:
    """The compiled library, or None where it cannot be had; the log says why."""
    flags = _flags(processor)
    missing = NEEDED - flags
    if missing:
        log.info("the compiled kernels need %s: using torch's", ", ".join(sorted(missing)))
        return None
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    source = SOURCE.read_bytes()
    about = (source, " ".join(OPTIONS).encode(), " ".join(sorted(flags)).encode(), platform.machine().encode())
    target = cache / f"kernels-{hashlib.sha256(b'|'.join(about)).hexdigest()[:16]}.so"
    try:
        if not target.exists():
            if compiler is None:
                log.info("there is no C compiler: using torch's kernels (gcc makes replies about twice as fast)")
                return None
            _compile(compiler, target)
        return ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("the kernels could not be compiled (%s): using torch's", error)
        return None


def _compile(compiler: str, target: Path) -> None:
    """Into a file of its own, then renamed: two programs that start together do not see half a library."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, made = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    try:
        command = [compiler, *OPTIONS, str(SOURCE), "-o", made, "-lm"]  # nothing in it comes from outside
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)  # noqa: S603
        if done.returncode:
            raise OSError(f"{compiler}: {done.stderr.strip()[:300]}")
        Path(made).replace(target)
    finally:
        Path(made).unlink(missing_ok=True)


def _flags(processor: Path) -> frozenset[str]:
    try:
        for line in processor.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass  # no Linux
    return frozenset()
