"""The Discord bot: one login at a time, and a new one whenever it ends. What happens on each event is `events`.

Knows no prompt, no database, no model. A process can have only one DiscordBot: the API base is process-global.
"""

import asyncio
import hashlib
import json
import logging
from dataclasses import dataclass
from typing import Any

import aiohttp
import discord
from discord import app_commands

from bots.discord.compat import login_leniently, point_at, read_leniently, seconds_of
from bots.discord.events import Client, DiscordEventHandlers
from bots.discord.interactions import Interactions
from bots.discord.pacing import Pacer
from bots.discord.sending import Sender
from bots.discord.timeouts import DiscordTimeouts
from core.chat import Chat
from core.commands import Commands
from core.errors import PermanentPlatformError, PlatformError
from core.health import PostHealth

log = logging.getLogger(__name__)

PERMISSIONS = discord.Permissions(
    view_channel=True,
    send_messages=True,
    send_messages_in_threads=True,
    read_message_history=True,  # a reply to a message needs it
)
"""The least the bot needs in a server."""

BAD_TOKEN = (
    "Discord rejected DISCORD_TOKEN: copy the bot's token again from https://discord.com/developers/applications."  # noqa: S105
)
NO_INTENT = (
    "Discord refused the intents that the bot needs: turn on “Message Content Intent” at "
    "https://discord.com/developers/applications → your application → Bot."
)


def intents(*, message_content: bool) -> discord.Intents:
    """The events we receive; only the message content is privileged."""
    chosen = discord.Intents.none()
    chosen.guilds = True
    chosen.messages = True
    chosen.reactions = True
    chosen.typing = True  # a member who is typing has not finished: they are answered after the rest
    chosen.message_content = message_content
    return chosen


def invite_url(application: int) -> str:
    """The address where an admin adds the bot to a server, with the least permissions."""
    return discord.utils.oauth_url(application, permissions=PERMISSIONS, scopes=("bot", "applications.commands"))


