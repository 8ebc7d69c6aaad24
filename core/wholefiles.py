"""Files that other processes read while they are written: whole or not at all.

Knows the operating system's way of replacing, flushing and locking; nothing of what the files hold.
"""

import os
import secrets
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
        with beside.open("x", encoding="utf-8") as file:  # unlike mkstemp's, readable to whom the umask lets
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


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

    def flush_folder(folder: Path) -> None:
        """A rename lasts only once its folder is on the disk."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
