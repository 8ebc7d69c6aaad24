"""What goes wrong between Discord and the bot, over real sockets: it comes back, answers once, loses nothing."""

import asyncio
import json
import logging
import socket

import pytest
from discord.http import Route

from bots.discord import check_credentials, point_at
from core.errors import PermanentPlatformError
from core.memory import open_memory
from tests.bots.discord_talk import bot_of, talking
from tests.discord_server import TOKEN, WAIT, DiscordServer, Person, relaying
from tests.fakes import FakeGenerator, chat

BAD_TOKEN = r"^Discord rejected DISCORD_TOKEN: copy the bot's token again from \S+\.$"


async def test_a_duplicate_is_answered_once(server: DiscordServer, ann: Person) -> None:
    """The same MESSAGE_CREATE, delivered again at once and again later, is heard once."""
    generator = FakeGenerator(lines=("one", "two"))
    memory = open_memory("sqlite://")
    async with talking(server, talk=chat(generator, memory=memory)):
        payload = server.payload(ann.says(f"{ann.bot} hello"))
        await server.send("MESSAGE_CREATE", payload)
        await server.posted(1)
        await server.send("MESSAGE_CREATE", payload)
        ann.says(f"{ann.bot} bye")
        assert await server.posted(2) == ["one", "two"]
        assert len(list(memory.everything())) == 4


async def test_a_resumed_connection(server: DiscordServer, ann: Person) -> None:
    """After a silent drop the session is resumed: what was said meanwhile is answered, what is replayed is not."""
    generator = FakeGenerator(lines=("one", "two", "three"))
    async with talking(server, generator):
        ann.says(f"{ann.bot} before")
        await server.posted(1)
        session = server.session
        await server.drop(session)
        ann.says(f"{ann.bot} while you were away")
        for event in session.events:
            if event["t"] == "MESSAGE_CREATE":
                event["s"] += 1000  # as if the bot had not acknowledged them: all are replayed
        await server.until(lambda: session.socket)
        assert await server.posted(2) == ["one", "two"]
        ann.says(f"{ann.bot} after")
        assert await server.posted(3) == ["one", "two", "three"]
    assert (server.identifies, server.resumes) == (1, 1)


