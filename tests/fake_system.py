"""Another operating system, for a program of ours: run with its name, macOS or Windows, by `test_systems.py`.

Third-party libraries are imported first, as they are here. Then `os` and `sys` look to our modules as they would there,
and what Python has on Unix alone is gone. What the system itself does is not pretended.
"""

import asyncio
import importlib
import os
import pkgutil
import platform
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

PACKAGES = ("core", "bots", "training", "migrations", "person2")
MISSING = {
    "macOS": {"os": ("sched_getaffinity", "sched_setaffinity", "posix_fadvise"), "modules": ()},
    "Windows": {
        "os": (
            "sched_getaffinity", "sched_setaffinity", "posix_fadvise", "fork", "getuid", "geteuid", "getgid",
            "getloadavg", "fchmod", "statvfs", "sysconf", "setsid", "killpg", "mkfifo", "O_NOFOLLOW", "O_DIRECTORY",
            "register_at_fork",
        ),
        "modules": ("fcntl", "resource", "pwd", "grp", "termios", "tty", "syslog"),
    },
}  # fmt: skip


class Seen(types.ModuleType):
    """A module as our code sees it: some things other than they are, some missing, the rest as it is."""

    def __init__(self, real: types.ModuleType, missing: tuple[str, ...], **other: Any) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(other)
        self._real, self._missing = real, missing

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            raise AttributeError(name)
        return getattr(self._real, name)


def pretend(system: str) -> None:
    windows = system == "Windows"
    for name in MISSING[system]["modules"]:
        sys.modules[name] = None  # type: ignore[assignment] # importing it now raises ImportError
    if windows:
        locking = {"LK_LOCK": 1, "LK_NBLCK": 2, "LK_UNLCK": 0, "locking": lambda descriptor, mode, size: None}
        sys.modules["msvcrt"] = Seen(types.ModuleType("msvcrt"), (), **locking)
        loop: Any = asyncio.SelectorEventLoop
        loop.add_signal_handler = _not_here
    platform.system = lambda: system if windows else "Darwin"
    platform.machine = lambda: "AMD64" if windows else "arm64"
    # a real `os` of Windows would make pathlib's own paths those of Windows
    sys.modules["os"] = Seen(os, MISSING[system]["os"], name="nt" if windows else "posix")
    sys.modules["sys"] = Seen(sys, (), platform="win32" if windows else "darwin")


def _not_here(*_: Any) -> None:
    raise NotImplementedError


def modules() -> list[str]:
    found = []
    for package in PACKAGES:
        path = [str(Path(__file__).parents[1] / package)]
        found += [package, *(each.name for each in pkgutil.walk_packages(path, f"{package}."))]
    # The compiled kernels lie beside their sources where they were built there; they are a library, no module.
    return [name for name in found if not name.endswith("__main__") and "-" not in name and name != "migrations.env"]


def exercise() -> None:
    """What has a branch of its own there: locks, signals, memory, the name of the library."""
    from core import atomic_io
    from core.generator.engine import memory
    from core.generator.engine.kernels import build
    from person2.cli import bots

    with tempfile.TemporaryDirectory() as folder:
        descriptor = atomic_io.open_lock_of(Path(folder))
        atomic_io.lock_shared(descriptor)
        assert atomic_io.try_lock(descriptor)
        atomic_io.flush_folder(Path(folder))
    assert memory.default_cache_mb() >= 1
    assert build.file_name(platform.machine(), platform.system()).endswith((".dll", ".dylib"))
    bots.run_until_stopped(asyncio.sleep(0))


def main() -> None:
    names = modules()
    for name in names:
        importlib.import_module(name)  # whatever they import of others is there from now on
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        del sys.modules[name]
    pretend(sys.argv[1])
    for name in names:
        importlib.import_module(name)
    exercise()
    sys.stdout.write(f"{len(names)} modules\n")


if __name__ == "__main__":
    main()
