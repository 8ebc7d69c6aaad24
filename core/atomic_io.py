"""Files that other processes may read meanwhile: written as a whole or not at all.

Knows how operating systems replace, flush and lock files; nothing of what the files hold.
"""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


def read_text(path: Path) -> str:
    """The file's text; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def write_atomically(path: Path, text: str) -> None:
    """Whoever reads `path` sees the old text or the new one, even if the machine dies here."""
    beside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with open(beside, "x", encoding="utf-8", opener=private_opener) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def private_opener(path: str, flags: int) -> int:
    """For `open(..., opener=…)`: a new file is its owner's alone, whatever the umask."""
    return os.open(path, flags, 0o600)


def make_private(folder: Path) -> None:
    """Remove others' access to a folder and everything in it. Files of other users and the targets of links are left as
    they are."""
    for path in (folder, *folder.rglob("*")):
        with suppress(OSError):
            mode = path.lstat().st_mode
            if mode & 0o077 and not stat.S_ISLNK(mode):
                path.chmod(stat.S_IMODE(mode) & 0o700)


def flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


if os.name == "nt":  # pragma: no cover - the locks of Windows
    import msvcrt

    def lock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined,unused-ignore] # Windows only

    def try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore] # Windows only
        except OSError:
            return False
        return True

    def lock_shared(descriptor: int) -> None:
        """Python's library has no shared lock for Windows: the process that comes first holds the lock for all."""
        try_lock(descriptor)

    def lock_of(folder: Path) -> Path:
        """The file that is locked for a whole folder."""
        return folder / ".lock"

    def open_lock_of(folder: Path) -> int:
        return os.open(lock_of(folder), os.O_RDWR | os.O_CREAT)

    def flush_folder(folder: Path) -> None:
        """Windows has no such thing as flushing a folder."""
else:
    import fcntl

    def lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def try_lock(descriptor: int) -> bool:
        """Lock the file without waiting; False where another process holds it. The lock ends with the process."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def lock_shared(descriptor: int) -> None:
        """A shared lock: several processes may hold it, but not while one holds the exclusive lock."""
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    def lock_of(folder: Path) -> Path:
        """What is locked for a whole folder: the folder itself, so that the lock goes with it."""
        return folder

    def open_lock_of(folder: Path) -> int:
        return os.open(lock_of(folder), os.O_RDONLY)

    def flush_folder(folder: Path) -> None:
        """A rename survives a crash only once its folder is flushed."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
