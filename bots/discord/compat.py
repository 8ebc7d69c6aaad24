"""All that depends on how discord.py 2.7.1 is made inside, and on how servers speak that are not Discord's own.

Three parts: JSON as discord.py needs it (pure: what Discord documents as optional, what compatible servers leave out
or send as null); REST (the API base, bodies, the pace); and `GatewayClient`, which keeps its session through outages
and skips events that it cannot read. A later discord.py can break nothing but this file. Knows no chat, no memory.

https://discord.com/developers/docs/events/gateway-events, https://discord.com/developers/docs/resources/message
"""

import asyncio
import itertools
import json
import logging
import math
import re
import zlib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, TypeAlias

import aiohttp
import discord
from discord.gateway import DiscordWebSocket, ReconnectWebSocket
from discord.http import Route
from yarl import URL

from bots.discord.pacing import Pacer
from bots.discord.timeouts import DiscordTimeouts

log = logging.getLogger(__name__)

Json: TypeAlias = dict[str, Any]

WARN_SECONDS = 60.0
"""Between two warnings of the same malformed event."""

# JSON

_READ = frozenset(
    {
        "id", "channel_id", "guild_id", "author", "member", "content", "type", "webhook_id", "mentions",
        "mention_roles", "message_reference", "referenced_message", "flags", "message_snapshots", "attachments",
        "edited_timestamp",
    }
)  # fmt: skip
"""Fields of a message that `messages` reads; nothing else in it can then be unreadable."""

_NOBODY = {"id": "0", "username": "someone"}
HEARTBEAT = 41250
"""Milliseconds between heartbeats where a server does not say; Discord's own number."""


def without_nulls(data: Mapping[str, Any]) -> Json:
    return {name: value for name, value in data.items() if value is not None}


def user(data: Any) -> Json:
    """Raises LookupError, TypeError or ValueError for what is no user; so do the others here for what they mend."""
    return {"username": "someone", "discriminator": "0", "avatar": None, **without_nulls(data)}


def member(data: Any) -> Json:
    mended: Json = {"roles": [], "flags": 0, **without_nulls(data)}
    if "user" in mended:
        mended["user"] = user(mended["user"])
    return mended


def message(data: Any) -> Json:
    mended: Json = {"type": 0, "content": "", **{name: data[name] for name in _READ & without_nulls(data).keys()}}
    mended["author"] = user(mended.get("author", _NOBODY))
    if "member" in mended:
        mended["member"] = member(mended["member"])
    mended.setdefault("mention_roles", [])
    mended["mentions"] = [user(each) for each in mended.get("mentions", ()) if isinstance(each, dict)]
    for each in mended["mentions"]:
        if "member" in each:
            each["member"] = member(each["member"])
    if "message_reference" in mended:
        mended["message_reference"] = {
            "channel_id": data["channel_id"],
            **without_nulls(mended["message_reference"]),
        }
    mended["attachments"] = [
        {"id": "0", "filename": "", "size": 0, "url": "", "proxy_url": "", **without_nulls(each)}
        for each in mended.get("attachments", ())
        if isinstance(each, dict)
    ]
    forwarded = mended.pop("message_snapshots", ())
    if "message_reference" in mended:  # discord.py reads them with it alone
        mended["message_snapshots"] = [{"message": snapshot(each["message"])} for each in forwarded]
    answered = mended.pop("referenced_message", None)
    if isinstance(answered, dict) and answered.get("author"):
        mended["referenced_message"] = message({"channel_id": data["channel_id"], **answered})
    return mended


def snapshot(data: Any) -> Json:
    """The part of a forwarded message that is shown: its words."""
    said = without_nulls(data)
    return {
        **{"content": "", "type": 0, "flags": 0, "timestamp": "2020-01-01T00:00:00+00:00", "edited_timestamp": None},
        **{name: said[name] for name in ("content", "type", "timestamp", "flags") if name in said},
        "embeds": [],
        "attachments": [],
    }


