"""A Discord server on loopback with the real bot in a process of its own, and people who talk to it continuously.

Knows the tests' server, the program's commands and its database file; checks nothing.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.notices import BROKEN, CROWDED, TOO_FAST, WORDLESS
from tests.discord_server import TOKEN, DiscordServer, Person

PATIENCE = 120.0
"""Seconds after which an answer counts as lost."""
REFUSALS = (BROKEN, CROWDED, TOO_FAST, WORDLESS)
MOST = 300
"""Characters of a question."""


class WallClock:
    """The server's clock: real time, so that messages and consents share one clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def advance(self, seconds: float) -> None:
        """Real time needs no help."""


@dataclass(slots=True, kw_only=True)
class Question:
    """A question and its answer; times are seconds since 1970."""

    asked: float
    answered: float = 0.0
    post: str = ""
    text: str = ""

    @property
    def wait(self) -> float:
        return self.answered - self.asked

    @property
    def failed(self) -> bool:
        return not self.answered or self.text.startswith(REFUSALS)


@dataclass(slots=True, kw_only=True)
class Done:
    """A command that ended."""

    status: int
    out: str
    err: str
    seconds: float


@dataclass
class Town:
    """Start with `async with`. `home` is PERSON2_HOME of the bot and of every command."""

    home: Path
    base: str
    server: DiscordServer = field(default_factory=DiscordServer)
    requests: list[Question] = field(default_factory=list)
    lines: list[tuple[float, str]] = field(default_factory=list)
    """What the bot wrote to its log, and when."""

    def __post_init__(self) -> None:
        self.server.backend.clock = WallClock()  # type: ignore[assignment]  # simcord's own stands still
        self.server.backend.subscribers.append(self._heard)
        self._waiting: dict[str, asyncio.Future[tuple[float, str, str]]] = {}
        self._quiet = asyncio.Event()
        self._crowd: list[asyncio.Task[None]] = []
        self._bot: asyncio.subprocess.Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PERSON2_HOME": str(self.home),
            "PERSON2_BASE_MODEL": self.base,
            "PERSON2_LOG_FOR_TRAINING": "consented",
            "PERSON2_USER_RATE": "0",
            "DISCORD_TOKEN": TOKEN,
            "DISCORD_API_BASE": self.server.api,
        }

    async def __aenter__(self) -> "Town":
        await self.server.start()
        return self

    async def __aexit__(self, *caught: object) -> None:
        await self.quiet_down()
        await self.stop_bot()
        await self.server.stop()

    # The bot and the commands

    async def start_bot(self) -> float:
        """Seconds until it is connected."""
        began = time.monotonic()
        command = (sys.executable, "-m", "person2", "discord")
        self._bot = await asyncio.create_subprocess_exec(
            *command, env=self.environment, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        self._reader = asyncio.create_task(self._read(self._bot))
        while not (self.server.sessions and self.server.session.socket):
            if self._bot.returncode is not None:
                raise SystemExit("the bot did not start:\n" + "\n".join(line for _, line in self.lines))
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def stop_bot(self) -> int | None:
        """Its exit status after SIGTERM."""
        bot, self._bot = self._bot, None
        if bot is None:
            return None
        if bot.returncode is None:
            bot.terminate()
        status = await bot.wait()
        await self._reader
        return status

    async def _read(self, bot: asyncio.subprocess.Process) -> None:
        assert bot.stderr is not None
        async for line in bot.stderr:
            self.lines.append((time.time(), line.decode(errors="replace").rstrip()))

    async def logged(self, words: str, *, since: float, within: float = PATIENCE) -> float | None:
        """When these words first appeared in the bot's log, or None."""
        end = time.time() + within
        while time.time() < end:
            found = next((moment for moment, line in self.lines if moment >= since and words in line), None)
            if found is not None:
                return found
            await asyncio.sleep(0.05)
        return None

    async def command(self, *words: str) -> Done:
        """Run `person2 WORDS` while people go on talking."""
        began = time.monotonic()
        process = await self.begin(*words)
        out, err = await process.communicate()
        return Done(
            status=process.returncode or 0,
            out=out.decode(errors="replace"),
            err=err.decode(errors="replace"),
            seconds=time.monotonic() - began,
        )

    async def begin(self, *words: str) -> asyncio.subprocess.Process:
        """Start it without waiting."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "person2", *words),
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    # People

    def channel(self, name: str) -> int:
        return int(self.server.backend.create_channel(self.server.guild.id, name).id)

    async def ask(self, person: Person, text: str, *, where: int) -> Question:
        """Mention the bot and wait for its answer."""
        said = person.says(f"{person.bot} {text[:MOST]}", where=where)
        request = Question(asked=time.time())
        self.requests.append(request)
        answer = self._waiting[str(said.id)] = asyncio.get_running_loop().create_future()
        with contextlib.suppress(TimeoutError):
            request.answered, request.text, request.post = await asyncio.wait_for(answer, PATIENCE)
        return request

    def crowd(self, people: int, lines: Sequence[str]) -> None:
        """Start so many people talking continuously, each in a channel of their own."""
        for number in range(people):
            member = self.server.person(f"Talker{number}")
            own = itertools.cycle(lines[number::people])
            self._crowd.append(asyncio.create_task(self._talk(member, self.channel(f"talk-{number}"), own)))

    async def _talk(self, member: Person, where: int, lines: Iterator[str]) -> None:
        while not self._quiet.is_set():
            await self.ask(member, next(lines), where=where)

    async def quiet_down(self) -> None:
        """Stop the crowd once everybody has their last answer."""
        self._quiet.set()
        await asyncio.gather(*self._crowd)
        self._crowd.clear()

    def _heard(self, event: str, payload: Any) -> None:
        """Resolve the question that a post of the bot's replies to."""
        if event != "MESSAGE_CREATE" or payload["author"]["id"] != str(self.server.backend.bot_user.id):
            return
        answered = (payload.get("message_reference") or {}).get("message_id")
        future = self._waiting.pop(str(answered), None)
        if future is not None and not future.done():
            future.set_result((time.time(), payload["content"], str(payload["id"])))

    # What is stored

    def adapters(self) -> dict[str, str]:
        """Post → the adapter that generated it, `none` for the bare base."""
        database = sqlite3.connect(f"file:{self.home / 'person2.db'}?mode=ro", uri=True, timeout=10)
        with contextlib.closing(database):
            rows = database.execute(
                "SELECT post_id, adapter FROM posts JOIN messages AS said ON said.id = posts.message_id"
            )
            return {str(post): adapter or "none" for post, adapter in rows}


async def kill(process: asyncio.subprocess.Process) -> None:
    """Kill the process with SIGKILL."""
    process.send_signal(signal.SIGKILL)
    await process.communicate()
