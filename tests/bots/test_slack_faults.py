"""What goes wrong between the bot and Slack: broken lines, limits, errors, slowness, wrong signatures and tokens."""

import asyncio
import json
import logging
import socket
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from core.errors import PermanentPlatformError
from tests import fakes, slack_server
from tests.bots.slack_talk import QUICK, build, talk
from tests.fakes import Clock, FakeGenerator
from tests.slack_server import APP_TOKEN, BOT_TOKEN, BOT_USER, SIGNING_SECRET, WAIT, Fault, SlackServer

ME = f"<@{BOT_USER}>"

ALERT = replace(QUICK, ping=0.2)
"""Notices a silent line within 0.3 s."""


@pytest.fixture(params=["socket", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# Both transports


async def test_it_acknowledges_before_it_thinks(transport: str) -> None:
    """However slow the generator, Slack has its acknowledgement at once (its limit is 3 s)."""
    gate = asyncio.Event()
    async with talk(transport, generator=FakeGenerator(gate=gate)) as t:
        await t.slack.says("hi", channel="D1")
        await t.slack.commands("ask how are you?")
        assert t.slack.posts == []
        assert max(t.slack.ack_seconds) < 3
        gate.set()
        await t.slack.post(2)


async def test_it_waits_out_a_rate_limit(transport: str) -> None:
    """429 with `Retry-After` on a post: the reply comes a little later, once."""
    async with talk(transport) as t:
        t.slack.fail("chat.postMessage", Fault(status=429, error="ratelimited", headers={"Retry-After": "1"}))
        started = time.monotonic()
        await t.slack.says("hi", channel="D1")
        await t.slack.post(1)
        assert time.monotonic() - started >= 1
        assert len(t.slack.posts) == 1


async def test_it_tries_again_after_a_server_error(transport: str) -> None:
    """A 500 on a post does not lose the reply."""
    async with talk(transport) as t:
        t.slack.fail("chat.postMessage", Fault(status=500))
        await t.slack.says("hi", channel="D1")
        assert (await t.slack.post(1)).text == "hello"


async def test_names_are_not_worth_waiting_for(transport: str) -> None:
    """Where `users.info` fails, people are still answered."""
    async with talk(transport) as t:
        t.slack.fail("users.info", *[Fault(error="unknown_method")] * 2)
        await t.slack.says("I am with <@UBEN>", channel="D1")
        await t.slack.post(1)
        assert t.prompts == ["Person1: I am with @someone\nPerson2:"]


REFUSALS = [
    ("auth.test", "invalid_auth", "SLACK_BOT_TOKEN"),
    ("auth.test", "token_revoked", "SLACK_BOT_TOKEN"),
    ("auth.test", "account_inactive", "SLACK_BOT_TOKEN"),
    ("auth.test", "not_allowed_token_type", "xoxb-"),
    ("auth.test", "missing_scope", "lacks the scope"),
    ("auth.test", "team_access_not_granted", "team_access_not_granted"),
]
SOCKET_REFUSALS = [
    ("apps.connections.open", "invalid_auth", "SLACK_APP_TOKEN"),
    ("apps.connections.open", "not_allowed_token_type", "xapp-"),
    ("apps.connections.open", "missing_scope", "connections:write"),
]


async def refused(slack: SlackServer, **options: Any) -> str:
    """The sentence a bot ends with."""
    bot = build(slack, fakes.chat(), Clock(), **options)
    with pytest.raises(PermanentPlatformError) as raised:
        await asyncio.wait_for(bot.run(), WAIT)
    sentence = str(raised.value)
    assert "loopback" not in sentence  # every token and secret here has that word
    assert "\n" not in sentence
    return sentence


async def test_what_slack_refuses_for_good_is_one_sentence(transport: str) -> None:
    """A wrong token, a missing scope: one sentence that says what to do, and no token in it."""
    rows = REFUSALS + (SOCKET_REFUSALS if transport == "socket" else [])
    for method, error, expected in rows:
        async with SlackServer(transport) as slack:
            slack.fail(method, Fault(error=error))
            assert expected in await refused(slack)


async def test_missing_tokens_and_addresses_are_said(transport: str) -> None:
    """Nothing set, tokens mixed up, or an address where no Slack is."""
    async with SlackServer(transport) as slack:
        assert "SLACK_BOT_TOKEN is missing" in await refused(slack, bot_token="")
        assert "wrong kind" in await refused(slack, bot_token=APP_TOKEN)
        assert "turn off token rotation" in await refused(slack, bot_token="xoxe.xoxb-loopback")
        assert "member's token" in await refused(slack, bot_token="xoxp-loopback")
        assert "SLACK_API_URL" in await refused(slack, api_url=f"{slack.url}/nowhere/")
        missing = {"app_token": None} if transport == "socket" else {"signing_secret": None}
        assert "is missing" in await refused(slack, **missing)
        if transport == "socket":
            assert "wrong kind" in await refused(slack, app_token=BOT_TOKEN)


async def test_a_token_without_the_right_to_speak_is_refused(
    transport: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Slack lists a token's scopes: without `chat:write` there is no point, without others something is missing, which
    is said and no warning."""
    caplog.set_level(logging.INFO)
    async with SlackServer(transport) as slack:
        monkeypatch.setattr(slack_server, "SCOPES", "commands,app_mentions:read")
        assert "chat:write" in await refused(slack)
    monkeypatch.setattr(slack_server, "SCOPES", "commands,chat:write")
    async with talk(transport):
        assert "lacks optional scopes" in caplog.text
        assert "reactions:read" in caplog.text


async def test_a_token_revoked_while_running_ends_the_bot(transport: str) -> None:
    """When Slack stops accepting the token there is nothing left to do but to say so."""
    async with talk(transport) as t:
        t.slack.fail("chat.postMessage", Fault(error="token_revoked"))
        await t.slack.says("hi", channel="D1")
        with pytest.raises(PermanentPlatformError, match="revoked"):
            await asyncio.wait_for(asyncio.shield(t.running), WAIT)
        t.running.exception()  # seen


async def test_it_waits_for_slack_to_be_there(transport: str) -> None:
    """A Slack out of reach, or one with an error of its own, is tried again."""
    async with SlackServer(transport) as slack:
        slack.fail("auth.test", Fault(error="internal_error"))
        if transport == "socket":
            slack.fail("apps.connections.open", Fault(error="internal_error"))
        bot = build(slack, fakes.chat(), Clock())
        running = asyncio.create_task(bot.run())
        await asyncio.wait_for(bot.ready.wait(), WAIT)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_secrets_stay_out_of_the_log(transport: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not at the chattiest level either: tokens, the signing secret, socket tickets, response URLs."""
    caplog.set_level(logging.DEBUG)
    async with talk(transport) as t:
        logging.getLogger("bots.slack.library").setLevel(logging.DEBUG)
        t.slack.fail("chat.postMessage", Fault(error="not_in_channel"))
        await t.slack.says("hi", channel="D1")
        await t.slack.commands("ask hello?")
        await t.slack.post(1)
        url = next(iter(t.slack.response_uses))
        if transport == "socket":
            t.slack.drops()
            await t.slack.until(lambda: t.slack.connections == 2)
        assert BOT_TOKEN not in repr(t.bot)
    logging.getLogger("bots.slack.library").setLevel(logging.WARNING)
    assert caplog.text
    for secret in (BOT_TOKEN, APP_TOKEN, SIGNING_SECRET, "secret-ticket", f"/commands/{url}"):
        assert secret not in caplog.text


async def test_a_proxy_is_used_for_everything(transport: str) -> None:
    """`SLACK_PROXY` carries the Web API, the socket and response URLs; nothing else knows the way to that Slack."""
    async with SlackServer(transport) as slack:
        slack.public_url = "http://slack.invalid"
        bot = build(slack, fakes.chat(), Clock(), api_url="http://slack.invalid/api/", proxy=slack.url)
        running = asyncio.create_task(bot.run())
        await asyncio.wait_for(bot.ready.wait(), WAIT)
        url = slack.response_url().replace(slack.url, "http://slack.invalid")
        await slack.commands("ask hello?", url=url)
        assert (await slack.post(1)).text == "hello"
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_the_environments_proxy_leaves_loopback_alone(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`HTTPS_PROXY` with `NO_PROXY` is honoured, where slack_sdk by itself would send everything to the proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    async with talk(transport) as t:
        await t.slack.commands("ask hello?")
        assert (await t.slack.post(1)).text == "hello"


# Socket Mode


async def test_a_dropped_line_is_replaced() -> None:
    """A line that breaks is replaced at once; what Slack sends again under a new envelope id is answered once."""
    async with talk("socket") as t:
        t.slack.drops()
        await t.slack.until(lambda: t.slack.connections == 2)
        await t.slack.says("hi", channel="D1")
        await t.slack.post(1)


async def test_a_silent_line_is_noticed() -> None:
    """A line that dies without a word is noticed within one and a half pings, and the lost event comes again."""
    async with talk("socket", timeouts=ALERT) as t:
        t.slack.falls_silent()
        await t.slack.until(lambda: t.slack.connections >= 2, 9)  # what slack_sdk's own client takes
        await t.slack.says("hi", channel="D1")
        await t.slack.post(1)
        await t.quiet()


async def test_an_event_lost_with_its_line_is_answered_once() -> None:
    """An event whose acknowledgement got lost is sent again on the new line, and answered once."""
    async with talk("socket", timeouts=ALERT) as t:
        t.slack.falls_silent()  # it hears, but its acknowledgement is lost
        saying = asyncio.create_task(t.slack.says("hi", channel="D1"))
        await t.slack.post(1)
        await t.slack.until(lambda: t.slack.connections >= 2)
        await asyncio.wait_for(saying, WAIT)
        await t.quiet()


@pytest.mark.parametrize("reason", ["warning", "refresh_requested"])
async def test_slack_may_ask_for_a_new_line(reason: str) -> None:
    """On Slack's `disconnect` the new socket stands before the old one goes, so that nothing is lost between."""
    async with talk("socket") as t:
        await t.slack.disconnects(reason)
        await t.slack.until(lambda: t.slack.connections == 2)
        assert not t.slack.sockets[0].closed
        await t.slack.says("hi", channel="D1")
        await t.slack.post(1)
        await t.slack.until_known(lambda: t.slack.sockets[0].closed)
        assert t.slack.connections == 2


async def test_reconnecting_survives_faults() -> None:
    """Slack's errors, and a socket address that leads nowhere, only cost time while reconnecting."""
    async with talk("socket") as t:
        t.slack.fail("apps.connections.open", Fault(status=503), Fault(error="fatal_error"))
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            t.slack.public_url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
            t.slack.drops()
            await t.slack.until(lambda: len(t.slack.called("apps.connections.open")) >= 5)
        t.slack.public_url = ""
        await t.slack.until(lambda: t.slack.connections == 2)
        await t.slack.says("hi", channel="D1")
        await t.slack.post(1)


# HTTP


EVENT = json.dumps(
    {
        "type": "event_callback",
        "event_id": "Ev9",
        "team_id": "T0001",
        "event": {"type": "message", "channel_type": "im", "channel": "D1", "user": "UANN", "text": "hi", "ts": "1.1"},
    }
)
JSON = {"Content-Type": "application/json"}
DOOR = [
    ("as Slack signs it", EVENT, {}, {}, 200),
    ("another secret", EVENT, {"secret": "guessed"}, {}, 401),
    ("six minutes old", EVENT, {"age": 360}, {}, 401),
    ("from the future", EVENT, {"age": -360}, {}, 401),
    ("no timestamp", EVENT, {}, {"X-Slack-Request-Timestamp": ""}, 401),
    ("a timestamp that is none", EVENT, {}, {"X-Slack-Request-Timestamp": "now"}, 401),
    ("no signature", EVENT, {}, {"X-Slack-Signature": ""}, 401),
    ("no JSON", "{nonsense", {}, {}, 400),
]


@pytest.mark.parametrize(("case", "content", "signing", "headers", "status"), DOOR, ids=[row[0] for row in DOOR])
async def test_only_slack_gets_in(
    case: str, content: str, signing: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    """Requests with a wrong signature or a stale timestamp are turned away and do nothing."""
    async with talk("http") as t:
        assert (await t.slack.sends(content, headers={**JSON, **headers}, **signing))[0] == status
        if status == 200:
            await t.slack.post(1)
        else:
            await t.quiet()


async def test_the_door_answers_slacks_knock() -> None:
    """`url_verification` is answered with its challenge, and the health path says that the door is open."""
    async with talk("http") as t:
        knock = json.dumps({"type": "url_verification", "challenge": "abc123", "token": "x"})
        status, text = await t.slack.sends(knock, headers=JSON)
        assert (status, json.loads(text)) == (200, {"challenge": "abc123"})
        health = t.slack.request_url.replace("/slack/events", "/health")
        async with aiohttp.ClientSession() as session, session.get(health) as response:
            assert (response.status, await response.json()) == (200, {"ok": True})


async def test_a_taken_port_is_one_sentence() -> None:
    """Where somebody else listens already, the bot says which setting to change."""
    async with SlackServer("http") as slack:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            assert "SLACK_HTTP_PORT" in await refused(slack, port=taken.getsockname()[1])