def interaction(data: Any) -> Json:
    mended: Json = {
        "version": 1,
        "application_id": "0",
        "attachment_size_limit": 10 * 1024 * 1024,
        **without_nulls(data),
    }
    if "channel" not in mended and "channel_id" in mended:
        mended["channel"] = {"id": mended["channel_id"], **({} if "guild_id" in mended else {"type": 1})}
    said_by = mended.get("member", {})
    if "guild_id" in mended:
        mended["member"] = member({"user": mended.get("user", _NOBODY), **said_by})
    else:
        mended["user"] = user(mended.get("user") or said_by.get("user") or _NOBODY)
    if "message" in mended:
        mended["message"] = message({"channel_id": mended.get("channel_id"), **mended["message"]})
    resolved = (mended.get("data") or {}).get("resolved")
    if isinstance(resolved, dict) and isinstance(resolved.get("messages"), dict):
        picked = resolved["messages"]
        for number, each in picked.items():
            picked[number] = message({"id": number, "channel_id": mended.get("channel_id"), **each})
    return mended


def reaction(data: Any) -> Json:
    mended: Json = {"type": 0, "burst": False, **without_nulls(data)}
    if "member" in mended:
        mended["member"] = member(mended["member"])
    return mended


def channel(data: Any) -> Json:
    mended: Json = {"type": 0, "name": "", "position": 0, **without_nulls(data)}
    if mended["type"] in {2, 13}:
        mended = {"bitrate": 64000, "user_limit": 0, **mended}
    return mended


def thread(data: Any) -> Json:
    metadata = {"archived": False, "auto_archive_duration": 1440, "archive_timestamp": "2020-01-01T00:00:00+00:00"}
    mended: Json = {
        "type": 11,
        "name": "",
        "owner_id": "0",
        "message_count": 0,
        "member_count": 0,
        **without_nulls(data),
    }
    mended["thread_metadata"] = metadata | without_nulls(mended.get("thread_metadata", {}))
    mended.pop("member", None)  # that we joined it is nothing to us
    return mended


def guild(data: Any) -> Json:
    mended: Json = without_nulls(data)
    mended["channels"] = [channel(each) for each in mended.get("channels", ()) if isinstance(each, dict)]
    mended["threads"] = [thread(each) for each in mended.get("threads", ()) if isinstance(each, dict)]
    mended["members"] = [member(each) for each in mended.get("members", ()) if isinstance(each, dict)]
    roles = [{"name": "", **without_nulls(each)} for each in mended.get("roles", ()) if isinstance(each, dict)]
    everyone = {"id": mended["id"], "name": "@everyone", "permissions": "0"}
    mended["roles"] = roles if any(str(role.get("id")) == str(mended["id"]) for role in roles) else [everyone, *roles]
    for unread in ("voice_states", "presences", "emojis", "stickers", "stage_instances", "guild_scheduled_events"):
        mended.pop(unread, None)
    mended.pop("soundboard_sounds", None)
    return mended


def ready(data: Any) -> Json:
    mended: Json = {"guilds": [], "shard": [0, 1], **without_nulls(data)}
    mended["user"] = user(mended["user"])
    return mended


EVENTS: Mapping[str, Callable[[Any], Json]] = {
    "READY": ready,
    "GUILD_CREATE": guild,
    "GUILD_UPDATE": guild,
    "CHANNEL_CREATE": channel,
    "CHANNEL_UPDATE": channel,
    "THREAD_CREATE": thread,
    "THREAD_UPDATE": thread,
    "MESSAGE_CREATE": message,
    "MESSAGE_UPDATE": message,
    "MESSAGE_REACTION_ADD": reaction,
    "MESSAGE_REACTION_REMOVE": reaction,
    "INTERACTION_CREATE": interaction,
}


def frame(content: Any, *, gateway: str, shard: tuple[int, int] = (0, 1)) -> Json:
    """A gateway frame without what would end discord.py's connection: HELLO, READY and RESUMED are completed, any
    other is the same object. `gateway` is where to resume and `shard` who we are, if the server does not say.

    Raises ValueError for what is no frame.
    """
    if not isinstance(content, dict) or not isinstance(content.get("t"), str | None):
        raise ValueError("neither an event nor an operation")  # noqa: TRY004 - what is said is wrong, not how we ask
    complete: Json = content
    if type(content.get("s")) not in {int, type(None)}:
        complete = {**content, "s": None}  # we would resume after an event that never was
    said = content.get("d")
    told: Json = said if isinstance(said, dict) else {}
    match content.get("op"), content.get("t"):
        case 10, _:
            interval = told.get("heartbeat_interval")
            sane = isinstance(interval, int | float) and interval > 0
            return {**complete, "d": {"heartbeat_interval": interval if sane else HEARTBEAT}}
        case 0, "READY":
            told["resume_gateway_url"] = told.get("resume_gateway_url") or gateway
            told["shard"] = told.get("shard") or list(shard)
            told["session_id"] = told.get("session_id") or ""
            return {**complete, "d": told, "s": complete.get("s") or 1}
        case 0, "RESUMED":
            return {**complete, "d": told}
    return complete


