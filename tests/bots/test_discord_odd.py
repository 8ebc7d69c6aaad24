"""Other servers than Discord's own that speak its language: what they leave out, send as null or do not know."""

from typing import Any

import pytest

from bots.discord import check_credentials
from core.memory import open_memory
from tests.bots.discord_talk import talking
from tests.discord_server import TOKEN, DiscordServer, Person
from tests.fakes import FakeGenerator, chat

OPTIONAL = ("resume_gateway_url", "shard", "application", "guilds", "v")


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("missing", [("resume_gateway_url",), ("shard",), ("session_id",), OPTIONAL])
async def test_a_ready_that_says_less(server: DiscordServer, ann: Person, missing: tuple[str, ...], null: bool) -> None:
    """READY may lack what discord.py takes for granted; after a drop the session is resumed at the address known."""
    server.ready_without, server.ready_null = missing, null
    async with talking(server, FakeGenerator(lines=("one", "two"))):
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["one"]
        old = server.session.socket
        await server.drop(server.session)
        await server.until(lambda: server.session.socket not in {None, old})
        ann.says(f"{ann.bot} still there?")
        assert await server.posted(2) == ["one", "two"]
    if "session_id" not in missing:
        assert (server.identifies, server.resumes) == (1, 1)


@pytest.mark.parametrize("hello", [{}, {"heartbeat_interval": None}, {"heartbeat_interval": 200}])
async def test_another_pulse(server: DiscordServer, ann: Person, hello: dict[str, Any]) -> None:
    """The heartbeat is the server's to choose, and Discord's own where it does not."""
    server.hello = hello
    async with talking(server):
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["hello"]
        if hello.get("heartbeat_interval"):
            await server.until(lambda: server.beats >= 3)
    assert server.identifies == 1


async def test_json_with_a_character_set(server: DiscordServer, ann: Person) -> None:
    """`application/json; charset=utf-8` is JSON too."""
    server.charset = "utf-8"
    async with talking(server, FakeGenerator(lines=("one", "two"))):
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["one"]
        used = await ann.uses("person2 ask", question="and?")
        assert await used.answer() == "> and?\ntwo"
    assert (await check_credentials(TOKEN, api_base=server.api)).name == "Person2"


UNKNOWN = [
    ("PUT", "/applications/*/commands"),
    ("GET", "/oauth2/applications/@me"),
    ("POST", "/channels/*/typing"),
    ("GET", "/gateway/bot"),
]


@pytest.mark.parametrize(("method", "path"), UNKNOWN)
async def test_a_route_it_does_not_know(server: DiscordServer, ann: Person, method: str, path: str) -> None:
    """A server may have no commands, no application, no typing, no advice on shards: talk goes on."""
    server.fail(method, path, 404, times=1000)
    async with talking(server):
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["hello"]
    if path.startswith("/oauth2"):
        assert (await check_credentials(TOKEN, api_base=server.api)).name == "Person2"


async def test_the_gateway_setting_needs_no_advice(server: DiscordServer, ann: Person) -> None:
    """With a gateway set, the API need not know one."""
    server.fail("GET", "/gateway*", 404, times=1000)
    async with talking(server, gateway_url=server.gateway):
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["hello"]


NEEDED = {
    "id", "type", "channel_id", "guild_id", "content", "author", "username", "name", "channels", "token", "data",
    "options", "value", "channel", "member", "user", "roles", "permissions", "message", "emoji", "user_id",
    "message_id", "message_reference", "resolved", "messages", "target_id", "custom_id", "component_type", "shards",
    "url", "session_id", "guilds", "parent_id",
}  # fmt: skip
"""All that a small server says of anything."""


def small(payload: Any) -> Any:
    if isinstance(payload, dict):
        return {name: small(value) for name, value in payload.items() if name in NEEDED or name.isdecimal()}
    return [small(each) for each in payload] if isinstance(payload, list) else payload


def nulls(payload: Any) -> Any:
    """Everything else is there, and null; the message answered stays, or it would be said to be deleted."""
    if isinstance(payload, dict):
        return {
            name: nulls(value) if name in NEEDED | {"referenced_message"} or name.isdecimal() else None
            for name, value in payload.items()
        }
    return [nulls(each) for each in payload] if isinstance(payload, list) else payload


def untyped(payload: Any) -> Any:
    """Nor does a message or a reaction say of what type it is."""
    said = small(payload)
    if isinstance(said, dict) and ("content" in said or "emoji" in said):
        said.pop("type", None)
    return said


@pytest.mark.parametrize("reduce", [small, nulls, untyped])
async def test_a_server_that_says_little(server: DiscordServer, ann: Person, reduce: Any) -> None:
    """Mention, reply, thumbs, commands, menus and buttons work with the fewest fields."""
    server.reduce = reduce
    memory = open_memory("sqlite://")
    lines = ("one", "two", "three", "four")
    async with talking(server, talk=chat(FakeGenerator(lines=lines), memory=memory), buttons=True):
        ann.says("nobody is asked")
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["one"]
        ann.says("go on", answering=server.messages()[0].id)
        assert await server.posted(2) == ["one", "two"]
        ann.reacts(server.messages()[1], "👍")
        await server.until(lambda: memory.feedback_counts("discord") == (1, 0))
        again = await ann.uses("person2 again")
        assert "another answer" in await again.answer()
        assert server.posts() == ["one", "three"]
        told = await ann.picks("Person2: why?", server.messages()[0])
        assert "model: fake" in await told.answer()
        await ann.clicks(server.messages()[0], "person2:dislike").answer()
        assert memory.feedback_counts("discord") == (1, 1)
    assert server.identifies == 1


async def test_a_message_that_does_not_name_its_server(server: DiscordServer, ann: Person) -> None:
    """A channel the bot knows is no direct message, though the message does not say of which server it is."""

    def nameless(payload: Any) -> Any:
        if isinstance(payload, dict) and "content" in payload:
            return {name: value for name, value in payload.items() if name != "guild_id"}
        return payload

    server.reduce = nameless
    async with talking(server):
        ann.says("nobody is asked")
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["hello"]
        ann.says(f"{ann.bot} and?")
        assert await server.posted(2) == ["hello", "hello"]


@pytest.mark.parametrize("said", [{}, {"id": "1"}, "OK", []])
async def test_an_interaction_answered_oddly(server: DiscordServer, ann: Person, said: Any) -> None:
    """What a server says after it took a response is of no matter: nothing is said twice."""

    def odd(payload: Any) -> Any:
        return said if isinstance(payload, dict) and "interaction" in payload and "resource" in payload else payload

    server.reduce = odd
    async with talking(server, FakeGenerator(lines=("one",))):
        used = await ann.uses("person2 ask", question="hm?")
        assert await used.answer() == "> hm?\none"
        ann.says(f"{ann.bot} hello")
        await server.posted(2)
        assert len(used.answers) == 1
        assert server.posts() == ["> hm?\none", "one"]
