"""A bot's process that is told to stop, or killed, in the middle of a reply: what was asked is answered once."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest
from aiohttp import web

from tests import discord_server, slack_server
from tests.discord_server import DiscordServer
from tests.fakes import until
from tests.slack_server import SlackServer

ROOT = Path(__file__).parents[2]


class Model:
    """A completions server that says “hello” once its gate is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = 0
        self.url = ""

    async def complete(self, request: web.Request) -> web.Response:
        self.asked += 1
        await self.gate.wait()
        usage = {"prompt_tokens": 5, "completion_tokens": 1}
        return web.json_response({"choices": [{"text": " hello", "finish_reason": "stop"}], "usage": usage})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "talk", "max_model_len": 512}]})


@asynccontextmanager
async def serving() -> AsyncIterator[Model]:
    model, app = Model(), web.Application()
    app.add_routes([web.post("/v1/completions", model.complete), web.get("/v1/models", model.models)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    model.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield model
    finally:
        await runner.cleanup()


class Platform(Protocol):
    """A compatible server with one bot's process connected to it."""

    name: str
    variables: dict[str, str]

    def connected(self) -> int: ...
    async def asked(self, text: str) -> None: ...
    def said(self) -> list[str]: ...


class OnSlack:
    name = "slack"

    def __init__(self, server: SlackServer) -> None:
        self.server = server
        self.variables = {
            "SLACK_API_URL": server.api_url,
            "SLACK_BOT_TOKEN": slack_server.BOT_TOKEN,
            "SLACK_APP_TOKEN": slack_server.APP_TOKEN,
        }

    def connected(self) -> int:
        return self.server.connections

    async def asked(self, text: str) -> None:
        await self.server.says(f"<@{slack_server.BOT_USER}> {text}", ts=f"{time.time():.6f}")  # old ones are let go

    def said(self) -> list[str]:
        return [post.text for post in self.server.posts]


class OnDiscord:
    name = "discord"

    def __init__(self, server: DiscordServer) -> None:
        self.server = server
        self.ann = server.person("Ann")
        self.variables = {"DISCORD_API_BASE": server.api, "DISCORD_TOKEN": discord_server.TOKEN}

    def connected(self) -> int:
        return self.server.identifies

    async def asked(self, text: str) -> None:
        self.ann.says(f"{self.ann.bot} {text}")

    def said(self) -> list[str]:
        return self.server.posts()


@asynccontextmanager
async def platform(name: str) -> AsyncIterator[Platform]:
    if name == "slack":
        async with SlackServer("socket") as slack:
            yield OnSlack(slack)
    else:
        async with discord_server.serving() as discord:
            clock = discord.backend.clock
            clock.advance((datetime.now(UTC) - clock.now()).total_seconds())  # old questions are let go
            yield OnDiscord(discord)


@asynccontextmanager
async def bot(there: Platform, model: Model, home: Path) -> AsyncIterator[Process]:
    """`person2 slack` or `person2 discord` as an operator starts it, connected."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLACK_", "DISCORD_", "PERSON2_"))}
    before = there.connected()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "person2", there.name),
        cwd=home,
        env={
            **own,
            **there.variables,
            "PYTHONPATH": str(ROOT),
            "PERSON2_HOME": str(home),
            "PERSON2_ADAPTER": "none",
            "PERSON2_GENERATOR": "remote",
            "PERSON2_REMOTE_URL": model.url,
            "PERSON2_REMOTE_MODEL": "talk",
        },
    )
    try:
        await until(lambda: there.connected() > before or process.returncode is not None, 60)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


PLATFORMS = pytest.mark.parametrize("name", ["slack", "discord"])


@PLATFORMS
async def test_what_is_being_said_is_finished(tmp_path: Path, name: str) -> None:
    """SIGTERM while the model thinks: the reply is posted, then the process ends, well."""
    async with platform(name) as there, serving() as model, bot(there, model, tmp_path) as process:
        await there.asked("hi")
        await until(lambda: model.asked == 1)
        process.send_signal(signal.SIGTERM)
        await there.asked("too late?")
        model.gate.set()
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert there.said() == ["hello"]


@PLATFORMS
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_what_was_cut_off_is_answered_after_the_next_start(
    tmp_path: Path, name: str, number: signal.Signals
) -> None:
    """Killed while the model thinks, or stopped and out of patience: the next process answers, once."""
    async with platform(name) as there, serving() as model:
        async with bot(there, model, tmp_path) as process:
            await there.asked("hi")
            await until(lambda: model.asked == 1)
            process.send_signal(number)
            if number is signal.SIGTERM:  # twice: at once
                process.send_signal(number)
            await asyncio.wait_for(process.wait(), 60)
        model.gate.set()
        async with bot(there, model, tmp_path):
            await until(lambda: there.said() == ["hello"])
        async with bot(there, model, tmp_path):
            await there.asked("and now?")
            await until(lambda: len(there.said()) == 2)
        assert there.said() == ["hello", "hello"]