def answer(data: Any) -> Any:
    """What a REST call gave: messages are mended, anything else is as it is."""
    if isinstance(data, dict) and "id" in data and "channel_id" in data and ("content" in data or "author" in data):
        # What members see of it is none of our business here, but edits and views read these.
        return {**without_nulls(data), **message(data)}
    if isinstance(data, dict) and "id" in data and "username" in data:
        return user(data)
    if isinstance(data, dict) and isinstance(data.get("interaction"), dict):
        return {"interaction": data["interaction"]}  # the message itself came along, and we need its id only
    return data


def application(data: Any, me: Mapping[str, Any]) -> Json:
    """What `/oauth2/applications/@me` said, or as much as `/users/@me` tells."""
    said = without_nulls(data) if isinstance(data, dict) else {}
    nothing = {"name": "", "description": "", "icon": None, "bot_public": True, "bot_require_code_grant": False}
    mended: Json = {"id": me["id"], "verify_key": "", "flags": 0, **nothing, **said}
    mended["owner"] = user({**_NOBODY, **mended.get("owner", {})})
    return mended


def gateway_bot(data: Any, *, url: str | None) -> tuple[int, str, Json]:
    """Shards, address and limits of `/gateway/bot`; `url` stands in for an address it does not say."""
    said = without_nulls(data) if isinstance(data, dict) else {}
    limits = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
    return int(said.get("shards", 1)), str(said.get("url") or url or ""), limits | said.get("session_start_limit", {})


