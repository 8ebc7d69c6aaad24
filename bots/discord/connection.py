"""discord.py's client, made to outlast refused connects and malformed events. Knows no chat, no memory, no command.

What reaches under discord.py's public face is here and nowhere else: `Route.BASE` (the one way to another API base; it
is process-global, so one process talks to one API), and three attributes of a client instance.
"""

import asyncio
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
        self._ask_gateway = self.http.get_bot_gateway
        self.http.ws_connect = self._ws_connect  # type: ignore[method-assign]  # the one way under each connect
        self.http.get_bot_gateway = self._get_bot_gateway  # type: ignore[method-assign]
        self._guard_parsers()

    async def _get_bot_gateway(self) -> tuple[int, str, Any]:
        shards, url, limits = await self._ask_gateway()
        self._said_by_api = URL(url)
        return shards, url, limits

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

        def ready(data: Any) -> Any:
            if isinstance(data, dict) and self.shard_count == 1:
                data.setdefault("shard", [0, 1])  # optional, says Discord; needed, says discord.py
            return parsers["READY"](data)

        def guarded(name: str, parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def read(data: Any) -> Any:
                try:
                    return parse(_completed(data) if name == "INTERACTION_CREATE" else data)
                except (AttributeError, LookupError, TypeError, ValueError):
                    log.warning("skipped a malformed %s from Discord", name, exc_info=True)

            return read

        self._connection.parsers = {
            name: ready if name == "READY" else guarded(name, parse) for name, parse in parsers.items()
        }


def _completed(interaction: Any) -> Any:
    """discord.py needs two fields that Discord documents as optional or added late."""
    if isinstance(interaction, dict):
        interaction.setdefault("attachment_size_limit", 10 * 1024 * 1024)
        if "channel" not in interaction and "channel_id" in interaction:
            kind = {} if "guild_id" in interaction else {"type": 1}
            interaction["channel"] = {"id": interaction["channel_id"], **kind}
    return interaction


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
    async with discord.Client(intents=discord.Intents.none(), proxy=proxy) as client:
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
