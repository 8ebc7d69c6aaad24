"""Many workspaces: each installs the app over OAuth, and its token is kept in the bot's own database.

Knows slack_sdk's installation and state stores, wrapped in threads, and slack-bolt's OAuth flow; knows no event but a
workspace's farewell. Of an installation only the bot's part is kept: nobody needs to know who pressed the button.

slack_sdk's asynchronous stores want an asynchronous driver for every database; the synchronous ones share ours. Both
load SQLAlchemy's asyncio part, so they are imported only where workspaces install the bot.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from urllib.parse import urljoin

import aiohttp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.authorization.async_authorize import AsyncAuthorize
from slack_bolt.context.async_context import AsyncBoltContext
from slack_bolt.error import BoltError
from slack_bolt.oauth.async_callback_options import AsyncCallbackOptions, AsyncFailureArgs, AsyncSuccessArgs
from slack_bolt.oauth.async_oauth_flow import AsyncOAuthFlow
from slack_bolt.oauth.async_oauth_settings import AsyncOAuthSettings
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.errors import SlackTokenRotationError
from slack_sdk.oauth.installation_store import Bot, Installation
from slack_sdk.oauth.installation_store.async_installation_store import AsyncInstallationStore
from slack_sdk.oauth.state_store.async_state_store import AsyncOAuthStateStore
from slack_sdk.oauth.token_rotation.async_rotator import AsyncTokenRotator

from bots.slack.events import Payload
from bots.slack.manifest import NEEDED, WANTED
from bots.slack.refusals import NETWORK, discreet
from bots.slack.workspace import Workspace, library_log, web_client
from core.errors import Person2Error, StorageError
from core.memory import Memory

log = logging.getLogger(__name__)

INSTALL_PATH = "/slack/install"
REDIRECT_PATH = "/slack/oauth_redirect"

STATE_SECONDS = 600
"""How long an installation that was begun may take; slack_sdk's own default."""

ROTATE_MINUTES = 120
"""So long before it expires a token is exchanged, where the app rotates its tokens; they live for twelve hours
(https://docs.slack.dev/authentication/using-token-rotation)."""

NOT_INSTALLED = "Person2 is not installed in this workspace any more: ask an administrator to install it again."

