"""Discord's rate limits and outages, over real sockets: nothing is lost, nobody is banned."""

import asyncio

from tests.bots.discord_talk import talking
from tests.discord_limits import Limits
from tests.discord_server import DiscordServer, Person
from tests.fakes import FakeGenerator


async def test_a_global_limit_on_typing(server: DiscordServer, ann: Person) -> None:
    """An answer that is ready while the typing call waits out a global 429 is posted, and so is every later one."""
    server.fail("POST", "/channels/*/typing", 429, everywhere=True, headers={"Retry-After": "1"})
    async with talking(server, FakeGenerator(lines=("one", "two"), delay=0.2)):
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["one"]
        ann.says(f"{ann.bot} still there?")
        assert await server.posted(2) == ["one", "two"]


async def test_a_burst(server: DiscordServer, ann: Person) -> None:
    """A hundred people in twenty channels at once: every one is answered, and Discord hardly has to say no."""
    server.limits = Limits(clock=asyncio.get_running_loop().time)
    channels = [server.backend.create_channel(server.guild.id, f"room{n}").id for n in range(20)]
    people = [server.person(f"Member{n}") for n in range(100)]
    async with talking(server, FakeGenerator(speak=lambda prompt: prompt.splitlines()[-2][-3:])):
        for number, person in enumerate(people):
            person.says(f"{ann.bot} number {number:03}", where=channels[number % 20])
        for place in channels:
            await server.posted(5, place)
    said = sorted(post for place in channels for post in server.posts(place))
    assert said == [f"{number:03}" for number in range(100)]
    assert server.limits.refused.total() <= 5
    assert server.limits.busiest <= 50
