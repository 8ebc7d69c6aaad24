"""HTTP mode: a small server that accepts Slack's signed requests only.

Knows bytes, headers and connections; knows no event. No request is parsed before its signature was checked over the raw
bytes (https://docs.slack.dev/authentication/verifying-requests-from-slack).
"""

import asyncio
import hmac
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, cast
from urllib.parse import parse_qs

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response
from slack_bolt.oauth.async_oauth_flow import AsyncOAuthFlow
from slack_bolt.request.async_request import AsyncBoltRequest

from bots.slack.dispatch import NotStored, Receive
from core.errors import PermanentPlatformError

log = logging.getLogger(__name__)

HEALTH_PATH = "/health"

AGE_SECONDS = 5 * 60
"""Requests that are older, or from the future, are refused: they may be replayed."""

BODY_LIMIT = 512 * 1024
"""Bytes of a request's body: an edit of 12,000 characters, the most that a member can type, comes four times, as text
and as blocks, before and after, and each character may take six bytes."""

HEADER_SECONDS = 5.0
"""How long a connection may take to send a request's headers."""

BODY_SECONDS = 5.0
"""How long it may then take for the body; Slack itself gives up after three seconds."""

IDLE_SECONDS = 75.0
"""How long an idle connection is kept, such as a proxy's."""

CONNECTIONS = 256
"""Connections open at once; for a new one the oldest is closed, those of Slack's requests last."""

QUIET_SECONDS = 600.0
"""Between two warnings of the same kind, so that nobody outside can fill the log."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OccasionalWarnings:
    """Logs each warning at most once in `QUIET_SECONDS`, with the number of times it was raised."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._counts: dict[str, int] = {}
        self._said: dict[str, float] = {}

    def warn(self, sentence: str) -> None:
        now = self._monotonic()
        self._counts[sentence] = self._counts.get(sentence, 0) + 1
        if now - self._said.get(sentence, -QUIET_SECONDS) >= QUIET_SECONDS:
            log.warning("%s (%s so far)", sentence, self._counts[sentence])
            self._said[sentence] = now


