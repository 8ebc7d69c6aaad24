"""Many workspaces: each installs the app over OAuth, and its token is kept in the bot's own database.

Knows slack_sdk's installation and state stores, which run in threads, and slack-bolt's OAuth flow; knows no events
except those that remove the bot. Only the bot's part of an installation is kept, not the member who installed it.

slack_sdk's asynchronous stores need an asynchronous driver for every database; the synchronous ones share ours. Both
load SQLAlchemy's asyncio part, so they are imported only where workspaces install the bot.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html import escape
from urllib.parse import urljoin

import aiohttp
from slack_bolt.error import BoltError
from slack_bolt.oauth.async_callback_options import AsyncCallbackOptions, AsyncFailureArgs, AsyncSuccessArgs
from slack_bolt.oauth.async_oauth_flow import AsyncOAuthFlow
from slack_bolt.oauth.async_oauth_settings import AsyncOAuthSettings
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.errors import SlackClientError, SlackTokenRotationError
from slack_sdk.oauth.installation_store import Bot, Installation
from slack_sdk.oauth.installation_store.async_installation_store import AsyncInstallationStore
from slack_sdk.oauth.state_store.async_state_store import AsyncOAuthStateStore
from slack_sdk.oauth.token_rotation.async_rotator import AsyncTokenRotator

from bots.slack.compat import library_log, web_client
from bots.slack.errors import NETWORK, redact
from bots.slack.manifest import NEEDED, REDIRECT_PATH, WANTED
from bots.slack.outbox import Outbox
from bots.slack.payloads import Payload, identifier, mapping, mappings, team_of
from bots.slack.workspace import Workspace
from core.errors import Person2Error, StorageError
from core.memory import Memory

log = logging.getLogger(__name__)

INSTALL_PATH = "/slack/install"

STATE_SECONDS = 600
"""How long an installation may take; slack_sdk's own default."""

ROTATE_MINUTES = 120
"""Minutes before it expires that a token is exchanged, where the app rotates its tokens; they are valid for 12 hours
(https://docs.slack.dev/authentication/using-token-rotation)."""

FIRST_PAUSE = 60.0
LONGEST_PAUSE = 60 * 60.0
"""Seconds before a failed exchange is tried again: each time twice as long."""

