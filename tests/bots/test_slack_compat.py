"""Other servers than Slack's own that speak its language: what they leave out, send as null or do not know."""

from typing import Any

import pytest

from core.memory import open_memory
from tests.bots.slack_talk import talk
from tests.slack_server import BOT_USER, TEAM, Json, SlackServer

ME = f"<@{BOT_USER}>"


@pytest.fixture(params=["socket", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def chats(server: SlackServer, transport: str) -> None:
    """The shortest visit: a mention and its answer liked, a direct message, a question by command, another answer."""
    async with talk(transport, "one", "two", "three", "four", server=server) as t:
        await t.slack.says("nobody is asked")
        await t.slack.says(f"{ME} hello")
        post = await t.slack.post(1)
        assert (post.text, post.only_for) == ("one", None)
        await t.slack.reacts("+1", post)
        await t.slack.until_known(lambda: t.memory.feedback_counts("slack") == (1, 0))
        await t.slack.says("and you?", channel="D1")
        assert (await t.slack.post(2)).text == "two"
        await t.slack.commands("ask what now?")
        answer = await t.slack.post(3)
        assert answer.text == "three"
        await t.slack.commands("again")
        await t.slack.until(lambda: answer.text == "four" or len(t.slack.posts) > 3)
        assert [post.text for post in t.slack.posts] == ["one", "two", "four"]


@pytest.mark.parametrize("missing", ["bot_id", "team_id", "user_id", "url", "user"])
async def test_an_identity_that_says_less(transport: str, missing: str) -> None:
    """auth.test may lack a field: who we are is told with each event, too."""
    server = SlackServer(transport)
    del server.identity[missing]
    await chats(server, transport)


@pytest.mark.parametrize("missing", ["team_id", "api_app_id", "authorizations", "event_id", "event_time", "token"])
@pytest.mark.parametrize("null", [False, True])
async def test_an_envelope_that_says_less(transport: str, missing: str, null: bool) -> None:
    """Events and commands without their workspace, ids or times."""
    server = SlackServer(transport)

    def less(body: Json) -> Json:
        return {name: None if name == missing else value for name, value in body.items() if null or name != missing}

    server.reduce = less
    await chats(server, transport)


@pytest.mark.parametrize("missing", ["channel_type", "event_ts", "user_name", "team_domain", "trigger_id"])
async def test_an_event_that_says_less(transport: str, missing: str) -> None:
    """Messages without the kind of their channel, commands without the member's name."""
    server = SlackServer(transport)

    def less(body: Json) -> Json:
        inner = body.get("event")
        if isinstance(inner, dict):
            body = {**body, "event": {name: value for name, value in inner.items() if name != missing}}
        return {name: value for name, value in body.items() if name != missing}

    server.reduce = less
    await chats(server, transport)


@pytest.mark.parametrize("hello", [{"type": "hello"}, {"type": "hello", "debug_info": None}, None])
@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_another_greeting(hello: Json | None, scheme: str) -> None:
    """Socket Mode with a bare hello or none, and an address that begins with http."""
    server = SlackServer("socket")
    server.hello, server.socket_scheme = hello, scheme
    await chats(server, "socket")


OPTIONAL = frozenset({"assistant.threads.setStatus", "users.info", "conversations.open", "views.publish"})


async def test_methods_it_does_not_have(transport: str) -> None:
    """A server may answer a page where Slack has a method: names, the status and the home tab are done without."""
    server = SlackServer(transport)
    server.unknown = OPTIONAL
    await chats(server, transport)


async def test_no_whispers(transport: str) -> None:
    """Where nothing can be said to one member alone, it is said in their direct messages."""
    server = SlackServer(transport)
    server.unknown = frozenset({"chat.postEphemeral", "conversations.open"})
    async with talk(transport, server=server) as t:
        await t.slack.commands("help", url="")
        assert (await t.slack.post(1)).channel == "UANN"


async def test_a_deleted_channel_is_forgotten(transport: str) -> None:
    """With a channel goes what was said in it and in its threads; other channels stay."""
    async with talk(transport) as t:
        await t.slack.says("here")
        await t.slack.says(f"{ME} in a thread")
        await t.slack.says("there", channel="D1")
        await t.slack.post(2)
        await t.slack.event({"type": "channel_deleted", "channel": "C1"})
        await t.slack.until_known(
            lambda: sorted(said.message.text for said in t.memory.everything()) == ["hello", "there"]
        )


async def test_thumbs_after_a_restart(transport: str, tmp_path: Any) -> None:
    """Taking back one thumb leaves the other, though the bot that saw it come has been restarted."""
    server = SlackServer(transport)
    url = f"sqlite:///{tmp_path}/person2.db"
    async with talk(transport, server=server, memory=open_memory(url)) as t:
        await t.slack.says("joke!", channel="D1")
        post = await t.slack.post(1)
        await t.slack.reacts("+1", post)
        await t.slack.reacts("-1", post)
        await t.slack.until_known(lambda: t.memory.feedback_counts("slack", TEAM) == (0, 1))
    async with talk(transport, server=server, memory=open_memory(url)) as t:
        await t.slack.reacts("+1", post, removed=True)
        await t.slack.reacts("+1", post, user="UBEN")
        await t.slack.until_known(lambda: t.memory.feedback_counts("slack", TEAM) == (1, 1))
        await t.slack.reacts("-1", post, removed=True)
        await t.slack.until_known(lambda: t.memory.feedback_counts("slack", TEAM) == (1, 0))
