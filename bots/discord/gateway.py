"""Discord's gateway: a client that keeps its session through outages and skips events that it cannot read.

Knows discord.py 2.7.1's internals; knows no chat, no memory.
"""

import asyncio
import itertools
import json
import logging
import math
import zlib
from collections.abc import Callable
from typing import Any

import aiohttp
import discord
from discord.gateway import DiscordWebSocket, ReconnectWebSocket
from discord.http import Route
from yarl import URL

from bots.discord.compat import login_leniently, paced, read_leniently
from bots.discord.pacing import Pacer
from bots.discord.payloads import EVENTS, frame, gateway_bot
from bots.discord.timeouts import DiscordTimeouts

log = logging.getLogger(__name__)

WARN_SECONDS = 60.0
"""Between two warnings of the same malformed event."""


class GatewayClient(discord.AutoShardedClient):
    """Resumes its session after outages, and skips events that it cannot read.

    discord.py by itself tries RESUME once, for 60 s, and then begins a new session, so that the events of a longer
    outage are lost; it ends on one malformed event; and it seldom retries a refused connection.
    """

    def __init__(
        self,
        *,
        intents: discord.Intents,
        proxy: str | None,
        gateway_url: str | None,
        timeouts: DiscordTimeouts,
        pacer: Pacer,
        activity: discord.Activity | None = None,
    ) -> None:
        read_leniently()
        super().__init__(
            intents=intents,
            proxy=proxy,
            activity=activity,
            allowed_mentions=discord.AllowedMentions.none(),
            max_messages=None,  # memory is ours
            http_trace=paced(pacer),
            max_ratelimit_timeout=timeouts.rate_limit,
        )
        self._timeouts = timeouts
        self._launching = False
        self._warned: dict[str, float] = {}
        self._gateway = URL(gateway_url) if gateway_url else None
        self._advised_gateway: URL | None = None
        self._open_socket = self.http.ws_connect
        self.http.ws_connect = self._ws_connect  # type: ignore[method-assign]  # every connection goes through it
        self._send = self.http.request
        self.http.request = self._request  # type: ignore[method-assign]
        self.http.get_bot_gateway = self._get_bot_gateway  # type: ignore[method-assign]
        login_leniently(self)
        self._note_socket = self._connection._update_references
        self._connection._update_references = self._complete_frames  # type: ignore[method-assign]
        self._guard_parsers()

    async def _request(self, route: Route, **options: Any) -> Any:
        # aiohttp's own limit of five minutes per call would include the time in the queue.
        limit = aiohttp.ClientTimeout(total=None, connect=self._timeouts.response, sock_read=self._timeouts.response)
        return await self._send(route, **{"timeout": limit, **options})

    async def _get_bot_gateway(self) -> tuple[int, str, Any]:
        url = str(self._gateway) if self._gateway else None
        try:
            said = await self.http.request(Route("GET", "/gateway/bot"))
        except discord.HTTPException as error:
            if error.status != 404:
                raise
            # A compatible server may have only this endpoint (https://discord.com/developers/docs/events/gateway).
            said = {} if url else await self.http.request(Route("GET", "/gateway"))
        shards, address, limits = gateway_bot(said, url=url)
        self._advised_gateway = URL(address)
        return shards, address, limits

    async def launch_shard(self, gateway: URL, shard_id: int, *, initial: bool = False) -> None:
        self._launching = True
        try:
            await super().launch_shard(gateway, shard_id, initial=initial)
        finally:
            self._launching = False
        shard = self.get_shard(shard_id)
        if shard is not None:
            self._keep_session(shard._parent)

    def _keep_session(self, shard: discord.shard.Shard) -> None:
        """Try RESUME until Discord declares the session invalid, alternating between the address that it gave for that
        and, in case that one is gone, the general one."""
        begin_anew, attempts, resume_at = shard.reconnect, 0, shard.ws.gateway

        async def reconnect() -> None:
            nonlocal resume_at
            ws = shard.ws
            if ws.session_id is None or ws.sequence is None:
                await begin_anew()
                return
            if ws.gateway != DiscordWebSocket.DEFAULT_GATEWAY:
                resume_at, ws.gateway = ws.gateway, DiscordWebSocket.DEFAULT_GATEWAY
            else:
                ws.gateway = resume_at
            await shard.reidentify(ReconnectWebSocket(shard.id))

        def delay() -> float:
            nonlocal attempts
            attempts = 0 if shard.ws.open else attempts + 1
            return self._timeouts.retry(attempts)

        shard.reconnect = reconnect  # type: ignore[method-assign]
        shard._backoff.delay = delay  # type: ignore[method-assign,assignment]  # its own grows to 17 minutes

    def _complete_frames(self, ws: DiscordWebSocket) -> None:
        """Called with each new socket: complete every frame before discord.py reads it."""
        self._note_socket(ws)
        read = ws.received_message

        async def received(data: str | bytes) -> None:
            try:
                if isinstance(data, bytes):
                    unpacked = ws._decompressor.decompress(data)
                    if unpacked is None:
                        return  # the rest of this frame follows
                    data = unpacked
            except (zlib.error, UnicodeDecodeError) as error:
                self._warn("a frame that cannot be decompressed", error)
                await ws.close()
                raise ReconnectWebSocket(ws.shard_id) from error
            try:
                said = json.loads(data)
                completed = frame(said, gateway=str(DiscordWebSocket.DEFAULT_GATEWAY), shard=_shard(ws))
            except (ValueError, RecursionError) as error:
                self._warn("a frame that is neither an event nor an operation", error)
                return
            if completed.get("op") == DiscordWebSocket.HELLO and ws._keep_alive is not None:
                return  # a second one would start another heartbeat thread
            await read(data if completed is said else json.dumps(completed))

        ws.received_message = received  # type: ignore[method-assign]

    def _address(self, url: URL) -> URL:
        """The address from the settings, else the one from Discord, else discord.py's default."""
        if self._gateway is not None:
            return self._gateway.with_query(url.query)
        if url.host == DiscordWebSocket.DEFAULT_GATEWAY.host and self._advised_gateway is not None:
            return self._advised_gateway.with_query(url.query)
        return url

    async def _ws_connect(self, url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
        """Connect, retrying for `DiscordTimeouts.reconnect` seconds; without limit for a first connection, which has no
        session to lose: there the caller bounds the time."""
        address = self._address(URL(url))
        until = self.loop.time() + (math.inf if self._launching else self._timeouts.reconnect)
        for attempt in itertools.count():
            try:
                async with asyncio.timeout(self._timeouts.connect):
                    return await self._open_socket(str(address), compress=compress)
            except (OSError, aiohttp.ClientError) as error:
                wait = self._timeouts.retry(attempt)
                if self.loop.time() + wait > until:
                    raise
                log.warning(
                    "Discord's gateway cannot be reached (%s); trying again in %.1f s", str(error) or "no answer", wait
                )
                await asyncio.sleep(wait)
        raise AssertionError  # unreachable: counting has no end

    def _guard_parsers(self) -> None:
        """Log and skip events that cannot be read, except READY, without which there is no connection."""
        parsers = self._connection.parsers

        def guarded(name: str, parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
            complete = EVENTS.get(name, lambda data: data)

            def read(data: Any) -> Any:
                try:
                    if name == "MESSAGE_UPDATE" and self._partly_edited(data):
                        return None
                    if name in {"CHANNEL_DELETE", "THREAD_DELETE"} and data.get("guild_id") is not None:
                        self.dispatch("place_delete", dict(data))  # discord.py reports only those in its cache
                    return parse(complete(self._located(data)))  # type: ignore[no-untyped-call]
                except Exception as error:  # the boundary: a malformed event may make discord.py raise anything
                    if name == "READY":
                        raise
                    self._warn(f"a malformed {name}", error)

            return read

        self._connection.parsers = {name: guarded(name, parse) for name, parse in parsers.items()}

    def _warn(self, what: str, error: Exception) -> None:
        """Log one line, at most once a minute for the same; the traceback at debug level."""
        now = self.loop.time()
        if now - self._warned.get(what, -WARN_SECONDS) >= WARN_SECONDS:
            self._warned[what] = now
            log.warning("skipped %s from Discord (%s: %s)", what, type(error).__name__, error)
        log.debug("skipped %s from Discord", what, exc_info=error)

    def _located(self, data: Any) -> Any:
        """Add the server's id to events of a known channel that lack it: else they would be taken for direct
        messages."""
        if isinstance(data, dict):
            if "token" in data:
                data.setdefault("application_id", self.application_id)
            if data.get("guild_id") is None and data.get("channel_id") is not None:
                guild = getattr(self.get_channel(int(data["channel_id"])), "guild", None)
                if guild is not None:
                    return {**data, "guild_id": str(guild.id)}
        return data

    def _partly_edited(self, data: Any) -> bool:
        """Handle an update of a message without its author, which discord.py cannot read; True if it was one."""
        if not isinstance(data, dict) or data.get("author"):
            return False
        if data.get("content") is not None:
            data = self._located(data)
            guild = data.get("guild_id")
            self.dispatch(
                "partial_edit",
                int(data["channel_id"]),
                None if guild is None else int(guild),
                int(data["id"]),
                str(data["content"]),
            )
        return True


def _shard(ws: DiscordWebSocket) -> tuple[int, int]:
    return ws.shard_id or 0, ws.shard_count or 1
