"""HTTP mode against everybody else: nothing is parsed unsigned, nobody can keep Slack out or fill the log."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from bots.slack import http_mode
from bots.slack.http_mode import BODY_LIMIT, CONNECTIONS, HttpMode
from tests.bots.slack_talk import free_port, talk
from tests.fakes import FakeGenerator
from tests.slack_server import WAIT, SlackServer

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
DEEP = "[" * 100_000
UNREADABLE = [
    ("no JSON", "{nonsense", JSON, 400),
    ("no object", "[]", JSON, 400),
    ("nested without end", DEEP, JSON, 400),
    ("half a character", '{"type": "\\ud800"}', JSON, 200),
    ("numbers beyond bounds", '{"type": 1e999, "event": NaN}', JSON, 200),
    ("a form without a payload", "a=b", FORM, 200),
    ("a form whose payload is none", "payload=%7Bnonsense", FORM, 400),
    ("a form whose payload is a list", "payload=%5B%5D", FORM, 400),
    ("an event that is none", '{"type": "event_callback", "event": [1]}', JSON, 200),
    (
        "an event of nulls",
        '{"type": "event_callback", "event": {"type": "message", "channel": null, "ts": 5}}',
        JSON,
        200,
    ),
    ("a command of lists", '{"command": "/person2", "user_id": ["U"], "channel_id": {}}', JSON, 200),
    ("authorizations that are none", '{"type": "event_callback", "authorizations": 7, "team_id": {}}', JSON, 200),
]


@pytest.mark.parametrize(("case", "content", "headers", "status"), UNREADABLE, ids=[row[0] for row in UNREADABLE])
async def test_odd_json_is_no_fault(
    case: str, content: str, headers: dict[str, str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is signed is read or refused in a word, and the log gets no traceback."""
    async with talk("http") as t:
        assert (await t.slack.sends(content, headers=headers))[0] == status
        await t.slack.says("still there?", channel="D1")
        await t.slack.post(1)
    assert "Traceback" not in caplog.text


async def test_a_large_body_is_refused_before_it_is_read() -> None:
    """By its header, and where that says nothing as soon as it grows too large."""
    async with talk("http") as t:
        assert (await t.slack.sends("x" * (BODY_LIMIT + 1), headers=JSON))[0] == 413
        assert (await t.slack.sends("x" * BODY_LIMIT, headers=JSON))[0] == 400