_FAILURES = {
    "access_denied": "The installation was cancelled; nothing was installed.",
    "invalid_browser": f"This installation was started in another browser: start again at {INSTALL_PATH}.",
    "invalid_state": f"This installation took too long or was already finished: start again at {INSTALL_PATH}.",
    "missing_code": f"Slack sent no code to finish the installation with: start again at {INSTALL_PATH}.",
    "invalid_code": f"Slack did not accept the installation: start again at {INSTALL_PATH}, or ask the bot's operator.",
    "storage_error": "The installation could not be stored: ask the bot's operator, then install again.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """The app's credentials, from “Basic Information” → “App Credentials”."""

    client_id: str
    client_secret: str = field(repr=False)
    redirect_url: str | None = None
    """The public address of `REDIRECT_PATH`; Slack uses the app's first one when empty."""
    state_seconds: int = STATE_SECONDS


@dataclass(slots=True, kw_only=True)
class Installed:
    """One workspace as it was last stored, and the exchange of its token."""

    bot: Bot
    workspace: Workspace
    exchanging: asyncio.Task[None] | None = None
    failures: int = 0
    retry_at: float = 0.0
    """Unix time from which on a failed exchange is tried again."""


class Installations:
    """The workspaces that installed the bot: installs it, finds the workspace of a request, removes it."""

    def __init__(
        self,
        oauth: OAuth,
        memory: Memory,
        *,
        url: str,
        proxy: str | None,
        session: aiohttp.ClientSession,
        outbox: Callable[[], Outbox] = Outbox,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._proxy = proxy
        self._session = session
        self._outbox = outbox
        self._clock = clock
        self._store = _Store(oauth.client_id, memory)
        self._installed: dict[tuple[str, str], Installed] = {}
        client = web_client(token=None, url=url, proxy=proxy, session=session)
        self._rotator = AsyncTokenRotator(client_id=oauth.client_id, client_secret=oauth.client_secret, client=client)
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

    async def of(self, body: Payload) -> Workspace | None:
        """The workspace of a payload. Asks the database and never Slack: an acknowledgement must not wait for
        `auth.test` or the exchange of a token. Raises StorageError."""
        enterprise, team, whole_org = _sender(body)
        return await self._find(enterprise, None if whole_org else team, space=team_of(body) or team or enterprise)

    async def in_space(self, space: str) -> Workspace | None:
        """The workspace with this id, whose organisation is not known. Raises StorageError."""
        return await self._find(await self._store.enterprise_of(space), space, space=space)

    async def _find(self, enterprise: str, team: str | None, *, space: str) -> Workspace | None:
        bot = await self._store.async_find_bot(
            enterprise_id=enterprise or None, team_id=team or None, is_enterprise_install=team is None
        )
        key = (enterprise, team or "")
        if bot is None:
            self._installed.pop(key, None)
            return None
        installed = self._installed.get(key)
        if installed is None or installed.bot.bot_user_id != bot.bot_user_id:
            client = web_client(token=bot.bot_token, url=self._url, proxy=self._proxy, session=self._session, retries=0)
            workspace = Workspace(
                team=space,
                bot_user=bot.bot_user_id or "",
                bot_id=bot.bot_id or "",
                client=client,
                outbox=self._outbox(),
                renewed=lambda: self._renewed(key),
            )
            installed = self._installed[key] = Installed(bot=bot, workspace=workspace)
        self._update(installed, bot)
        self._begin_exchange(installed)
        # An organisation's token is valid in each of its workspaces.
        return installed.workspace if installed.workspace.team == space else replace(installed.workspace, team=space)

    def _update(self, installed: Installed, bot: Bot) -> None:
        """Use what is stored; a newly installed token resets failed exchanges."""
        if installed.bot.bot_refresh_token != bot.bot_refresh_token:
            installed.failures, installed.retry_at = 0, 0.0
        installed.bot = bot
        installed.workspace.client.token = bot.bot_token

    def _begin_exchange(self, installed: Installed) -> None:
        """Begin the exchange of a token that expires soon; one at a time for each workspace."""
        running = installed.exchanging is not None and not installed.exchanging.done()
        if not running and self._expires(installed.bot) and self._clock() >= installed.retry_at:
            installed.exchanging = asyncio.create_task(self._exchange(installed))

    async def _exchange(self, installed: Installed) -> None:
        """Exchange a token. The old one is valid until it expires, so a failure is retried at growing intervals."""
        bot = installed.bot
        name = bot.team_id or bot.enterprise_id
        try:
            fresh = await self._rotator.perform_bot_token_rotation(bot=bot, minutes_before_expiration=ROTATE_MINUTES)
            if fresh is not None:
                await self._store.async_save_bot(fresh)
        except (SlackTokenRotationError, SlackClientError, StorageError, *NETWORK) as error:
            installed.failures += 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(installed.failures - 1, 16))
            installed.retry_at = self._clock() + pause
            cause = redact(f"{type(error).__name__}: {getattr(error, 'api_error', error)}".splitlines()[0])
            log.warning("Slack did not exchange the token of %s (%s): trying again in %.0f s", name, cause, pause)
            return
        if fresh is not None:
            installed.failures = 0
            self._update(installed, fresh)
            log.info("exchanged the token of the Slack workspace %s", name)

    async def _renewed(self, key: tuple[str, str]) -> None:
        """Begin an exchange where it is due, and wait for it only where the old token has expired."""
        installed = self._installed.get(key)
        if installed is None:
            return
        self._begin_exchange(installed)
        until = installed.bot.bot_token_expires_at
        if installed.exchanging is not None and until is not None and until <= self._clock():
            await asyncio.shield(installed.exchanging)

    def _expires(self, bot: Bot) -> bool:
        until = bot.bot_token_expires_at
        return bot.bot_refresh_token is not None and until is not None and until < self._clock() + ROTATE_MINUTES * 60

    async def uninstalled(self, body: Payload) -> bool:
        """Whether this event removes the bot from a workspace; its token is then deleted."""
        event = mapping(body, "event")
        tokens = mapping(event, "tokens").get("bot")
        match event.get("type"):
            case "app_uninstalled":
                pass
            case "tokens_revoked" if tokens:
                pass
            case kind:
                return kind == "tokens_revoked"
        enterprise, team, whole_org = _sender(body)
        await self._store.async_delete_bot(enterprise_id=enterprise or None, team_id=None if whole_org else team)
        self._installed.pop((enterprise, "" if whole_org else team), None)
        log.info("removed from the Slack workspace %s", team or enterprise)
        return True


def _sender(body: Payload) -> tuple[str, str, bool]:
    """Organisation and workspace of the installation that a payload is for, and whether the whole organisation
    installed.

    In channels that workspaces share, the first authorization has them, and the ids beside it are the sender's
    (https://docs.slack.dev/apis/events-api, “Authorizations”).
    """
    authorization = next(iter(mappings(body, "authorizations")), {})
    enterprise = (
        identifier(authorization, "enterprise_id")
        or identifier(body, "enterprise_id")
        or identifier(body, "enterprise", "id")
    )
    whole_org = (authorization or body).get("is_enterprise_install") in (True, "true")
    return enterprise, identifier(authorization, "team_id") or team_of(body), whole_org


class _Store(AsyncInstallationStore):
    """The bot's part of slack_sdk's installation store, in threads."""

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
            # No older token of the workspace is kept.
            self._bots.delete_bot(enterprise_id=bot.enterprise_id, team_id=bot.team_id)
            self._bots.save_bot(bot)

    def _find(self, enterprise_id: str | None, team_id: str | None, is_enterprise_install: bool) -> Bot | None:
        with self._memory.borrowed():
            return self._bots.find_bot(
                enterprise_id=enterprise_id, team_id=team_id, is_enterprise_install=is_enterprise_install
            )

    async def enterprise_of(self, team: str) -> str:
        """The organisation of a workspace that installed the bot; empty for none."""
        return await asyncio.to_thread(self._enterprise_of, team)

    def _enterprise_of(self, team: str) -> str:
        table = self._bots.bots
        with self._memory.borrowed() as engine, engine.connect() as connection:
            row = connection.execute(table.select().where(table.c.team_id == team).limit(1)).mappings().first()
            return str(row["enterprise_id"] or "") if row else ""

    def _delete(self, enterprise_id: str | None, team_id: str | None) -> None:
        with self._memory.borrowed():
            self._bots.delete_bot(enterprise_id=enterprise_id, team_id=team_id)


class _States(AsyncOAuthStateStore):
    """slack_sdk's store of installations in progress, in threads; deletes those that were never finished."""

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
    """slack-bolt's flow; each of its results is a page with one sentence."""

    async def handle_installation(self, request: AsyncBoltRequest) -> BoltResponse:
        try:
            return await super().handle_installation(request)
        except Person2Error:
            log.exception("no installation can be started")
            return _page(503, _FAILURES["storage_error"])

    async def run_installation(self, code: str) -> Installation | None:
        try:
            return await super().run_installation(code)
        except NETWORK as error:
            log.warning("Slack did not answer an installation: %s", redact(f"{type(error).__name__}: {error}"))
            return None


async def _installed(args: AsyncSuccessArgs) -> BoltResponse:
    where = args.installation.team_name or args.installation.enterprise_name or "your workspace"
    page = _page(200, f"Person2 is installed in {where}: invite it to a channel with /invite @Person2.")
    page.headers["set-cookie"] = [args.settings.state_utils.build_set_cookie_for_deletion()]
    return page


async def _failed(args: AsyncFailureArgs) -> BoltResponse:
    sentence = _FAILURES.get(args.reason, f"Slack aborted the installation: start again at {INSTALL_PATH}.")
    return _page(args.suggested_status_code, sentence)


def _page(status: int, sentence: str) -> BoltResponse:
    body = f'<!doctype html><meta charset="utf-8"><title>Person2</title><p>{escape(sentence)}</p>'
    return BoltResponse(status=status, body=body, headers={"content-type": "text/html; charset=utf-8"})
