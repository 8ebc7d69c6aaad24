"""The Discord bot over real sockets: an unmodified discord.py against a Discord-compatible server on loopback."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from bots.discord import DiscordBot, Patience
from core.chat import Chat
from core.commands import Commands
from tests.discord_server import TOKEN, DiscordServer, Person, serving
from tests.fakes import Clock, FakeGenerator, chat

HURRIED = Patience(
    defer_after=0.3, follow_up_within=5.0, notice_for=0.3, first_retry=0.05, longest_retry=0.2, back_online=5.0
)


@asynccontextmanager
async def talking(
    server: DiscordServer, generator: FakeGenerator | None = None, *, wait: bool = True, **options: Any
) -> AsyncIterator[DiscordBot]:
    """A bot of that server, connected."""
    talk: Chat = options.pop("chat", None) or chat(generator)
    clock = Clock()
    commands = Commands(chat=talk, started_at=datetime(2026, 1, 1, tzinfo=UTC), clock=clock, voices=lambda: ("garden",))
    given: dict[str, Any] = {"token": TOKEN, "api_base": server.api, "patience": HURRIED} | options
    bot = DiscordBot(talk, commands, **given)
    task = asyncio.create_task(bot.run())
    try:
        if wait:
            await server.until(lambda: task.done() or (server.sessions and server.session.socket))
        yield bot
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    async with serving() as running:
        yield running


@pytest.fixture
def ann(server: DiscordServer) -> Person:
    return server.person("Ann")


async def test_mention(server: DiscordServer, ann: Person) -> None:
    """Who is mentioned answers, under the message and without a ping."""
    generator = FakeGenerator(lines=("Fine, thank you.",))
    async with talking(server, generator):
        asked = ann.says(f"{ann.bot} how are you?")
        assert await server.posted(1) == ["Fine, thank you."]
    [post] = server.messages()
    assert post.reference["message_id"] == str(asked.id)
    assert not post.ping_user_ids
    assert generator.prompts == ["Person1: how are you?\nPerson2:"]
    assert ("POST", f"/channels/{server.channel}/typing", None) in server.calls


async def test_who_is_answered(server: DiscordServer, ann: Person) -> None:
    """Mention, reply, direct message, thread it takes part in; silence elsewhere."""
    generator = FakeGenerator(lines=("one", "two", "three", "four", "five"))
    async with talking(server, generator):
        ann.says("nobody is asked here")
        ann.says(f"{ann.bot} mentioned")
        assert await server.posted(1) == ["one"]

        ann.says("replied to", answering=server.messages()[0].id)
        assert await server.posted(2) == ["one", "two"]

        ann.says("direct", where=ann.direct)
        assert await server.posted(1, ann.direct) == ["three"]

        thread = ann.opens_thread("roses")
        ann.says("nobody is asked in this thread", where=thread)
        ann.says(f"{ann.bot} come here", where=thread)
        assert await server.posted(1, thread) == ["four"]
        ann.says("no mention is needed now", where=thread)
        assert await server.posted(2, thread) == ["four", "five"]
        assert len(server.posts()) == 2
    assert generator.prompts[-1] == (
        "Person1: nobody is asked in this thread come here\nPerson2: four\nPerson1: no mention is needed now\nPerson2:"
    )


async def test_commands_of_the_first_hour(server: DiscordServer, ann: Person) -> None:
    """`ask` is answered for all to see; after `reset` what was said before is no context."""
    generator = FakeGenerator(lines=("Blue.", "What was?"))
    async with talking(server, generator):
        asked = await ann.uses("person2 ask", question="What colour is the sky?")
        assert await asked.answer() == "Blue."
        reset = await ann.uses("person2 reset")
        assert "fresh start" in await reset.answer()
        asked = await ann.uses("person2 ask", question="Was it?")
        assert await asked.answer() == "What was?"
    assert generator.prompts[-1] == "Person1: Was it?\nPerson2:"
