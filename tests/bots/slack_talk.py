"""A bot at work in a small Slack on loopback: what the Slack tests share."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from tempfile import TemporaryDirectory
from typing import Any

from bots.slack import SlackBot
from bots.slack.timeouts import SlackTimeouts
from core.chat import Chat, ChatSettings
from core.commands import Commands
from core.memory import Memory, open_memory
from tests import fakes, slack_server
from tests.fakes import Clock, FakeGenerator
from tests.slack_server import SlackServer

QUICK = SlackTimeouts(look=0.02, linger=0.2, first_backoff=0.05, longest_backoff=0.2, between_posts=0.0)
"""Scaled down, and without a pace where the server has no limits; but a busy machine is no silent line."""


@dataclass(kw_only=True)
class Talk:
    slack: SlackServer
    bot: SlackBot
    chat: Chat
    memory: Memory
    generator: FakeGenerator
    clock: Clock
    running: asyncio.Task[None]

    async def quiet(self) -> None:
        """Whatever Slack sent is dealt with, and nothing was posted since this was called."""
        before = len(self.slack.posts)
        await self.bot.idle()
        assert self.slack.posts[before:] == [], self.slack.posts

    @property
    def prompts(self) -> list[str]:
        return self.generator.prompts


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def build(slack: SlackServer, chat: Chat, clock: Clock, **options: Any) -> SlackBot:
    """A bot for that server, reached by its transport."""
    port = free_port()
    slack.request_url = f"http://127.0.0.1:{port}/slack/events"
    commands = Commands(chat=chat, started_at=datetime(2026, 1, 1, tzinfo=UTC), clock=clock)
    chosen: dict[str, Any] = {
        "bot_token": slack_server.BOT_TOKEN,
        "app_token": slack_server.APP_TOKEN,
        "signing_secret": slack_server.SIGNING_SECRET,
        "api_url": slack.api_url,
        "http": slack.transport == "http",
        "port": port,
        "timeouts": QUICK,
    }
    return SlackBot(chat, commands, **{**chosen, **options})


@asynccontextmanager
async def talk(
    transport: str,
    *lines: str,
    generator: FakeGenerator | None = None,
    memory: Memory | None = None,
    settings: ChatSettings | None = None,
    server: SlackServer | None = None,
    **options: Any,
) -> AsyncIterator[Talk]:
    """A server and a bot that says `lines`, connected; both are gone afterwards."""
    generator = generator or FakeGenerator(lines=lines or ("hello",))
    clock = Clock()
    # A file, because two events at once would share the one connection of an in-memory database.
    with TemporaryDirectory() as folder:
        memory = memory or open_memory(f"sqlite:///{folder}/person2.db")
        chat = fakes.chat(generator, memory=memory, settings=settings, clock=clock)
        async with _talking(server or SlackServer(transport), chat, generator, clock, options) as talking:
            yield talking


@asynccontextmanager
async def _talking(
    server: SlackServer, chat: Chat, generator: FakeGenerator, clock: Clock, options: dict[str, Any]
) -> AsyncIterator[Talk]:
    async with server as slack:
        bot = build(slack, chat, clock, **options)
        running = asyncio.create_task(bot.run())
        ready = asyncio.create_task(bot.ready.wait())
        await asyncio.wait({running, ready}, timeout=slack_server.WAIT, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            ready.cancel()
            await running
        try:
            yield Talk(
                slack=slack,
                bot=bot,
                chat=chat,
                memory=chat.memory,
                generator=generator,
                clock=clock,
                running=running,
            )
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            chat.memory.close()
