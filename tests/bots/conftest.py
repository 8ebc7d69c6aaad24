"""Servers and people that the bots' tests share."""

from collections.abc import AsyncIterator

import pytest

from tests.discord_server import DiscordServer, Person, serving


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    """A Discord on loopback with one guild and one channel."""
    async with serving() as running:
        yield running


@pytest.fixture
def ann(server: DiscordServer) -> Person:
    return server.person("Ann")
