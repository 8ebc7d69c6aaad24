"""The compiled kernels of this machine: beside this file where a wheel contains them, else in the user's cache folder,
where they are compiled once. Knows nothing of what they compute.
"""

import ctypes
import logging
import platform
from dataclasses import dataclass
from pathlib import Path

from core.errors import ModelError
from core.generator.engine.kernels import build

log = logging.getLogger(__name__)

ADVICE = "install gcc, clang or the package ziglang and start again; without compiled kernels replies take much longer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """One kind of kernels, chosen for this processor."""

    library: ctypes.CDLL
    address: int
    name: str
    columns: int
    """Outputs in a block of packed weights."""
    group: int
    """Adjacent inputs of one output; 0: all of them."""
    zero_point: int
    """Added to weights and keys."""


class _KernelsHeader(ctypes.Structure):
    """The beginning of `struct Kernels` in `kernels.h`."""

    _fields_ = [("name", ctypes.c_char_p), *((name, ctypes.c_int64) for name in ("columns", "group", "zero_point"))]


def find_kernels(wanted: str, cache: Path) -> Kernels | None:
    """The kernels called `wanted` (`avx512`, `c` …, or `auto` for the fastest that this processor has).

    None where `auto` finds no library and none can be compiled; the log says why. Raises ModelError where a kind that
    was asked for by name is not available.
    """
    try:
        library = ctypes.CDLL(str(_library(cache)))
    except (OSError, build.BuildError) as error:
        if wanted != "auto":
            raise ModelError(f"the {wanted} kernels are not available ({error}): {ADVICE}") from error
        log.warning("there are no compiled kernels (%s): %s", error, ADVICE)
        return None
    library.person2_kernels.restype, library.person2_kernels.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    names = ("i8mm", "neon") if wanted == "neon" else (wanted,)
    address = next((found for name in names if (found := library.person2_kernels(name.encode()))), None)
    if address is None:
        raise ModelError(f"this processor cannot run the {wanted} kernels: set PERSON2_KERNELS to auto")
    head = _KernelsHeader.from_address(address)
    return Kernels(
        library=library,
        address=address,
        name=head.name.decode(),
        columns=head.columns,
        group=head.group,
        zero_point=head.zero_point,
    )


def _library(cache: Path) -> Path:
    """The library's path. Raises BuildError or OSError where there is none and none can be compiled."""
    machine, system = platform.machine(), platform.system()
    name = build.file_name(machine, system)
    shipped, cached = build.FOLDER / name, cache / name
    if shipped.exists():
        return shipped
    if not cached.exists():
        compiler = build.local_compiler()
        if compiler is None:
            raise build.BuildError("no C compiler")
        build.build(compiler, cached, machine=build.machine_of(machine), system=system)
    return cached
