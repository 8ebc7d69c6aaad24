"""discord.py's client, made to outlast refused connects and malformed events. Knows no chat, no memory, no command.

What reaches under discord.py's public face is here and nowhere else: `Route.BASE` (the one way to another API base) and
`json_or_text`, which are process-global, so one process talks to one API; and four attributes of a client instance.
"""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import discord
from discord.gateway import DiscordWebSocket
from discord.http import Route
from yarl import URL

from bots.discord import mending
from bots.discord.patience import Patience
from core.errors import PlatformError, Refused

log = logging.getLogger(__name__)

PERMISSIONS = discord.Permissions(
    view_channel=True,
    send_messages=True,
    send_messages_in_threads=True,
    read_message_history=True,  # a reply to a message needs it
)
"""The least the bot needs in a server."""

BAD_TOKEN = "Discord refuses DISCORD_TOKEN: copy the bot's token anew from https://discord.com/developers/applications."  # noqa: S105
NO_INTENT = (
    "Discord refuses the intents this bot asks for: switch on “Message Content Intent” under "
    "https://discord.com/developers/applications → your application → Bot."
)


async def _said(response: aiohttp.ClientResponse) -> Any:
    """The body of an answer. discord.py takes for JSON only what is labelled `application/json` and nothing more;
    many servers add their character set."""
    text = await response.text(encoding="utf-8")
    if response.content_type == "application/json":
        try:
            return mending.answer(json.loads(text))
        except (LookupError, TypeError, ValueError):
            log.debug("an answer of Discord cannot be read: HTTP %s", response.status)
    return text


def read_leniently() -> None:
    """Make discord.py read REST answers as `_said` does."""
    for module in (discord.http, discord.webhook.async_):
        module.json_or_text = _said  # type: ignore[attr-defined]


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


def intents(*, message_content: bool) -> discord.Intents:
    """What we listen to; only the message content is privileged."""
    chosen = discord.Intents.none()
    chosen.guilds = True
    chosen.messages = True
    chosen.reactions = True
    chosen.message_content = message_content
    return chosen


def invite_url(application: int) -> str:
    """Where an admin adds the bot to a server, with the least permissions."""
    return discord.utils.oauth_url(application, permissions=PERMISSIONS, scopes=("bot", "applications.commands"))