@pytest.mark.parametrize("trouble", ["refused", "silent"])
async def test_a_long_outage(
    server: DiscordServer, ann: Person, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However often a connection is refused, or hangs, the session is offered again: the talk of the gap is answered,
    and no attempt fills the log."""
    async with talking(server, FakeGenerator(lines=("one", "two", "three", "four"))):
        ann.says(f"{ann.bot} before")
        await server.posted(1)
        session, tried = server.session, server.gateway_attempts
        server.hang_gateway = trouble == "silent"
        server.refuse_gateway = 1_000_000 * (trouble == "refused")
        await server.drop(session)
        for number in range(3):
            await server.until(lambda: server.gateway_attempts >= tried + 5)  # noqa: B023 - awaited here
            tried = server.gateway_attempts
            ann.says(f"{ann.bot} in the gap, {number}")
        server.hang_gateway, server.refuse_gateway = False, 0
        assert await server.posted(4) == ["one", "two", "three", "four"]
    assert (server.identifies, server.resumes) == (1, 1)
    assert "Traceback" not in caplog.text


async def test_a_session_that_is_over(server: DiscordServer, ann: Person) -> None:
    """A session that Discord no longer knows is not offered for ever: a new one begins."""
    async with talking(server, FakeGenerator(lines=("one", "two"))):
        ann.says(f"{ann.bot} before")
        await server.posted(1)
        old = server.session
        server.refuse_gateway = 8
        server.sessions.clear()
        await server.drop(old)
        await server.until(lambda: server.sessions and server.session.socket)
        ann.says(f"{ann.bot} after")
        assert await server.posted(2) == ["one", "two"]


async def test_dropped_while_thinking(server: DiscordServer, ann: Person) -> None:
    """An answer being thought up when the socket goes is posted all the same."""
    model = FakeGenerator(lines=("here it is",), delay=0.3)
    async with talking(server, model):
        ann.says(f"{ann.bot} think!")
        await server.until(lambda: model.prompts)
        await server.drop(server.session)
        assert await server.posted(1) == ["here it is"]


async def test_started_anew_while_thinking(server: DiscordServer, ann: Person) -> None:
    """Even where discord.py gives up and is started anew, the answer comes, through the new connection."""
    model = FakeGenerator(lines=("here it is", "and on"), delay=0.3)
    async with talking(server, model):
        ann.says(f"{ann.bot} think!")
        await server.until(lambda: model.prompts)
        await server.close(4012)  # an invalid API version: discord.py ends
        assert await server.posted(1) == ["here it is"]
        await server.until(lambda: server.identifies == 2 and server.session.socket)
        ann.says(f"{ann.bot} still there?")
        assert await server.posted(2) == ["here it is", "and on"]


async def test_two_shards(server: DiscordServer, ann: Person) -> None:
    """Where Discord advises shards each has its connection, and what comes by both is answered once."""
    server.shards = 2
    generator = FakeGenerator(lines=("one", "two"))
    async with talking(server, generator) as bot:
        await server.until(lambda: server.identifies == 2 and bot.ready)
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["one"]
        ann.says("directly", where=ann.direct)
        assert await server.posted(1, ann.direct) == ["two"]
    assert len(generator.prompts) == 2


@pytest.mark.parametrize("trouble", ["refused", "reconnect", "invalid session", "closed 4000", "closed 1000"])
async def test_it_comes_back(server: DiscordServer, ann: Person, trouble: str) -> None:
    """Whatever ends the connection, the bot is back soon and remembers."""
    generator = FakeGenerator(lines=("one", "two"))
    async with talking(server, generator):
        ann.says(f"{ann.bot} before")
        await server.posted(1)
        old = server.session.socket
        match trouble:
            case "refused":
                server.refuse_gateway = 3
                await server.drop(server.session)
            case "reconnect":
                await server.send_frame(json.dumps({"op": 7, "d": None, "s": None, "t": None}))
            case "invalid session":
                await server.send_frame(json.dumps({"op": 9, "d": False, "s": None, "t": None}))
            case "closed 4000":
                await server.close(4000)
            case "closed 1000":
                await server.close(1000)
        await server.until(lambda: server.session.socket not in {None, old})
        ann.says(f"{ann.bot} after")
        assert await server.posted(2) == ["one", "two"]
    assert generator.prompts[-1] == "Person1: before\nPerson2: one\nPerson1: after\nPerson2:"


async def test_the_first_connect_is_refused(server: DiscordServer, ann: Person) -> None:
    """A gateway that is not up yet is waited for."""
    server.refuse_gateway = 3
    async with talking(server):
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["hello"]


async def test_nothing_answers_at_first(ann: Person, server: DiscordServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither API nor gateway is up when the bot starts; it keeps trying until they are."""
    port, server.port = server.port, 0
    await server.stop()
    server.port = port
    bot = bot_of(server, chat())
    task = asyncio.create_task(bot.run())
    await server.until(lambda: caplog.text.count("connecting again") >= 2)
    assert not task.done()
    assert not bot.ready
    await server.start()
    await server.until(lambda: server.sessions and server.session.socket)
    ann.says(f"{ann.bot} hello")
    assert await server.posted(1) == ["hello"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("event", ["MESSAGE_CREATE", "INTERACTION_CREATE", "MESSAGE_REACTION_ADD", "GUILD_CREATE"])
@pytest.mark.parametrize("payload", [{}, None, {"id": "x", "channel_id": "1", "author": {}}])
async def test_a_malformed_event_is_skipped(
    server: DiscordServer, ann: Person, event: str, payload: object, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be read is logged and skipped; the connection stands."""
    async with talking(server):
        await server.send(event, payload)
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["hello"]
    assert f"malformed {event}" in caplog.text
    assert server.identifies == 1


@pytest.mark.parametrize(
    "text", ["this is no JSON", "[]", "null", "7", '{"op": 0, "t": ["x"], "d": {}}', "{}", "[" * 99_999]
)
async def test_a_frame_that_is_none(server: DiscordServer, ann: Person, text: str) -> None:
    """What is no event and no operation is skipped; the connection stands."""
    async with talking(server):
        await server.send_frame(text)
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["hello"]
    assert server.identifies == 1


async def test_a_sequence_that_is_none(server: DiscordServer, ann: Person) -> None:
    """An event with a nonsensical number does not spoil the place at which the session is resumed."""
    async with talking(server, FakeGenerator(lines=("one", "two"))):
        ann.says(f"{ann.bot} hello")
        await server.posted(1)
        await server.send_frame(json.dumps({"op": 0, "t": "TYPING_START", "s": "many", "d": {}}))
        session = server.session
        await server.drop(session)
        ann.says(f"{ann.bot} and?")
        await server.until(lambda: session.socket)
        assert await server.posted(2) == ["one", "two"]
    assert (server.identifies, server.resumes) == (1, 1)


async def test_a_resumed_event_without_content(server: DiscordServer, ann: Person) -> None:
    """discord.py would end on `RESUMED` with `d: null`; the bot does not."""
    async with talking(server, FakeGenerator(lines=("one",))):
        await server.send("RESUMED", None)
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["one"]
    assert server.identifies == 1


async def test_a_ready_without_its_optional_fields(server: DiscordServer, ann: Person) -> None:
    """Discord documents `shard` as optional; `application` is looked up at login."""
    server.ready_without = ("shard", "application")
    async with talking(server):
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["hello"]
    assert server.identifies == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "headers", "answers"),
    [
        ("POST", "/channels/*/messages", 429, {"Retry-After": "0.1"}, 1),
        ("POST", "/channels/*/messages", 429, {"Retry-After": "0.1", "Via": "1.1 google"}, 1),
        ("POST", "/channels/*/messages", 429, {"Retry-After": "3600"}, 0),
        ("POST", "/channels/*/messages", 500, {}, 1),
        ("POST", "/channels/*/messages", 502, {}, 1),
        ("POST", "/channels/*/messages", 403, {}, 0),
        ("POST", "/channels/*/messages", 400, {}, 1),
        ("POST", "/channels/*/typing", 403, {}, 1),
        ("POST", "/channels/*/typing", 429, {"Retry-After": "3600"}, 1),
        ("POST", "/channels/*/typing", 500, {}, 1),
        ("PUT", "/applications/*/commands", 500, {}, 1),
        ("PUT", "/applications/*/commands", 403, {}, 1),
    ],
)
async def test_a_call_that_fails(
    server: DiscordServer, ann: Person, method: str, path: str, status: int, headers: dict[str, str], answers: int
) -> None:
    """Rate limits and server faults are waited out, refusals are accepted; the next question is answered anyhow."""
    server.fail(method, path, status, code=50013, headers=headers)
    failed = asyncio.Event()  # an answer that is there at once may leave no time for a typing sign
    if method == "POST" and path.endswith("/messages"):
        failed.set()
    async with talking(server, FakeGenerator(lines=("one", "two"), gate=failed)):
        ann.says(f"{ann.bot} hello")
        await server.until(lambda: not any(fault.path == path for fault in server.faults))
        failed.set()
        ann.says(f"{ann.bot} and again")
        expected = ["one", "two"] if answers else ["two"]
        await server.posted(len(expected))
        assert sorted(server.posts()) == expected


async def test_no_reply_without_reading_the_history(server: DiscordServer, ann: Person) -> None:
    """Where Discord refuses the reference, the answer stands without it."""
    server.fail("POST", "/channels/*/messages", 400, code=160002)
    async with talking(server):
        ann.says(f"{ann.bot} hello")
        await server.posted(1)
        assert server.messages()[0].reference is None


async def test_a_question_deleted_meanwhile(server: DiscordServer, ann: Person) -> None:
    """A message that is gone gets no answer; the next one does."""
    gate = asyncio.Event()
    model = FakeGenerator(lines=("one", "two"), gate=gate)
    memory = open_memory("sqlite://")
    async with talking(server, talk=chat(model, memory=memory)):
        asked = ann.says(f"{ann.bot} hello")
        await server.until(lambda: bool(model.prompts))
        ann.deletes(asked)
        await server.until(lambda: not list(memory.everything()))
        ann.says(f"{ann.bot} are you there?", where=ann.direct)
        gate.set()
        assert await server.posted(1, ann.direct) == ["two"]
        assert server.posts() == []


@pytest.mark.parametrize("where", ["login", "gateway"])
async def test_a_bad_token(server: DiscordServer, where: str) -> None:
    """One sentence that says what to do, and no second try."""
    if where == "gateway":
        server.gateway_token = "another"
    token = "wrong" if where == "login" else TOKEN
    talk = chat()
    bot = bot_of(server, talk, token=token)
    with pytest.raises(PermanentPlatformError, match=BAD_TOKEN):
        await asyncio.wait_for(bot.run(), WAIT)
    assert server.identifies <= 1
    assert token not in repr(bot)


@pytest.mark.parametrize(
    "token", ["the.right\n.token", "the.right\x00token", "the.right\x7ftoken", "Bot the", "tökén", " "]
)
async def test_a_token_that_cannot_be_sent(server: DiscordServer, token: str) -> None:
    """A token with a control character or a space inside was copied badly; nothing is sent at all."""
    bot = bot_of(server, chat(), token=token)
    with pytest.raises(PermanentPlatformError, match=BAD_TOKEN):
        await asyncio.wait_for(bot.run(), WAIT)
    with pytest.raises(PermanentPlatformError, match=BAD_TOKEN):
        await check_credentials(token, api_base=server.api)
    assert not server.calls


async def test_a_login_that_fails_is_one_line(
    server: DiscordServer, ann: Person, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what failed and when it is tried again, without a traceback."""
    server.fail("GET", "/users/@me", 503, times=3)
    async with talking(server):
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["hello"]
    said = [record for record in caplog.records if "connecting again" in record.message]
    assert len(said) == 3
    assert not any(record.exc_info for record in caplog.records)


async def test_who_is_logged_in(server: DiscordServer, ann: Person, caplog: pytest.LogCaptureFixture) -> None:
    """One line at start says as whom and in how many servers; members see how to get help."""
    caplog.set_level(logging.INFO)
    async with talking(server) as bot:
        await server.until(lambda: bot.ready)
        shown = server.session.presence["game"]
    assert (shown["type"], shown["name"]) == (2, "/person2 help")
    assert [record.message for record in caplog.records if "logged in as" in record.message] == [
        "Discord: logged in as Person2, in 1 server"
    ]


async def test_without_the_message_content_intent(
    server: DiscordServer, ann: Person, caplog: pytest.LogCaptureFixture
) -> None:
    """PermanentPlatformError the privileged intent (4014), the bot says so once in the log and goes on by mention."""
    server.approved.message_content = False
    generator = FakeGenerator(lines=("one", "two", "three"))
    async with talking(server, generator) as bot:
        await server.until(lambda: server.session.socket and not bot.message_content)
        ann.says("nobody is asked")
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["one"]
        ann.says("in reply", answering=server.messages()[0].id)
        assert await server.posted(2) == ["one", "two"]
        ann.says("directly", where=ann.direct)
        assert await server.posted(1, ann.direct) == ["three"]
    assert generator.prompts[0] == "Person1: hello\nPerson2:"
    assert caplog.text.count("turn on “Message Content Intent”") == 1
    assert server.identifies == 2


async def test_no_intents_at_all(server: DiscordServer) -> None:
    """PermanentPlatformError even without the privileged intent, the bot ends with a sentence."""
    server.refuse_intents = True
    bot = bot_of(server, chat())
    with pytest.raises(PermanentPlatformError, match="turn on “Message Content Intent”"):
        await asyncio.wait_for(bot.run(), WAIT)


async def test_the_gateway_setting_wins(server: DiscordServer, ann: Person) -> None:
    """With a gateway set, neither what the API says nor the address to resume at is used."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server.resume_url = f"ws://127.0.0.1:{unused.getsockname()[1]}"
    server.said_gateway = "ws://127.0.0.1:1"
    async with talking(server, FakeGenerator(lines=("one", "two")), gateway_url=server.gateway):
        ann.says(f"{ann.bot} before")
        await server.posted(1)
        session = server.session
        await server.drop(session)
        await server.until(lambda: session.socket)
        ann.says(f"{ann.bot} after")
        assert await server.posted(2) == ["one", "two"]
    assert (server.identifies, server.resumes) == (1, 1)


async def test_through_a_proxy(server: DiscordServer, ann: Person) -> None:
    """`DISCORD_PROXY` carries REST and gateway alike."""
    async with relaying(server) as (proxy, lines), talking(server, proxy=proxy):
        ann.says(f"{ann.bot} hello")
        assert await server.posted(1) == ["hello"]
        assert any("/api/v10/users/@me" in line for line in lines)
        assert any("/gateway?" in line for line in lines)


@pytest.mark.parametrize(
    ("setting", "base"),
    [
        ("http://127.0.0.1:8080/api/v10", "http://127.0.0.1:8080/api/v10"),
        ("http://127.0.0.1:8080/api/v10/", "http://127.0.0.1:8080/api/v10"),
        ("http://127.0.0.1:8080/api", "http://127.0.0.1:8080/api/v10"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/api/v10"),
        ("https://proxy.example/discord/api/v9", "https://proxy.example/discord/api/v9"),
    ],
)
def test_forms_of_the_api_base(setting: str, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`DISCORD_API_BASE` may be written with or without the version, or as the bare host."""
    monkeypatch.setattr(Route, "BASE", Route.BASE)
    point_at(setting)
    assert base == Route.BASE
