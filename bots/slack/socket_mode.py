"""Socket Mode: keep one WebSocket to Slack alive, and put a new one in place before the old one goes.

Knows slack_sdk's socket client; knows no event. slack_sdk's own reconnection retries a used-up
socket URL for ever, swallows permanent refusals and closes the old socket before the new one stands
(slackapi/python-slack-sdk issues 1446 and 1922), so its client serves here for exactly one connection each.

https://docs.slack.dev/apis/events-api/using-socket-mode
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
from slack_sdk.errors import SlackClientError
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack.dispatch import NotStored, Receive
from bots.slack.errors import NETWORK, discreet, explain
from bots.slack.workspace import library_log, proxy_for
from core.errors import Refused

log = logging.getLogger(__name__)


LARGEST_MESSAGE = 4 * 1024 * 1024
"""Bytes of a WebSocket message; Slack's are far smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How quickly a lost line is noticed and replaced; tests scale it down."""

    ping_seconds: float = 3.0
    """A WebSocket ping after so much silence, and half of it again for the answer: a silent drop is noticed within
    4.5 s. Slack's own Node client pings a little oftener and gives up after 5 s (`clientPingTimeout`,
    https://github.com/slackapi/node-slack-sdk, packages/socket-mode)."""
    look_seconds: float = 0.25
    """How often a socket is checked for having been closed underneath us."""
    connect_seconds: float = 10.0
    """Longest wait for a new socket."""
    linger_seconds: float = 5.0
    """How long an old socket stays open beside the new one, so that what was already sent on it is acknowledged;
    Slack allows ten at once."""
    first_backoff: float = 0.5
    longest_backoff: float = 30.0


class Connection(SocketModeClient):
    """slack_sdk's client for one WebSocket: where it would reconnect by itself it says so (`over`) instead."""

    def __init__(self, app_token: str, *, web_client: AsyncWebClient, proxy: str | None, ping_interval: float) -> None:
        super().__init__(app_token, logger=library_log(), web_client=web_client, ping_interval=ping_interval)
        self.proxy = proxy
        self.over = asyncio.Event()
        self.on_error_listeners.append(self._noticed)
        self.on_close_listeners.append(self._noticed)

    async def connect(self) -> None:
        """Raises what aiohttp raises where no socket can be had."""
        self.current_session = await self.aiohttp_client_session.ws_connect(
            str(self.wss_uri),
            autoping=False,
            heartbeat=self.ping_interval,
            proxy=self.proxy,
            timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            max_msg_size=LARGEST_MESSAGE,
        )
        self.message_receiver = asyncio.ensure_future(self.receive_messages())

    async def connect_to_new_endpoint(self, force: bool = False) -> None:
        """Called for Slack's `disconnect` message (`warning`, `refresh_requested`) and for a CLOSE frame."""
        self.over.set()

    async def ended(self, look_seconds: float) -> None:
        """Returns once this connection is, or soon will be, of no use."""
        while not self.over.is_set() and self.current_session is not None and not self.current_session.closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(look_seconds):
                    await self.over.wait()

    async def _noticed(self, message: aiohttp.WSMessage) -> None:
        self.over.set()


class SocketMode:
    """Receives over Socket Mode until cancelled."""

    def __init__(
        self,
        receive: Receive,
        *,
        app_token: str,
        client: AsyncWebClient,
        proxy: str | None = None,
        pace: Pace | None = None,
        connected: Callable[[], None] = lambda: None,
        lost: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        self._receive = receive
        self._app_token = app_token
        self._client = client
        self._proxy = proxy
        self._pace = pace or Pace()
        self._connected = connected
        self._lost = lost
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._farewells: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Raises Refused where Slack will not have us; everything else is tried again."""
        current: Connection | None = None
        failures = 0
        try:
            while True:
                since = time.monotonic()
                try:
                    fresh = await self._connect()
                except Refused:
                    raise
                except (SlackClientError, *NETWORK) as error:
                    failures += 1
                    self._lost()
                    log.warning(
                        "Slack cannot be reached (%s): trying again", discreet(f"{type(error).__name__}: {error}")
                    )
                    await self._pause(failures)
                    continue
                if current is not None:
                    self._bid_farewell(current)
                current = fresh
                self._connected()
                log.info("connected to Slack by Socket Mode")
                await current.ended(self._pace.look_seconds)
                log.info("the line to Slack ends: connecting anew")
                # A server that hangs up at once is not asked again at once.
                failures = failures + 1 if time.monotonic() - since < self._pace.first_backoff else 0
                if failures:
                    await self._pause(failures)
        finally:
            if current is not None:
                await _close(current)
            for task in self._farewells:
                task.cancel()
            await asyncio.gather(*self._farewells, return_exceptions=True)

    async def _connect(self) -> Connection:
        try:
            response = await self._client.apps_connections_open(app_token=self._app_token)
        except SlackClientError as error:
            problem = explain(error, variable="SLACK_APP_TOKEN")
            if isinstance(problem, Refused):
                raise problem from error
            raise
        url = str(response.get("url") or "")
        connection = Connection(
            self._app_token,
            web_client=self._client,
            proxy=proxy_for(url, self._proxy),
            ping_interval=self._pace.ping_seconds,
        )
        connection.wss_uri = url
        connection.socket_mode_request_listeners.append(self._handle)
        try:
            # Not wait_for: on Python 3.11 it loses a cancellation that meets a result (python/cpython issue 86296).
            async with asyncio.timeout(self._pace.connect_seconds):
                await connection.connect()
        except BaseException:
            await _close(connection)
            raise
        return connection

    async def _handle(self, client: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        """Take a payload in, then acknowledge it."""
        try:
            await self._receive(request.payload)
        except NotStored:
            log.warning("what Slack sent could not be stored: it is to come again")
            return
        try:
            await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
        except (ConnectionError, SlackClientError, aiohttp.ClientError) as error:
            # Slack sends the envelope again on the next socket, and its event id is known by then.
            log.info("an acknowledgement was lost with its socket: %s", type(error).__name__)

    def _bid_farewell(self, old: Connection) -> None:
        async def later() -> None:
            try:
                if old.current_session is not None and not old.current_session.closed:
                    await asyncio.sleep(self._pace.linger_seconds)
            finally:
                await _close(old)

        task = asyncio.create_task(later())
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    async def _pause(self, failures: int) -> None:
        longest = min(self._pace.longest_backoff, self._pace.first_backoff * 2.0 ** min(failures - 1, 16))
        await asyncio.sleep(longest * (0.5 + self._rng.random() / 2))


async def _close(connection: Connection) -> None:
    with suppress(Exception):  # a broken socket may fail to close in any way; it is given up either way
        async with asyncio.timeout(3.0):
            await connection.close()  # type: ignore[no-untyped-call]
