"""Discord's REST API through discord.py 2.7.1: its address, how its answers are read, and a login that does without
what compatible servers leave out. A later discord.py can break only this file, `payloads` and `gateway`.
"""

import json
import logging
import math
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import aiohttp
import discord
from discord.http import Route
from yarl import URL

from bots.discord.pacing import Pacer
from bots.discord.payloads import answer, application

log = logging.getLogger(__name__)


def point_at(api_base: str | None) -> None:
    """Send every REST call of this process to another API base; None leaves Discord's own.

    The base may end in `/api/v10`, in `/api`, or be the bare host.
    """
    if api_base is None:
        return
    base = api_base.rstrip("/")
    if not re.search(r"/v\d+$", base):
        base += "/v10" if base.endswith("/api") or URL(base).path.strip("/") else "/api/v10"
    Route.BASE = base


async def _read_body(response: aiohttp.ClientResponse) -> Any:
    """The body of an answer. discord.py parses JSON only where the content type is exactly `application/json`; many
    servers add a character set."""
    text = await response.text(encoding="utf-8")
    if response.content_type == "application/json":
        try:
            return answer(json.loads(text))
        except (LookupError, TypeError, ValueError):
            log.debug("a response from Discord cannot be parsed: HTTP %s", response.status)
    return text


def read_leniently() -> None:
    """Make discord.py read REST answers as `_read_body` does, in the whole process."""
    for module in (discord.http, discord.webhook.async_):
        module.json_or_text = _read_body  # type: ignore[attr-defined]
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # we use no voice channels
    for name in ("discord.client", "discord.shard"):
        if _without_traceback not in (filters := logging.getLogger(name).filters):
            filters.append(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Log a refused connection as one line; discord.py logs it with its traceback each time."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (OSError, aiohttp.ClientError, discord.DiscordException)) and not log.isEnabledFor(
        logging.DEBUG
    ):
        record.msg, record.args = f"{record.getMessage()} ({type(error).__name__}: {error})", ()
        record.exc_info = record.exc_text = None
    return True


def login_leniently(client: discord.Client) -> None:
    """Log in to servers that have no endpoint for applications, too."""
    ask = client.http.application_info

    async def application_info() -> Any:
        me = client.user
        try:
            said = await ask()
        except discord.HTTPException as error:
            if error.status not in {403, 404, 405, 501}:
                raise
            said = {}  # type: ignore[typeddict-item]
        return application(said, {"id": me.id if me is not None else 0})

    client.http.application_info = application_info  # type: ignore[method-assign]


def paced(pacer: Pacer) -> aiohttp.TraceConfig:
    """Make each REST call, including discord.py's retries, wait for its turn just before it is sent."""
    trace = aiohttp.TraceConfig()

    async def started(_: aiohttp.ClientSession, __: SimpleNamespace, call: aiohttp.TraceRequestStartParams) -> None:
        if _counted(call.url):
            await pacer.turn()

    async def ended(_: aiohttp.ClientSession, __: SimpleNamespace, call: aiohttp.TraceRequestEndParams) -> None:
        headers, status = call.response.headers, call.response.status
        if status in {401, 403, 429}:
            pacer.count_invalid()
        if status == 429 and ("X-RateLimit-Global" in headers or headers.get("X-RateLimit-Scope") == "global"):
            pacer.hold(seconds_of(headers))

    trace.on_request_start.append(started)
    trace.on_request_end.append(ended)
    return trace


def _counted(url: URL) -> bool:
    """Whether a call counts against the bot's global limit; answers to interactions do not, nor does the gateway
    (https://discord.com/developers/docs/interactions/receiving-and-responding#endpoints)."""
    path = str(url)
    return path.startswith(Route.BASE) and not path.startswith((f"{Route.BASE}/interactions", f"{Route.BASE}/webhooks"))


def seconds_of(headers: Mapping[str, str]) -> float:
    """Seconds that a 429 asks to wait; 1 where it does not say."""
    try:
        seconds = float(headers.get("Retry-After", 1.0))
    except ValueError:
        return 1.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 1.0
