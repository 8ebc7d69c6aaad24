"""How much memory there is for keys and values, and returning free memory to the system. Knows nothing of models."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MAX_CACHE_MB = 640
"""On machines of any size; 32 conversations of 512 tokens with GPT-2 small take 320."""
CACHE_SHARE = 8
"""Keys and values take an eighth of the memory at most, unless a setting says otherwise."""
_CGROUPS = ("memory.max", "memory/memory.limit_in_bytes")  # version 2 and version 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h
_LARGE_BLOCK = 1 << 20


def default_cache_mb(root: Path = Path("/")) -> int:
    """Megabytes for keys and values on a machine of this size, or in a container of this size."""
    return max(min(total_memory(root) // 1_000_000 // CACHE_SHARE, MAX_CACHE_MB), 1)


def total_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the machine's, or its control group's where that is less."""
    return min((*_limits(root), physical_memory()))


def _limits(root: Path) -> Iterator[int]:
    for name in _CGROUPS:
        with suppress(OSError, ValueError):  # no Linux, no such version, or `max`
            yield int((root / "sys/fs/cgroup" / name).read_text())


def physical_memory() -> int:
    """Bytes of the machine."""
    if hasattr(os, "sysconf"):
        with suppress(OSError, ValueError):
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(AttributeError, OSError):
        status = (ctypes.c_uint64 * 8)(64)  # MEMORYSTATUSEX: its length, then the physical memory
        if getattr(ctypes, "windll").kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # noqa: B009 - Windows only
            return int(status[1])
    return 4_000_000_000


def return_large_blocks() -> None:
    """Make malloc return large blocks to the system as soon as they are freed, and use few arenas.

    Only for glibc, which by default raises the size from which on it does so with every large block, up to 32 MB.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        library.mallopt(_M_TRIM_THRESHOLD, _LARGE_BLOCK)
        library.mallopt(_M_ARENA_MAX, 2)


def return_free_memory() -> None:
    """Return free memory to the system, where the C library can: 170 MB after packing GPT-2 small."""
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
