"""The health check: a running bot writes a heartbeat file in its home and notifies systemd; `person2 alive` reads the
files.

Knows files, their age and systemd's notification socket
(https://www.freedesktop.org/software/systemd/man/sd_notify.html); knows no platform: the bots are asked.
"""

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from core.atomic_io import try_lock

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
"""How often the event loop writes a heartbeat."""

STALE_SECONDS = 3 * BEAT_SECONDS
"""A heartbeat older than this means that the bot hangs or was killed: two may be late on a busy machine."""

RECORD_BYTES = 512
"""A heartbeat is one block of this size, written in one call, so that a reader never sees half of it."""

MAX_BOTS = 100
"""Bots of one platform on one home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSource:
    """A running bot, as the health check asks it."""

    name: str
    """The platform: `discord`, `slack`."""
    ready: Callable[[], bool]
    """Whether its platform can reach it now."""
    trouble: Callable[[], str | None] = lambda: None
    """What is wrong with receiving or posting, as a verb and its object; None if nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The last heartbeat of a bot."""

    name: str
    """The platform, with a number where several bots of one platform share a home: `discord`, `discord-2`."""
    age: float
    """Seconds since then."""
    ready: bool
    trouble: str | None

    @property
    def fault(self) -> str | None:
        """A sentence for the operator; None for a healthy bot."""
        if self.age > STALE_SECONDS:
            return (
                f"{self.name}: the last heartbeat was {self.age:.0f} s ago; "
                "read the bot's log, and restart it if it hangs or has stopped."
            )
        if self.trouble:
            return f"{self.name}: {'connected, but ' if self.ready else ''}{self.trouble}; read the bot's log."
        if not self.ready:
            return f"{self.name}: the bot is not connected; read its log."
        return None


def folder(home: Path) -> Path:
    """The folder of the heartbeat files: one for each bot, deleted when the bot ends in order."""
    return home / "heartbeats"


def heartbeats(home: Path, platform: str | None = None) -> list[Heartbeat]:
    """The last heartbeat of every bot on this home, or of those of one platform."""
    now = time.time()
    found = []
    for file in sorted(folder(home).glob("*.json"), key=lambda file: file.stem):
        if platform is not None and file.stem.partition("-")[0] != platform:
            continue
        try:
            written_at = file.stat().st_mtime
            record = json.loads(file.read_text(encoding="utf-8"))
            ready, trouble = bool(record["ready"]), record["trouble"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a bot that is starting or ending at this moment
        found.append(Heartbeat(name=file.stem, age=max(0.0, now - written_at), ready=ready, trouble=trouble))
    return found


async def beat(
    home: Path, sources: Sequence[HealthSource], *, notify: str | None = None, every: float = BEAT_SECONDS
) -> None:
    """Until cancelled: write each bot's heartbeat, and reset systemd's watchdog (`notify` is NOTIFY_SOCKET).

    systemd restarts a process whose event loop hangs. A restart does not help a bot that waits for its platform, so the
    watchdog is reset then too, and `person2 alive` reports it.
    """
    _tell(notify, "READY=1")
    with ExitStack() as stack:
        stack.callback(_tell, notify, "STOPPING=1")
        files: list[tuple[HealthSource, int]] = []
        while True:
            if not files:
                try:
                    with ExitStack() as claims:
                        files = [(source, claims.enter_context(_claimed(home, source.name))) for source in sources]
                        stack.push(claims.pop_all())
                except OSError as error:
                    log.warning("no heartbeat can be written in %s: %s", folder(home), error)
            states = [(descriptor, source.ready(), source.trouble()) for source, descriptor in files]
            try:
                await asyncio.to_thread(_write, states)
            except OSError as error:
                log.warning("no heartbeat can be written in %s: %s", folder(home), error)
            connected = all(source.ready() for source in sources)
            _tell(notify, f"WATCHDOG=1\nSTATUS={_status(sources, connected=connected)}")
            await asyncio.sleep(every if connected else min(every, 1.0))


def _status(sources: Iterable[HealthSource], *, connected: bool) -> str:
    trouble = next((found for source in sources if (found := source.trouble())), None)
    return trouble or ("connected" if connected else "connecting")


@contextmanager
def _claimed(home: Path, name: str) -> Iterator[int]:
    """A descriptor of a heartbeat file that this bot alone writes: the first of `name`, `name-2` … that no running bot
    holds.

    The lock on it ends with the process, so a bot that was killed leaves a file that the next one takes over.
    """
    folder(home).mkdir(parents=True, exist_ok=True)
    for number in range(1, MAX_BOTS):
        file = folder(home) / f"{name}.json" if number == 1 else folder(home) / f"{name}-{number}.json"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        if try_lock(descriptor):
            break
        os.close(descriptor)
    else:
        raise OSError(f"{MAX_BOTS} bots of {name} already run on this PERSON2_HOME")
    try:
        yield descriptor
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(descriptor)


def _write(states: Iterable[tuple[int, bool, str | None]]) -> None:
    for descriptor, ready, trouble in states:
        record = json.dumps({"ready": ready, "trouble": trouble}, ensure_ascii=True)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, record.encode()[: RECORD_BYTES - 1].ljust(RECORD_BYTES - 1) + b"\n")


def _tell(address: str | None, words: str) -> None:
    """One datagram to systemd; an address that begins with @ is an abstract one."""
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.setblocking(False)
        line.sendto(words.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