async def test_a_wrong_secret_is_said_once_and_known_to_the_health_check(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred requests that somebody else signed are one warning; while none was ours, the health check names it."""
    async with talk("http") as t:
        assert t.bot.trouble() is None
        for _ in range(100):
            assert (await t.slack.sends("{}", headers=JSON, secret="another"))[0] == 401
        assert caplog.text.count("SLACK_SIGNING_SECRET") == 1
        assert "SLACK_SIGNING_SECRET matches none of 100 requests" in str(t.bot.trouble())
        await t.slack.says("hello", channel="D1")
        assert t.bot.trouble() is None


# What is sent byte by byte


class Line:
    """A connection that says what the test says, and nothing else."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def says(self, text: str) -> None:
        self._writer.write(text.encode())
        await self._writer.drain()

    async def hears(self) -> str:
        """Everything until the line is closed."""
        try:
            return (await asyncio.wait_for(self._reader.read(), WAIT)).decode()
        except ConnectionError:
            return ""

    async def status(self) -> str:
        """The status of one response."""
        return (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), WAIT)).split()[1].decode()

    async def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def serving(**deadlines: float) -> AsyncIterator[tuple[int, list[Any]]]:
    """The door alone: its port, and what came through it."""
    taken: list[Any] = []

    async def receive(body: Any) -> None:
        taken.append(body)

    port = free_port()
    listening = asyncio.Event()
    door = HttpMode(
        receive,
        signing_secret="secret",
        host="127.0.0.1",
        port=port,
        path="/slack/events",
        listening=listening.set,
        **deadlines,  # type: ignore[arg-type]  # the deadlines among its options
    )
    running = asyncio.create_task(door.run())
    await listening.wait()
    try:
        yield port, taken
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def line(port: int) -> AsyncIterator[Line]:
    opened = Line(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield opened
    finally:
        await opened.close()


def head(*, length: int, age: float = 0, signature: str = "v0=00") -> str:
    return (
        "POST /slack/events HTTP/1.1\r\nHost: bot\r\nContent-Type: application/json\r\n"
        f"X-Slack-Request-Timestamp: {int(time.time() - age)}\r\nX-Slack-Signature: {signature}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )


REFUSED_BY_HEADER: list[tuple[str, dict[str, Any], str]] = [
    ("too old", {"length": 1000, "age": 1000}, "401"),
    ("too large", {"length": BODY_LIMIT + 1}, "413"),
    ("a signature that is none", {"length": 1000, "signature": "\u00e9"}, "401"),
]


@pytest.mark.parametrize(("case", "fields", "status"), REFUSED_BY_HEADER, ids=[row[0] for row in REFUSED_BY_HEADER])
async def test_headers_are_enough_to_refuse(case: str, fields: dict[str, Any], status: str) -> None:
    """The body of a request that cannot be Slack's is not waited for."""
    async with serving(body_seconds=1000) as (port, taken), line(port) as opened:
        await opened.says(head(**fields))
        assert (await opened.hears()).split()[1] == status
        assert taken == []


async def test_slow_requests_are_ended() -> None:
    """Headers and bodies have their deadlines, also on a connection that was well-behaved before."""
    async with serving(header_seconds=0.2, body_seconds=0.2) as (port, taken):
        async with line(port) as nothing, line(port) as half, line(port) as slow, line(port) as second:
            await half.says("POST /slack/events HTTP/1.1\r\nHost: b")
            await slow.says(head(length=1000) + "{")
            await second.says("GET /health HTTP/1.1\r\nHost: bot\r\n\r\n")
            assert await second.status() == "200"
            await second.says("GET /hea")
            assert await nothing.hears() == ""
            assert await half.hears() == ""
            assert (await slow.hears()).split()[1] == "408"
            assert "HTTP" not in await second.hears()
        assert taken == []


async def test_a_thousand_idle_connections_keep_nobody_out(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever opens connections without an end loses the oldest of them; Slack gets in, and the log stays short."""
    async with talk("http") as t, AsyncExitStack() as stack:
        port = int(t.slack.request_url.rpartition(":")[2].partition("/")[0])
        for number in range(4 * CONNECTIONS):
            opened = await stack.enter_async_context(line(port))
            await opened.says("POST /slack/events HTTP/1.1\r\nHost: b" if number % 2 else head(length=1000) + "{")
        await t.slack.says("hello?", channel="D1")
        await t.slack.post(1)
        warnings = [record for record in caplog.records if record.name == http_mode.__name__]
        assert len(warnings) <= 4


async def test_bodies_of_strangers_hold_up_nobody() -> None:
    """Large unsigned bodies come in all the time; events are taken in beside them."""
    async with talk("http") as t:
        body = json.dumps([[]] * (BODY_LIMIT // 8))

        async def stranger() -> None:
            while True:
                status, _ = await t.slack.sends(body, headers=JSON, secret="guessed")
                assert status == 401

        strangers = [asyncio.create_task(stranger()) for _ in range(5)]
        for number in range(20):
            await t.slack.says(f"hello {number}", channel=f"D{number}", user=f"U{number}")
        await t.slack.post(20)
        assert not any(each.done() for each in strangers)
        for each in strangers:
            each.cancel()
        await asyncio.gather(*strangers, return_exceptions=True)


async def test_what_cannot_be_stored_in_time_is_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory takes longer than Slack waits there is no acknowledgement, and the next delivery is harmless."""
    async with talk("http") as t:
        remember = t.memory.remember

        def slowly(*args: Any, **kwargs: Any) -> int | None:
            time.sleep(2.5)
            return remember(*args, **kwargs)

        monkeypatch.setattr(t.memory, "remember", slowly)
        said = {"type": "message", "channel_type": "im", "user": "UANN", "text": "hi", "channel": "D1", "ts": "1.1"}
        assert await t.slack.offers(said) is None
        monkeypatch.undo()
        assert await t.slack.offers(said) == {}
        await t.slack.post(1)
        assert [item.message.text for item in t.memory.everything()] == ["hi", "hello"]


@pytest.mark.parametrize("transport", ["socket", "http"])
async def test_what_is_acknowledged_is_stored(transport: str) -> None:
    """At the moment of the acknowledgement the words are in the database, though Slack does not tell who is meant and
    the model thinks for ever."""
    server = SlackServer(transport)
    server.hanging.add("users.info")
    async with talk(transport, server=server, generator=FakeGenerator(gate=asyncio.Event())) as t:
        for number in range(12):
            await t.slack.says(f"hello <@UBEN> {number}", channel=f"D{number}", user=f"U{number}")
            assert f"hello @someone {number}" in [said.message.text for said in t.memory.everything()]
        assert max(t.slack.ack_seconds) < 2


@pytest.mark.parametrize("transport", ["socket", "http"])
async def test_names_come_later(transport: str) -> None:
    """A message is stored at once, and the names are in it before it is answered."""
    async with talk(transport) as t:
        await t.slack.says("ask <@UBEN>", channel="D1")
        await t.slack.post(1)
        assert t.prompts == ["Person1: ask @Ben\nPerson2:"]
        assert next(item.message.author_name for item in t.memory.everything()) == "Ann"


async def test_the_log_of_broken_requests_is_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    """What no HTTP client would send is answered and not written down."""
    caplog.set_level(logging.INFO)
    async with serving() as (port, _):
        before = len(caplog.records)
        for nonsense in (
            "\x00\x01\x02\r\n\r\n",
            "GET / HTTP/9.9\r\n\r\n",
            "POST /slack/events HTTP/1.1\r\nX: \x00\r\n\r\n",
        ):
            async with line(port) as opened:
                await opened.says(nonsense)
                await opened.hears()
        assert caplog.records[before:] == []
