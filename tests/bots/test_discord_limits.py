"""Discord's rate limits and outages, over real sockets: nothing is lost, nobody is banned."""

import asyncio

from bots.discord.pacing import INVALID_CALLS, INVALID_SECONDS, Pacer
from core.health import STUCK_SECONDS, PostHealth
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


async def test_discord_refuses_for_a_while(server: DiscordServer, ann: Person) -> None:
    """Answers that Discord will not take are kept until it does."""
    async with talking(server, FakeGenerator(lines=("one", "two", "three"))):
        await server.until(lambda: server.session.socket)
        server.fail("*", "*", 503, times=1_000_000)
        for number in range(3):
            ann.says(f"{ann.bot} question {number}")
        await server.until(lambda: len([path for _, path, _ in server.calls if path.endswith("/messages")]) > 20)
        assert not server.posts()
        server.faults.clear()
        assert sorted(await server.posted(3)) == ["one", "three", "two"]


async def test_an_answer_taken_though_discord_said_no(server: DiscordServer, ann: Person) -> None:
    """A post whose confirmation was lost is not made a second time, and is known by its id."""
    server.fail("POST", "/channels/*/messages", 503, times=3, lost=True)
    async with talking(server, FakeGenerator(lines=("one", "two"))):
        ann.says(f"{ann.bot} hello")
        await server.posted(1)
        ann.says("and?", answering=server.messages()[0].id)
        assert await server.posted(2) == ["one", "two"]


async def test_not_ready_while_nothing_can_be_posted(server: DiscordServer, ann: Person) -> None:
    """A bot that hears and cannot post is not ready, and says so to the health check; it is once it can."""
    seconds = [0.0]
    health = PostHealth(clock=lambda: seconds[0])
    async with talking(server, post_health=health) as bot:
        await server.until(lambda: bot.ready)
        server.fail("POST", "/channels/*/messages", 503, times=1_000_000)
        ann.says(f"{ann.bot} hello")
        await server.until(lambda: any(path.endswith("/messages") for _, path, _ in server.calls))
        assert bot.ready
        seconds[0] = STUCK_SECONDS + 1
        assert not bot.ready
        assert health.trouble() == "cannot post (a post has been waiting for 121 s)"
        server.faults.clear()
        await server.posted(1)
        await server.until(lambda: bot.ready)


async def test_a_limit_longer_than_anybody_waits(server: DiscordServer, ann: Person) -> None:
    """A post that may only be made in a day is given up; the asker is told why they wait in vain, and others are not
    held up."""
    server.fail("POST", f"/channels/{server.channel}/messages", 429, headers={"Retry-After": "86400"})
    async with talking(server, FakeGenerator(lines=("one", "two"))):
        ann.says(f"{ann.bot} hello")
        [told] = await server.posted(1, ann.direct)
        assert told.startswith(f"I couldn't post my answer to you in <#{server.channel}>.")
        ann.says(f"{ann.bot} hello?")
        assert await server.posted(1) == ["two"]


def test_a_ban_is_kept_away_from() -> None:
    """Long before Discord bans an address for its invalid calls, the bot pauses."""
    seconds = [0.0]
    pacer = Pacer(clock=lambda: seconds[0])
    for _ in range(INVALID_CALLS - 1):
        pacer.count_invalid()
    assert pacer.wait == 0.0
    seconds[0] = 100.0
    pacer.count_invalid()
    assert pacer.wait == INVALID_SECONDS - 100.0