_FAILURES = {
    "access_denied": "The installation was cancelled; nothing was installed.",
    "invalid_browser": f"This installation was begun in another browser: begin again at {INSTALL_PATH}.",
    "invalid_state": f"This installation took too long or was finished before: begin again at {INSTALL_PATH}.",
    "missing_code": f"Slack sent no code to finish the installation with: begin again at {INSTALL_PATH}.",
    "invalid_code": f"Slack did not accept the installation: begin again at {INSTALL_PATH}, or ask the bot's operator.",
    "storage_error": "The installation could not be stored: ask the bot's operator, then install again.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """What the app is known by, from “Basic Information” → “App Credentials”."""

    client_id: str
    client_secret: str = field(repr=False)
    redirect_url: str | None = None
    """The public address of `REDIRECT_PATH`; Slack takes the app's first one when empty."""
    state_seconds: int = STATE_SECONDS


class Installations(AsyncAuthorize):
    """Which workspaces the bot is installed in: lets workspaces in, tells who sent a request, lets them go."""

    def __init__(
        self, oauth: OAuth, memory: Memory, *, url: str, proxy: str | None, session: aiohttp.ClientSession
    ) -> None:
        self._url = url
        self._proxy = proxy
        self._session = session
        self._store = _Store(oauth.client_id, memory)
        client = web_client(token=None, url=url, proxy=proxy, session=session)
        self._rotator = AsyncTokenRotator(client_id=oauth.client_id, client_secret=oauth.client_secret, client=client)
        self._rotating = asyncio.Lock()
        self.flow = _Flow(
            client=client,
            logger=library_log(),
            settings=AsyncOAuthSettings(
                client_id=oauth.client_id,
                client_secret=oauth.client_secret,
                scopes=[*NEEDED, *WANTED],
                user_scopes=[],
                redirect_uri=oauth.redirect_url,
                install_path=INSTALL_PATH,
                redirect_uri_path=REDIRECT_PATH,
                callback_options=AsyncCallbackOptions(success=_installed, failure=_failed),
                authorization_url=urljoin(url, "/oauth/v2/authorize"),
                installation_store=self._store,
                installation_store_bot_only=True,
                state_store=_States(oauth.state_seconds, memory),
                state_expiration_seconds=oauth.state_seconds,
                logger=library_log(),
            ),
        )

    async def __call__(
        self,
        *,
        context: AsyncBoltContext,
        enterprise_id: str | None,
        team_id: str | None,
        user_id: str | None,
        actor_enterprise_id: str | None = None,
        actor_team_id: str | None = None,
        actor_user_id: str | None = None,
    ) -> AuthorizeResult | None:
        """Whose token answers a request; None for a workspace without the bot. Asks the database, never Slack: an
        acknowledgement must not wait for `auth.test`."""
        bot = await self._store.async_find_bot(
            enterprise_id=enterprise_id, team_id=team_id, is_enterprise_install=context.is_enterprise_install
        )
        if bot is None:
            return None
        if _expires(bot):
            bot = await self._rotated(bot)
        return AuthorizeResult(
            enterprise_id=enterprise_id,
            team_id=team_id,
            bot_user_id=bot.bot_user_id,
            bot_id=bot.bot_id,
            bot_token=bot.bot_token,
        )

    async def _rotated(self, bot: Bot) -> Bot:
        """The workspace's next token, where the app rotates them; once, however many requests come meanwhile. The old
        one is good until it expires, so a fault is no hurry."""
        async with self._rotating:
            found = await self._store.async_find_bot(
                enterprise_id=bot.enterprise_id, team_id=bot.team_id, is_enterprise_install=bot.is_enterprise_install
            )
            bot = found or bot
            if not _expires(bot):
                return bot
            try:
                fresh = await self._rotator.perform_bot_token_rotation(
                    bot=bot, minutes_before_expiration=ROTATE_MINUTES
                )
            except (SlackTokenRotationError, *NETWORK) as error:
                log.warning("Slack did not exchange a token: %s", discreet(f"{type(error).__name__}: {error}"))
                return bot
            if fresh is None:
                return bot
            await self._store.async_save_bot(fresh)
            log.info("exchanged the token of the Slack workspace %s", bot.team_id or bot.enterprise_id)
            return fresh

    def workspace(self, context: AsyncBoltContext) -> Workspace:
        """The workspace of an authorised request."""
        known = context.authorize_result or AuthorizeResult(enterprise_id=None, team_id=None)
        return Workspace(
            team=context.team_id or context.enterprise_id or "",
            bot_user=known.bot_user_id or "",
            bot_id=known.bot_id or "",
            client=web_client(token=known.bot_token, url=self._url, proxy=self._proxy, session=self._session),
        )

    async def parted(self, context: AsyncBoltContext, body: Payload) -> bool:
        """Whether this event takes the bot out of a workspace; its token is deleted then."""
        event: Payload = body.get("event") or {}
        match event.get("type"):
            case "app_uninstalled":
                pass
            case "tokens_revoked" if (event.get("tokens") or {}).get("bot"):
                pass
            case kind:
                return kind == "tokens_revoked"
        team = None if context.is_enterprise_install else context.team_id
        await self._store.async_delete_bot(enterprise_id=context.enterprise_id, team_id=team)
        log.info("removed from the Slack workspace %s", team or context.enterprise_id)
        return True


def _expires(bot: Bot) -> bool:
    until = bot.bot_token_expires_at
    return bot.bot_refresh_token is not None and until is not None and until < time.time() + ROTATE_MINUTES * 60


class _Store(AsyncInstallationStore):
    """slack_sdk's store in threads, the bot's part of it."""

    def __init__(self, client_id: str, memory: Memory) -> None:
        from slack_sdk.oauth.installation_store.sqlalchemy import SQLAlchemyInstallationStore

        self._memory = memory
        with memory.borrowed() as engine:
            self._bots = SQLAlchemyInstallationStore(client_id=client_id, engine=engine, logger=library_log())

    async def async_save(self, installation: Installation) -> None:
        try:
            await self.async_save_bot(installation.to_bot())
        except StorageError as error:
            log.exception("an installation could not be stored")
            raise BoltError(str(error)) from error
        log.info("installed in the Slack workspace %s", installation.team_id or installation.enterprise_id)

    async def async_save_bot(self, bot: Bot) -> None:
        await asyncio.to_thread(self._save, bot)

    async def async_find_bot(
        self, *, enterprise_id: str | None, team_id: str | None, is_enterprise_install: bool | None = False
    ) -> Bot | None:
        return await asyncio.to_thread(self._find, enterprise_id, team_id, bool(is_enterprise_install))

    async def async_delete_bot(self, *, enterprise_id: str | None, team_id: str | None) -> None:
        await asyncio.to_thread(self._delete, enterprise_id, team_id)

    def _save(self, bot: Bot) -> None:
        with self._memory.borrowed():
            # An older token of the workspace would only lie about.
            self._bots.delete_bot(enterprise_id=bot.enterprise_id, team_id=bot.team_id)
            self._bots.save_bot(bot)

    def _find(self, enterprise_id: str | None, team_id: str | None, is_enterprise_install: bool) -> Bot | None:
        with self._memory.borrowed():
            return self._bots.find_bot(
                enterprise_id=enterprise_id, team_id=team_id, is_enterprise_install=is_enterprise_install
            )

    def _delete(self, enterprise_id: str | None, team_id: str | None) -> None:
        with self._memory.borrowed():
            self._bots.delete_bot(enterprise_id=enterprise_id, team_id=team_id)


class _States(AsyncOAuthStateStore):
    """slack_sdk's store of installations begun, in threads; forgets those that were never finished."""

    def __init__(self, seconds: int, memory: Memory) -> None:
        from slack_sdk.oauth.state_store.sqlalchemy import SQLAlchemyOAuthStateStore

        self._memory = memory
        with memory.borrowed() as engine:
            self._states = SQLAlchemyOAuthStateStore(seconds, engine, logger=library_log())

    async def async_issue(self, *args: object, **kwargs: object) -> str:
        return await asyncio.to_thread(self._issue)

    async def async_consume(self, state: str) -> bool:
        return await asyncio.to_thread(self._states.consume, state)

    def _issue(self) -> str:
        table = self._states.oauth_states
        with self._memory.borrowed() as engine:
            with engine.begin() as connection:
                connection.execute(table.delete().where(table.c.expire_at < datetime.now(UTC).replace(tzinfo=None)))
            return self._states.issue()


class _Flow(AsyncOAuthFlow):
    """slack-bolt's flow, whose every end is a page of one sentence."""

    async def handle_installation(self, request: AsyncBoltRequest) -> BoltResponse:
        try:
            return await super().handle_installation(request)
        except Person2Error:
            log.exception("no installation can be begun")
            return _page(503, _FAILURES["storage_error"])

    async def run_installation(self, code: str) -> Installation | None:
        try:
            return await super().run_installation(code)
        except NETWORK as error:
            log.warning("Slack did not answer an installation: %s", discreet(f"{type(error).__name__}: {error}"))
            return None


async def _installed(args: AsyncSuccessArgs) -> BoltResponse:
    where = args.installation.team_name or args.installation.enterprise_name or "your workspace"
    page = _page(200, f"Person2 is installed in {where}: invite it to a channel with /invite @Person2.")
    page.headers["set-cookie"] = [args.settings.state_utils.build_set_cookie_for_deletion()]
    return page


async def _failed(args: AsyncFailureArgs) -> BoltResponse:
    sentence = _FAILURES.get(args.reason, f"Slack broke the installation off: begin again at {INSTALL_PATH}.")
    return _page(args.suggested_status_code, sentence)


def _page(status: int, sentence: str) -> BoltResponse:
    body = f'<!doctype html><meta charset="utf-8"><title>Person2</title><p>{escape(sentence)}</p>'
    return BoltResponse(status=status, body=body, headers={"content-type": "text/html; charset=utf-8"})
