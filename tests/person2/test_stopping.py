"""A bot's process that is told to stop, or killed, in the middle of a reply: what was asked is answered once."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests import slack_server
from tests.fakes import until
from tests.slack_server import SlackServer

ROOT = Path(__file__).parents[2]
ME = f"<@{slack_server.BOT_USER}>"


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


@asynccontextmanager
async def bot(slack: SlackServer, model: Model, home: Path) -> AsyncIterator[Process]:
    """`person2 slack` as an operator starts it, connected to that Slack."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLACK_", "PERSON2_"))}
    before = slack.connections
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "person2", "slack"),
        cwd=home,
        env={
            **own,
            "PYTHONPATH": str(ROOT),
            "PERSON2_HOME": str(home),
            "PERSON2_ADAPTER": "none",
            "PERSON2_GENERATOR": "remote",
            "PERSON2_REMOTE_URL": model.url,
            "PERSON2_REMOTE_MODEL": "talk",
            "SLACK_API_URL": slack.api_url,
            "SLACK_BOT_TOKEN": slack_server.BOT_TOKEN,
            "SLACK_APP_TOKEN": slack_server.APP_TOKEN,
        },
    )
    try:
        await slack.until(lambda: slack.connections > before or process.returncode is not None, 60)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_what_is_being_said_is_finished(tmp_path: Path) -> None:
    """SIGTERM while the model thinks: the reply is posted, then the process ends, well."""
    async with SlackServer("socket") as slack, serving() as model, bot(slack, model, tmp_path) as process:
        await slack.says(f"{ME} hi")
        await until(lambda: model.asked == 1)
        process.send_signal(signal.SIGTERM)
        await slack.says(f"{ME} too late", user="UBEN")
        model.gate.set()
        assert (await slack.post(1)).text == "hello"
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert len(slack.posts) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_what_was_cut_off_is_answered_after_the_next_start(tmp_path: Path, number: signal.Signals) -> None:
    """Killed while the model thinks, or stopped and out of patience: the next process answers, once."""
    async with SlackServer("socket") as slack, serving() as model:
        async with bot(slack, model, tmp_path) as process:
            await slack.says(f"{ME} hi", ts=f"{time.time():.6f}")  # old questions are let go
            await until(lambda: model.asked == 1)
            process.send_signal(number)
            if number is signal.SIGTERM:  # twice: at once
                process.send_signal(number)
            await asyncio.wait_for(process.wait(), 60)
        model.gate.set()
        async with bot(slack, model, tmp_path):
            assert (await slack.post(1)).text == "hello"
        async with bot(slack, model, tmp_path):
            await slack.says(f"{ME} and now?")
            await slack.post(2)
        assert [post.text for post in slack.posts] == ["hello", "hello"]
