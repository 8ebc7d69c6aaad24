"""All that depends on slack_sdk's internals, and on using it with servers other than Slack's.

A later slack_sdk can break only this file. `payloads` handles what compatible servers leave out of their JSON.
"""

import asyncio
import logging
from contextlib import suppress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncConnectionErrorRetryHandler,
    AsyncRateLimitErrorRetryHandler,
    AsyncServerErrorRetryHandler,
)
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack.errors import redact

SLACK_API = "https://slack.com/api/"

REQUEST_SECONDS = 30
"""slack_sdk's own default for one request."""

RETRIES = 3
"""Retries of a request that was rate-limited, interrupted or met a server error; posts go through the workspace's
outbox, which retries for longer."""

LARGEST_MESSAGE = 4 * 1024 * 1024
"""Bytes of a WebSocket message; Slack's are far smaller."""


class SlackRedactingFilter(logging.Filter):
    """Masks tokens, socket tickets and response URLs in what the libraries log."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info and record.exc_info[1] is not None:
            formatted = logging.Formatter().formatException(record.exc_info)
            record.exc_text, record.exc_info = redact(formatted), None
        return True


def library_log() -> logging.Logger:
    """The logger that slack-bolt and slack_sdk write to on our behalf."""
    logger = logging.getLogger("bots.slack.library")
    if not any(isinstance(each, SlackRedactingFilter) for each in logger.filters):
        logger.addFilter(SlackRedactingFilter())
        logger.setLevel(logging.WARNING)
    return logger


def base_url(api_url: str | None) -> str:
    """The base of Web API methods, ending in a slash; a bare host gets Slack's `/api/`."""
    if not api_url:
        return SLACK_API
    if urlsplit(api_url).path in {"", "/"}:
        return f"{api_url.rstrip('/')}/api/"
    return f"{api_url.rstrip('/')}/"


def proxy_for(url: str, proxy: str | None) -> str | None:
    """The proxy to use: the given one, else the environment's, unless its `no_proxy` names this host.

    slack_sdk by itself uses `HTTPS_PROXY` for every host, even loopback.
    """
    if proxy:
        return proxy
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    known = getproxies()
    secure = parts.scheme in {"https", "wss"}
    return known.get("https" if secure else "http")


def web_client(
    *,
    token: str | None,
    url: str,
    proxy: str | None,
    session: aiohttp.ClientSession | None = None,
    retries: int = RETRIES,
) -> AsyncWebClient:
    """A client that, with `retries`, waits out rate limits and tries again after server errors and lost connections."""
    client = AsyncWebClient(
        token=token,
        base_url=url,
        timeout=REQUEST_SECONDS,
        session=session,
        logger=library_log(),
        retry_handlers=[
            AsyncConnectionErrorRetryHandler(max_retry_count=retries),
            AsyncRateLimitErrorRetryHandler(max_retry_count=retries),
            AsyncServerErrorRetryHandler(max_retry_count=retries),
        ]
        if retries
        else [],
    )
    client.proxy = proxy_for(url, proxy)
    return client


class SocketConnection(SocketModeClient):
    """slack_sdk's client for one WebSocket: where it would reconnect by itself, it sets `over` instead."""

    def __init__(self, app_token: str, *, web_client: AsyncWebClient, proxy: str | None, ping_interval: float) -> None:
        super().__init__(app_token, logger=library_log(), web_client=web_client, ping_interval=ping_interval)
        self.proxy = proxy
        self.over = asyncio.Event()
        self.on_error_listeners.append(self._noticed)
        self.on_close_listeners.append(self._noticed)

    async def connect(self) -> None:
        """Open the socket. Raises aiohttp's errors."""
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
        """Return once this connection is closed, or about to be."""
        while not self.over.is_set() and self.current_session is not None and not self.current_session.closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(look_seconds):
                    await self.over.wait()

    async def _noticed(self, message: aiohttp.WSMessage) -> None:
        self.over.set()


async def close(connection: SocketConnection) -> None:
    with suppress(Exception):  # a broken socket may fail to close in any way; it is abandoned anyway
        async with asyncio.timeout(3.0):
            await connection.close()  # type: ignore[no-untyped-call]