class Connection(discord.AutoShardedClient):
    """Connects, keeps its place in the gateway's stream where it can, and skips events it cannot read.

    As discord.py 2.7.1 stands: a refused connect is retried at most once a while and forgets the session, so that
    events of the gap are lost, and one malformed event ends the client.
    """

    def __init__(
        self, *, intents: discord.Intents, proxy: str | None, gateway_url: str | None, patience: Patience
    ) -> None:
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # we never speak aloud
        read_leniently()
        super().__init__(
            intents=intents,
            proxy=proxy,
            allowed_mentions=discord.AllowedMentions.none(),
            max_messages=None,  # memory is ours
        )
        self._patience = patience
        self._gateway = URL(gateway_url) if gateway_url else None
        self._said_by_api: URL | None = None
        self._connect_socket = self.http.ws_connect
        self.http.ws_connect = self._ws_connect  # type: ignore[method-assign]  # the one way under each connect
        self.http.get_bot_gateway = self._get_bot_gateway  # type: ignore[method-assign]
        lenient(self)
        self._note_socket = self._connection._update_references
        self._connection._update_references = self._mend_frames  # type: ignore[method-assign]
        self._guard_parsers()

    async def _get_bot_gateway(self) -> tuple[int, str, Any]:
        url = str(self._gateway) if self._gateway else None
        try:
            said = await self.http.request(Route("GET", "/gateway/bot"))
        except discord.HTTPException as error:
            if error.status != 404:
                raise
            # A compatible server may know only the address (https://discord.com/developers/docs/events/gateway).
            said = {} if url else await self.http.request(Route("GET", "/gateway"))
        shards, address, limits = mending.gateway_bot(said, url=url)
        self._said_by_api = URL(address)
        return shards, address, limits

    def _mend_frames(self, ws: DiscordWebSocket) -> None:
        """Called with each new socket before anything is read from it."""
        self._note_socket(ws)
        read = ws.received_message

        async def received(data: str | bytes) -> None:
            if isinstance(data, bytes):
                unpacked = ws._decompressor.decompress(data)
                if unpacked is None:
                    return  # the rest of this frame is still to come
                data = unpacked
            shard = (ws.shard_id or 0, ws.shard_count or 1)
            await read(mending.frame(data, gateway=str(DiscordWebSocket.DEFAULT_GATEWAY), shard=shard))

        ws.received_message = received  # type: ignore[method-assign]

    def _address(self, url: URL) -> URL:
        """The setting first; then what Discord said; discord.py's built-in default is for neither."""
        if self._gateway is not None:
            return self._gateway.with_query(url.query)
        if url.host == DiscordWebSocket.DEFAULT_GATEWAY.host and self._said_by_api is not None:
            return self._said_by_api.with_query(url.query)
        return url

    async def _ws_connect(self, url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
        """Connect, however often it takes; the caller bounds the time (60 s to resume, 180 s for a first connect)."""
        address = self._address(URL(url))
        attempt = 0
        while True:
            try:
                return await self._connect_socket(str(address), compress=compress)
            except (OSError, aiohttp.ClientError) as error:
                wait = self._patience.retry(attempt)
                log.warning("Discord's gateway cannot be reached (%s); trying again in %.1f s", error, wait)
                await asyncio.sleep(wait)
                attempt += 1

    def _guard_parsers(self) -> None:
        """An event that cannot be read is logged and skipped; but without READY there is no connection at all."""
        parsers = self._connection.parsers

        def guarded(name: str, parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
            mend = mending.EVENTS.get(name, lambda data: data)

            def read(data: Any) -> Any:
                try:
                    if name == "MESSAGE_UPDATE" and self._partly_edited(data):
                        return None
                    if name in {"CHANNEL_DELETE", "THREAD_DELETE"} and data.get("guild_id") is not None:
                        self.dispatch("place_delete", dict(data))  # discord.py tells only of those it knows
                    return parse(mend(self._located(data)))  # type: ignore[no-untyped-call]
                except (AttributeError, LookupError, TypeError, ValueError):
                    if name == "READY":
                        raise
                    log.warning("skipped a malformed %s from Discord", name, exc_info=True)

            return read

        self._connection.parsers = {name: guarded(name, parse) for name, parse in parsers.items()}

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


def lenient(client: discord.Client) -> None:
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
        return mending.application(said, {"id": me.id if me is not None else 0})

    client.http.application_info = application_info  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What Discord says of a token, for `doctor`."""

    name: str
    invite: str
    message_content: bool
    """The privileged switch is on; without it the bot hears only mentions, replies that ping it and direct messages."""


async def examine(token: str, *, api_base: str | None = None, proxy: str | None = None) -> Findings:
    """Log in, look and leave; no gateway. Raises Refused for a bad token, PlatformError when Discord is not reached."""
    point_at(api_base)
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    read_leniently()
    async with discord.Client(intents=discord.Intents.none(), proxy=proxy) as client:
        lenient(client)
        try:
            await client.login(token)
        except discord.LoginFailure as error:
            raise Refused(BAD_TOKEN) from error
        except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
            raise PlatformError(
                f"Discord cannot be reached ({error}); check the network and DISCORD_API_BASE."
            ) from error
        except (LookupError, TypeError, ValueError) as error:
            raise PlatformError("What answers at DISCORD_API_BASE does not speak as Discord does; check it.") from error
        flags = client.application_flags
        return Findings(
            name=client.user.name if client.user is not None else "",
            invite=invite_url(client.application_id or 0),
            message_content=flags.gateway_message_content or flags.gateway_message_content_limited,
        )