class DiscordBot:
    """Connects Discord to one chat; `run` until cancelled."""

    def __init__(
        self,
        chat: Chat,
        commands: Commands,
        *,
        token: str,
        api_base: str | None = None,
        gateway_url: str | None = None,
        proxy: str | None = None,
        buttons: bool = False,
        timeouts: DiscordTimeouts | None = None,
        post_health: PostHealth | None = None,
    ) -> None:
        self.chat = chat
        self.timeouts = timeouts or DiscordTimeouts()
        self.post_health = post_health or PostHealth()
        self._pacer = Pacer()
        self.sender = Sender(self._connected, self.timeouts, self._pacer, self.post_health)
        self.handlers = DiscordEventHandlers(
            chat,
            Interactions(commands=commands, sender=self.sender, timeouts=self.timeouts, buttons=buttons),
            self.sender,
            self.timeouts,
            connected=self._connected,
            buttons=buttons,
        )
        self._token = token.strip()
        self._api_base = api_base
        self._gateway_url = gateway_url
        self._proxy = proxy
        self._client: Client | None = None
        self._logged_in = asyncio.Event()
        self._synced = ""
        self._introduced = ""

    def __repr__(self) -> str:
        return "DiscordBot()"  # never the token

    @property
    def message_content(self) -> bool:
        """False once Discord refused the privileged intent: only mentions, pinging replies and direct messages."""
        return self.handlers.message_content

    @property
    def ready(self) -> bool:
        """Connected, listening, and able to post, for health checks."""
        client = self._client
        return (
            client is not None
            and client.is_ready()
            and not any(each.is_closed() for each in client.shards.values())
            and self.post_health.trouble() is None
        )

    async def run(self) -> None:
        """Connect, and again whenever the connection ends, in the same process with the same memory.

        Ends by cancellation. Raises PermanentPlatformError where trying again cannot help: a bad token, or an intent
        refused that we cannot do without.
        """
        point_at(self._api_base)
        if not is_sendable(self._token):
            raise PermanentPlatformError(BAD_TOKEN)
        attempt = 0
        loop = asyncio.get_running_loop()
        try:
            while True:
                since = loop.time()
                try:
                    await self._run_once()
                    why: object = "the connection was closed"
                    at_least = 0.0
                except discord.LoginFailure as error:
                    raise PermanentPlatformError(BAD_TOKEN) from error
                except discord.PrivilegedIntentsRequired as error:
                    self._do_without_content(error)
                    continue
                except discord.ConnectionClosed as error:
                    if error.code == 4004:
                        raise PermanentPlatformError(BAD_TOKEN) from error
                    why, at_least = error, 0.0
                except Exception as error:  # discord.py may raise AttributeError, KeyError …: always start again
                    log.debug("the connection to Discord ended", exc_info=True)
                    why = f"{type(error).__name__}: {error}"
                    limited = isinstance(error, discord.HTTPException) and error.status == 429
                    at_least = seconds_of(error.response.headers) if limited else 0.0  # type: ignore[attr-defined]
                if loop.time() - since > self.timeouts.stable_after:
                    attempt = 0
                wait = max(self.timeouts.retry(attempt, longest=self.timeouts.longest_login_retry), at_least)
                attempt += 1
                log.warning("Discord: %s; connecting again in %.1f s", " ".join(str(why).split()), wait)
                await asyncio.sleep(wait)
        finally:
            await self.handlers.close()
            await self.sender.close()

    async def _run_once(self) -> None:
        self._client = Client(
            self.handlers,
            on_login=self._on_login,
            on_ready=self._on_ready,
            intents=intents(message_content=self.message_content),
            activity=discord.Activity(type=discord.ActivityType.listening, name="/person2 help"),
            proxy=self._proxy,
            gateway_url=self._gateway_url,
            timeouts=self.timeouts,
            pacer=self._pacer,
        )
        try:
            async with self._client:
                await self._client.start(self._token)
        finally:
            self._logged_in.clear()

    def _do_without_content(self, error: discord.PrivilegedIntentsRequired) -> None:
        if not self.message_content:
            raise PermanentPlatformError(NO_INTENT) from error
        self.handlers.message_content = False
        log.warning(
            "Discord refused the Message Content intent, so the bot sees only mentions, replies that ping it and "
            "direct messages. To change that, turn on “Message Content Intent” at "
            "https://discord.com/developers/applications → your application → Bot, and restart the bot."
        )

    async def _connected(self) -> discord.Client:
        """The client that is logged in now; waits for one while the connection is being restarted."""
        await self._logged_in.wait()
        assert self._client is not None  # noqa: S101 - `_logged_in` is set by it
        return self._client

    async def _on_login(self, client: Client) -> None:
        self._logged_in.set()
        log.info("Discord: invite link: %s", invite_url(client.application_id or 0))
        self.sender.spawn(self._sync(client.tree))

    async def _on_ready(self, client: Client) -> None:
        """Log one line at the start, and again when it has changed."""
        line = f"Discord: logged in as {client.user}, in {len(client.guilds)} server{'s'[: len(client.guilds) != 1]}"
        if line != self._introduced:
            self._introduced = line
            log.info(line)
        await self.handlers.resume()

    async def _sync(self, tree: "app_commands.CommandTree[Any]") -> None:
        """Register our commands with Discord, once per process unless they change."""
        payload = [command.to_dict(tree) for command in tree.get_commands()]
        digest = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
        if digest == self._synced:
            return
        try:
            # Not tree.sync(): it needs fields in the answer that not every server sends, and we need none of them.
            await tree.client.http.bulk_upsert_global_commands(tree.client.application_id or 0, payload=payload)
        except discord.HTTPException as error:
            log.warning("Discord did not accept the slash commands (HTTP %s); they are unchanged", error.status)
        except (discord.RateLimited, aiohttp.ClientError, OSError) as error:
            log.warning("Discord did not accept the slash commands (%s); they are unchanged", error)
        else:
            self._synced = digest


def is_sendable(token: str) -> bool:
    """Whether a token can be sent at all: it has printable ASCII characters only, and no spaces."""
    return bool(token) and token.isascii() and token.isprintable() and " " not in token


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscordCredentials:
    """What Discord says of a token, for `doctor`."""

    name: str
    invite: str
    message_content: bool
    """The privileged switch is on; without it the bot hears only mentions, replies that ping it and direct messages."""


async def check_credentials(token: str, *, api_base: str | None = None, proxy: str | None = None) -> DiscordCredentials:
    """Log in and read the application; no gateway.

    Raises PermanentPlatformError for a bad token, PlatformError when Discord cannot be reached.
    """
    point_at(api_base)
    read_leniently()
    if not is_sendable(token.strip()):
        raise PermanentPlatformError(BAD_TOKEN)
    async with discord.Client(intents=discord.Intents.none(), proxy=proxy) as client:
        login_leniently(client)
        try:
            await client.login(token)
        except discord.LoginFailure as error:
            raise PermanentPlatformError(BAD_TOKEN) from error
        except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
            raise PlatformError(
                f"Discord cannot be reached ({error}); check the network and DISCORD_API_BASE."
            ) from error
        except (LookupError, TypeError, ValueError) as error:
            raise PlatformError(
                "The server at DISCORD_API_BASE does not behave like Discord's API; check that setting."
            ) from error
        flags = client.application_flags
        return DiscordCredentials(
            name=client.user.name if client.user is not None else "",
            invite=invite_url(client.application_id or 0),
            message_content=flags.gateway_message_content or flags.gateway_message_content_limited,
        )
