"""A workspace the bot is installed in, and the Web client that speaks there; knows proxies and retries, no event."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncConnectionErrorRetryHandler,
    AsyncRateLimitErrorRetryHandler,
    AsyncServerErrorRetryHandler,
)
from slack_sdk.web.async_client import AsyncWebClient

from bots.slack.errors import discreet
from bots.slack.outbox import Outbox
from core.recent import Recent

SLACK_API = "https://slack.com/api/"

REQUEST_SECONDS = 30
"""slack_sdk's own default for one request."""

RETRIES = 3
"""Further attempts at a request of ours that was rate-limited, broke off or met a server error; what is said in a
workspace goes through its outbox, which is more patient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    team: str
    bot_user: str
    """The bot's member id: what a mention names."""
    bot_id: str = ""
    bot_name: str = "Person2"
    client: AsyncWebClient = field(repr=False)
    """Makes one attempt at each call; `api` gives it with a token that is good."""
    outbox: Outbox = field(default_factory=Outbox, repr=False)
    posts: Recent[None] = field(default_factory=Recent, repr=False)
    """Channel and timestamp of what was posted lately."""
    renewed: Callable[[], Awaitable[object]] | None = field(default=None, repr=False)
    """Waits until an expired token has been exchanged, where tokens expire."""

    async def api(self) -> AsyncWebClient:
        if self.renewed is not None:
            await self.renewed()
        return self.client


class Discreet(logging.Filter):
    """Masks tokens, socket tickets and response URLs in what the libraries log."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = discreet(record.getMessage()), None
        if record.exc_info and record.exc_info[1] is not None:
            formatted = logging.Formatter().formatException(record.exc_info)
            record.exc_text, record.exc_info = discreet(formatted), None
        return True


def library_log() -> logging.Logger:
    """The logger that slack-bolt and slack_sdk write to on our behalf."""
    logger = logging.getLogger("bots.slack.library")
    if not any(isinstance(each, Discreet) for each in logger.filters):
        logger.addFilter(Discreet())
        logger.setLevel(logging.WARNING)
    return logger


def base_url(api_url: str | None) -> str:
    """Where Web API methods live, ending in a slash; a bare host gets Slack's own `/api/`."""
    if not api_url:
        return SLACK_API
    if urlsplit(api_url).path in {"", "/"}:
        return f"{api_url.rstrip('/')}/api/"
    return f"{api_url.rstrip('/')}/"


def proxy_for(url: str, proxy: str | None) -> str | None:
    """The proxy to use: the one set, else the environment's, unless its `no_proxy` names this host.

    slack_sdk by itself would take `HTTPS_PROXY` for every host, loopback included.
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
    """A client that, with `retries`, waits out rate limits and tries again after server errors and broken lines."""
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
