"""What the Discord bot's tests share: a bot connected to the server on loopback, in a hurry."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from bots.discord import DiscordBot, DiscordTimeouts
from core.chat import Chat
from core.commands import Commands
from tests.discord_server import TOKEN, DiscordServer
from tests.fakes import Clock, FakeGenerator, chat

HURRIED = DiscordTimeouts(
    defer_after=0.3,
    interaction_token=60.0,
    notice_shown=0.6,
    connect=0.2,
    reconnect=0.3,
    first_retry=0.05,
    longest_retry=0.2,
    longest_login_retry=0.2,
)


def bot_of(server: DiscordServer, talk: Chat, *, trial: Callable[[], str] = str, **options: Any) -> DiscordBot:
    """A bot of that server that does not run yet; `options` go to DiscordBot."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    commands = Commands(chat=talk, started_at=began, clock=Clock(), adapters=lambda: ("garden",), trial=trial)
    return DiscordBot(talk, commands, **{"token": TOKEN, "api_base": server.api, "timeouts": HURRIED, **options})


@asynccontextmanager
async def talking(
    server: DiscordServer,
    generator: FakeGenerator | None = None,
    *,
    talk: Chat | None = None,
    trial: Callable[[], str] = str,
    **options: Any,
) -> AsyncIterator[DiscordBot]:
    """A bot of that server, connected; `options` go to DiscordBot."""
    bot = bot_of(server, talk or chat(generator), trial=trial, **options)
    task = asyncio.create_task(bot.run())
    try:
        await server.until(lambda: task.done() or (server.sessions and server.session.socket))
        yield bot
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