# REST


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
    """The body of an answer. discord.py takes for JSON only what is labelled `application/json` and nothing more;
    many servers add their character set."""
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
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # we never speak aloud
    for name in ("discord.client", "discord.shard"):
        if _without_traceback not in (filters := logging.getLogger(name).filters):
            filters.append(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    """A refused connect is one line; discord.py logs it with its traceback each time."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (OSError, aiohttp.ClientError, discord.DiscordException)) and not log.isEnabledFor(
        logging.DEBUG
    ):
        record.msg, record.args = f"{record.getMessage()} ({type(error).__name__}: {error})", ()
        record.exc_info = record.exc_text = None
    return True


def login_leniently(client: discord.Client) -> None:
    """Log in where a server does not tell of applications."""
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
    """Lets each REST call wait for its turn just before it is sent, discord.py's own repetitions too."""
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
    """Seconds that a 429 asks to wait; one where it does not say."""
    try:
        seconds = float(headers.get("Retry-After", 1.0))
    except ValueError:
        return 1.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 1.0


# The gateway


class GatewayClient(discord.AutoShardedClient):
    """Keeps its session and its place in the gateway's stream through outages, and skips events it cannot read.

    discord.py by itself offers RESUME once, for 60 s, and then begins a new session, so that the events of a longer
    outage are lost; it ends on one malformed event; and it retries a refused connect at most once a while.
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
        self.http.ws_connect = self._ws_connect  # type: ignore[method-assign]  # the one way under each connect
        self._send = self.http.request
        self.http.request = self._request  # type: ignore[method-assign]
        self.http.get_bot_gateway = self._get_bot_gateway  # type: ignore[method-assign]
        login_leniently(self)
        self._note_socket = self._connection._update_references
        self._connection._update_references = self._complete_frames  # type: ignore[method-assign]
        self._guard_parsers()

    async def _request(self, route: Route, **options: Any) -> Any:
        # aiohttp's own limit of five minutes a call would count the time in the queue.
        limit = aiohttp.ClientTimeout(total=None, connect=self._timeouts.response, sock_read=self._timeouts.response)
        return await self._send(route, **{"timeout": limit, **options})

    async def _get_bot_gateway(self) -> tuple[int, str, Any]:
        url = str(self._gateway) if self._gateway else None
        try:
            said = await self.http.request(Route("GET", "/gateway/bot"))
        except discord.HTTPException as error:
            if error.status != 404:
                raise
            # A compatible server may know only the address (https://discord.com/developers/docs/events/gateway).
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
        """Offer RESUME for as long as Discord has not declared the session invalid, in turn at the address it gave
        for that and, in case that one is gone, at the one for everybody."""
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
        """Called with each new socket before anything is read from it."""
        self._note_socket(ws)
        read = ws.received_message

        async def received(data: str | bytes) -> None:
            try:
                if isinstance(data, bytes):
                    unpacked = ws._decompressor.decompress(data)
                    if unpacked is None:
                        return  # the rest of this frame is still to come
                    data = unpacked
            except (zlib.error, UnicodeDecodeError) as error:
                self._warn("a frame that cannot be decompressed", error)
                await ws.close()
                raise ReconnectWebSocket(ws.shard_id) from error
            try:
                said = json.loads(data)
                mended = frame(said, gateway=str(DiscordWebSocket.DEFAULT_GATEWAY), shard=_shard(ws))
            except (ValueError, RecursionError) as error:
                self._warn("a frame that is neither an event nor an operation", error)
                return
            if mended.get("op") == DiscordWebSocket.HELLO and ws._keep_alive is not None:
                return  # one is enough: each starts a thread
            await read(data if mended is said else json.dumps(mended))

        ws.received_message = received  # type: ignore[method-assign]

    def _address(self, url: URL) -> URL:
        """The setting first; then what Discord said; discord.py's built-in default is for neither."""
        if self._gateway is not None:
            return self._gateway.with_query(url.query)
        if url.host == DiscordWebSocket.DEFAULT_GATEWAY.host and self._advised_gateway is not None:
            return self._advised_gateway.with_query(url.query)
        return url

    async def _ws_connect(self, url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
        """Connect, as often as it takes within `DiscordTimeouts.reconnect` seconds; for a first connect, which
        has no session to lose, the caller bounds the time."""
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
        """An event that cannot be read is logged and skipped; but without READY there is no connection at all."""
        parsers = self._connection.parsers

        def guarded(name: str, parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
            mend = EVENTS.get(name, lambda data: data)

            def read(data: Any) -> Any:
                try:
                    if name == "MESSAGE_UPDATE" and self._partly_edited(data):
                        return None
                    if name in {"CHANNEL_DELETE", "THREAD_DELETE"} and data.get("guild_id") is not None:
                        self.dispatch("place_delete", dict(data))  # discord.py tells only of those it knows
                    return parse(mend(self._located(data)))  # type: ignore[no-untyped-call]
                except Exception as error:  # the boundary: whatever an event makes discord.py raise
                    if name == "READY":
                        raise
                    self._warn(f"a malformed {name}", error)

            return read

        self._connection.parsers = {name: guarded(name, parse) for name, parse in parsers.items()}

    def _warn(self, what: str, error: Exception) -> None:
        """One line, once a minute for the same; the traceback at debug level."""
        now = self.loop.time()
        if now - self._warned.get(what, -WARN_SECONDS) >= WARN_SECONDS:
            self._warned[what] = now
            log.warning("skipped %s from Discord (%s: %s)", what, type(error).__name__, error)
        log.debug("skipped %s from Discord", what, exc_info=error)

    def _located(self, data: Any) -> Any:
        """An event of a known server's channel is of that server, though the server did not say so: else it would be
        taken for a direct message."""
        if isinstance(data, dict):
            if "token" in data:
                data.setdefault("application_id", self.application_id)
            if data.get("guild_id") is None and data.get("channel_id") is not None:
                guild = getattr(self.get_channel(int(data["channel_id"])), "guild", None)
                if guild is not None:
                    return {**data, "guild_id": str(guild.id)}
        return data

    def _partly_edited(self, data: Any) -> bool:
        """An update of a message that tells what changed and not who wrote it: discord.py cannot read it."""
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