class HttpConnection(asyncio.Protocol):
    """One connection: passes bytes on to aiohttp's protocol, and is closed where headers take too long."""

    def __init__(self, inner: asyncio.Protocol, server: "HttpMode") -> None:
        self._inner = inner
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.serving = False
        """A request's headers were received, and its response was not sent yet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connected(self)
        self._inner.connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and not self.serving:
            self._wait()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_waiting()
        self._server.disconnected(self)
        self._inner.connection_lost(error)

    def begun(self) -> None:
        """The headers of a request are complete."""
        self.serving = True
        self._stop_waiting()

    def ended(self) -> None:
        self.serving = False

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _wait(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(self._server.header_seconds, self._late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        self._server.warnings.warn("a connection took too long to send a request and was closed")
        self.drop()


class HttpMode:
    """Receives behind an HTTP server until cancelled; with `flow` also serves the pages of an installation."""

    def __init__(
        self,
        receive: Receive,
        *,
        signing_secret: str,
        host: str,
        port: int,
        path: str,
        flow: AsyncOAuthFlow | None = None,
        listening: Callable[[], None] = lambda: None,
        header_seconds: float = HEADER_SECONDS,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._receive = receive
        self._secret = signing_secret.encode()
        self._host = host
        self._port = port
        self._path = path if path.startswith("/") else f"/{path}"
        self._flow = flow
        self._listening = listening
        self.header_seconds = header_seconds
        self._body_seconds = body_seconds
        self.warnings = OccasionalWarnings()
        self._connections: OrderedDict[HttpConnection, None] = OrderedDict()
        self._verified = False
        """Whether any request had a valid signature."""
        self._mismatched = 0

    def trouble(self) -> str | None:
        """What is wrong, as the end of a sentence: no request had a valid signature."""
        if self._verified or not self._mismatched:
            return None
        return f"receives nothing (SLACK_SIGNING_SECRET matches none of {self._mismatched} requests)"

    async def run(self) -> None:
        """Serve until cancelled. Raises PermanentPlatformError where the address cannot be bound."""
        application = web.Application(middlewares=[_tracked])
        application.router.add_post(self._path, self._take)
        application.router.add_get(HEALTH_PATH, _health)
        if self._flow is not None:
            application.router.add_get(self._flow.install_path, self._install)
            application.router.add_get(self._flow.redirect_uri_path, self._callback)
        runner = web.AppRunner(
            application,
            access_log=None,
            logger=_silent(),
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=1.0,  # do not read a refused body to its end
            auto_decompress=False,  # the signature is over the raw bytes
            shutdown_timeout=3.0,
        )
        await runner.setup()
        aiohttp_protocol = cast(Callable[[], asyncio.Protocol], runner.server)
        try:
            try:
                server = await asyncio.get_running_loop().create_server(
                    lambda: HttpConnection(aiohttp_protocol(), self), self._host, self._port
                )
            except OSError as error:
                raise PermanentPlatformError(
                    f"Cannot bind {self._host}:{self._port} ({error.strerror or error}): "
                    "set SLACK_HTTP_HOST and SLACK_HTTP_PORT to a free address of this machine."
                ) from error
            try:
                log.info("listening for Slack on http://%s:%s%s", self._host, self._port, self._path)
                self._listening()
                await asyncio.Event().wait()
            finally:
                server.close()
        finally:
            await runner.cleanup()

    def connected(self, connection: HttpConnection) -> None:
        """Note a new connection, and close the oldest one where there are too many."""
        self._connections[connection] = None
        if len(self._connections) > CONNECTIONS:
            oldest, _ = self._connections.popitem(last=False)
            self.warnings.warn(f"more than {CONNECTIONS} connections at once: the oldest was closed")
            oldest.drop()

    def prefer(self, request: web.Request) -> None:
        """Make a connection with a valid request the last to be closed."""
        connection = _connection(request)
        if connection is not None and connection in self._connections:
            self._connections.move_to_end(connection)

    def disconnected(self, connection: HttpConnection) -> None:
        self._connections.pop(connection, None)

    async def _take(self, request: web.Request) -> web.Response:
        """Check headers, age and signature, then handle the body."""
        timestamp, signature = (
            request.headers.get("X-Slack-Request-Timestamp", ""),
            request.headers.get("X-Slack-Signature", ""),
        )
        if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12 and signature.isascii()):
            return _refused(401, "invalid request")
        if abs(time.time() - int(timestamp)) > AGE_SECONDS:
            self.warnings.warn("a request was too old, or this machine's clock is wrong")
            return _refused(401, "invalid request")
        if (request.content_length or 0) > BODY_LIMIT:
            return _refused(413, "too large")
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await _body(request)
        except TimeoutError:
            self.warnings.warn("a request body took too long to arrive")
            return _refused(408, "too slow")
        if body is None:
            return _refused(413, "too large")
        expected = hmac.new(self._secret, b"v0:" + timestamp.encode() + b":" + body, sha256).hexdigest()
        if not hmac.compare_digest(f"v0={expected}", signature):
            self._mismatched += 1
            self.warnings.warn(
                "a request had a wrong signature: if Slack sent it, copy SLACK_SIGNING_SECRET again from "
                "“Basic Information” of the app"
            )
            return _refused(401, "invalid request")
        self._verified = True
        self.prefer(request)
        return await self._answer(request.content_type, body)

    async def _answer(self, content_type: str, body: bytes) -> web.Response:
        payload = _parsed(content_type, body)
        if payload is None:
            return _refused(400, "unreadable body")
        if payload.get("type") == "url_verification":
            return web.json_response({"challenge": str(payload.get("challenge"))})
        try:
            await self._receive(payload)
        except NotStored:
            log.warning("what Slack sent could not be stored: Slack will send it again")
            return web.json_response({"error": "not stored"}, status=503)
        return web.Response()

    async def _install(self, request: web.Request) -> web.Response:
        assert self._flow is not None  # noqa: S101 - the route exists only with it
        return await to_aiohttp_response(await self._flow.handle_installation(_page_request(request)))

    async def _callback(self, request: web.Request) -> web.Response:
        assert self._flow is not None  # noqa: S101 - the route exists only with it
        return await to_aiohttp_response(await self._flow.handle_callback(_page_request(request)))


@web.middleware
async def _tracked(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection when a request's headers are complete, and when it was answered."""
    connection = _connection(request)
    if connection is None:
        return await handler(request)
    connection.begun()
    try:
        return await handler(request)
    finally:
        connection.ended()


def _connection(request: web.Request) -> HttpConnection | None:
    protocol = request.transport.get_protocol() if request.transport is not None else None
    return protocol if isinstance(protocol, HttpConnection) else None


def _page_request(request: web.Request) -> AsyncBoltRequest:
    """A browser's request for a page, as slack-bolt needs it; its body is not read."""
    return AsyncBoltRequest(body="", query=request.query_string, headers=dict(request.headers))


async def _body(request: web.Request) -> bytes | None:
    """The raw body; None where it is too large."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            return None
    return bytes(body)


def _parsed(content_type: str, body: bytes) -> dict[str, Any] | None:
    """A payload from JSON, or from a form, as commands and interactions are sent; None where it is neither."""
    try:
        text = body.decode()
        if content_type == "application/x-www-form-urlencoded":
            form = {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
            payload = json.loads(form["payload"]) if "payload" in form else form
        else:
            payload = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


def _refused(status: int, error: str) -> web.Response:
    """A response for a request that is not from Slack; closes the connection."""
    return web.json_response({"error": error}, status=status, headers={"Connection": "close"})


def _silent() -> logging.Logger:
    """A logger for aiohttp's errors about broken requests, which anybody can send: only at debug level."""
    logger = logging.getLogger(f"{__name__}.aiohttp")
    if not logger.filters:
        logger.addFilter(_debug_only)
    return logger


def _debug_only(record: logging.LogRecord) -> bool:
    return log.isEnabledFor(logging.DEBUG)


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"ok": True})
