"""Socket Mode: keep one WebSocket to Slack alive, and open a new one before the old one is closed.

Knows slack_sdk's socket client; knows no event. slack_sdk's own reconnection retries a used-up socket URL forever,
swallows permanent refusals and closes the old socket before the new one is open (slackapi/python-slack-sdk issues 1446
and 1922), so each of its clients is used here for exactly one connection.

https://docs.slack.dev/apis/events-api/using-socket-mode
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable

import aiohttp
from slack_sdk.errors import SlackClientError
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack.compat import SocketConnection, close, proxy_for
from bots.slack.dispatch import NotStored, Receive
from bots.slack.errors import NETWORK, explain, redact
from bots.slack.timeouts import SlackTimeouts
from core.errors import PermanentPlatformError

log = logging.getLogger(__name__)


class SocketMode:
    """Receives over Socket Mode until cancelled."""

    def __init__(
        self,
        receive: Receive,
        *,
        app_token: str,
        client: AsyncWebClient,
        proxy: str | None = None,
        timeouts: SlackTimeouts | None = None,
        connected: Callable[[], None] = lambda: None,
        lost: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        self._receive = receive
        self._app_token = app_token
        self._client = client
        self._proxy = proxy
        self._timeouts = timeouts or SlackTimeouts()
        self._connected = connected
        self._lost = lost
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._retiring: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Raises PermanentPlatformError where Slack refuses the bot; everything else is retried."""
        current: SocketConnection | None = None
        failures = 0
        try:
            while True:
                since = time.monotonic()
                try:
                    fresh = await self._connect()
                except PermanentPlatformError:
                    raise
                except (SlackClientError, *NETWORK) as error:
                    failures += 1
                    self._lost()
                    log.warning(
                        "Slack cannot be reached (%s): trying again", redact(f"{type(error).__name__}: {error}")
                    )
                    await asyncio.sleep(self._timeouts.backoff(failures, self._rng))
                    continue
                if current is not None:
                    self._retire(current)
                current = fresh
                self._connected()
                log.info("connected to Slack by Socket Mode")
                await current.ended(self._timeouts.look)
                log.info("Slack is closing the connection: opening a new one")
                # Do not reconnect at once to a server that closes connections at once.
                failures = failures + 1 if time.monotonic() - since < self._timeouts.first_backoff else 0
                if failures:
                    await asyncio.sleep(self._timeouts.backoff(failures, self._rng))
        finally:
            if current is not None:
                await close(current)
            for task in self._retiring:
                task.cancel()
            await asyncio.gather(*self._retiring, return_exceptions=True)

    async def _connect(self) -> SocketConnection:
        try:
            response = await self._client.apps_connections_open(app_token=self._app_token)
        except SlackClientError as error:
            problem = explain(error, variable="SLACK_APP_TOKEN")
            if isinstance(problem, PermanentPlatformError):
                raise problem from error
            raise
        url = str(response.get("url") or "")
        connection = SocketConnection(
            self._app_token,
            web_client=self._client,
            proxy=proxy_for(url, self._proxy),
            ping_interval=self._timeouts.ping,
        )
        connection.wss_uri = url
        connection.socket_mode_request_listeners.append(self._handle)
        try:
            # Not wait_for: on Python 3.11 it may lose a cancellation (python/cpython issue 86296).
            async with asyncio.timeout(self._timeouts.connect):
                await connection.connect()
        except BaseException:
            await close(connection)
            raise
        return connection

    async def _handle(self, client: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        """Handle a payload, then acknowledge it."""
        try:
            await self._receive(request.payload)
        except NotStored:
            log.warning("what Slack sent could not be stored: Slack will send it again")
            return
        try:
            await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
        except (ConnectionError, SlackClientError, aiohttp.ClientError) as error:
            # Slack sends the envelope again on the next socket, where its event id is recognised.
            log.info("an acknowledgement was lost with its socket: %s", type(error).__name__)

    def _retire(self, old: SocketConnection) -> None:
        async def later() -> None:
            try:
                if old.current_session is not None and not old.current_session.closed:
                    await asyncio.sleep(self._timeouts.linger)
            finally:
                await close(old)

        task = asyncio.create_task(later())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
