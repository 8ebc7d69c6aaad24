"""Is the running bot well? It leaves a sign of life in its folder and tells systemd; `person2 alive` looks at the sign.

Knows a file's age and systemd's notification socket (https://www.freedesktop.org/software/systemd/man/sd_notify.html);
knows no platform: whether the bots are connected is asked of them.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
"""How often the event loop leaves its sign."""

STALE_SECONDS = 3 * BEAT_SECONDS
"""A sign older than this is none: two beats may be lost to a busy machine."""


def sign_of_life(home: Path) -> Path:
    """The file whose age tells: there only while a bot runs, touched only while every bot is connected."""
    return home / "alive"


def age(home: Path) -> float | None:
    """Seconds since the last sign of life; None where no bot runs or none was ever connected."""
    try:
        return max(0.0, time.time() - sign_of_life(home).stat().st_mtime)
    except OSError:
        return None


async def beat(
    home: Path, *, ready: Callable[[], bool], notify: str | None = None, every: float = BEAT_SECONDS
) -> None:
    """Until cancelled: touch the file while `ready`, and pet systemd's watchdog (`notify` is NOTIFY_SOCKET) always.

    Systemd restarts what no longer turns; a bot that waits for its platform to come back is not helped by a restart,
    so for systemd turning is enough, and `person2 alive` tells the rest.
    """
    file = sign_of_life(home)
    _tell(notify, "READY=1")
    try:
        while True:
            connected = ready()
            if connected:
                try:
                    await asyncio.to_thread(_touch, file)
                except OSError as error:
                    log.warning("no sign of life can be left at %s: %s", file, error)
            _tell(notify, f"WATCHDOG=1\nSTATUS={'connected' if connected else 'connecting'}")
            await asyncio.sleep(every if connected else min(every, 1.0))
    finally:
        _tell(notify, "STOPPING=1")
        with suppress(OSError):
            file.unlink()


def _touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def _tell(address: str | None, words: str) -> None:
    """One datagram to systemd; an address that begins with @ is an abstract one."""
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.setblocking(False)
        line.sendto(words.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
