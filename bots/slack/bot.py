"""The bot: checks its tokens, builds the slack-bolt app, listens until cancelled. What is heard goes to the `Desk`.

One workspace by its token, or by OAuth any number of them, which `installations` knows.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

import aiohttp
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.authorization.async_authorize import AsyncAuthorize
from slack_bolt.context.ack.async_ack import AsyncAck
from slack_bolt.context.async_context import AsyncBoltContext
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bots.slack import events, home
from bots.slack.desk import Desk
from bots.slack.events import Payload
from bots.slack.http_mode import HttpMode
from bots.slack.installations import NOT_INSTALLED, Installations, OAuth
from bots.slack.manifest import NEEDED, WANTED
from bots.slack.refusals import NETWORK, discreet, refusal
from bots.slack.socket_mode import Pace, SocketMode
from bots.slack.workspace import REQUEST_SECONDS, Workspace, base_url, library_log, proxy_for, web_client
from core.chat import Chat
from core.commands import Commands
from core.errors import Refused
from core.health import PostHealth

log = logging.getLogger(__name__)

ANOTHER_ANSWER = "another_answer"
"""Callback id of the message shortcut; the manifest names it too."""

Authorize = AsyncAuthorize | Callable[[], Awaitable[AuthorizeResult]]
Here = Callable[[AsyncBoltContext, Payload], Workspace]
"""The workspace a payload came from."""


class SlackBot:
    """Person2 on Slack. `run` does everything; `ready` is set while the bot can be reached.

    With `oauth` (over HTTP) workspaces install the bot themselves, and no bot token is used.
    """

    def __init__(
        self,
        chat: Chat,
        commands: Commands,
        *,
        bot_token: str = "",
        app_token: str | None = None,
        signing_secret: str | None = None,
        oauth: OAuth | None = None,
        api_url: str | None = None,
        proxy: str | None = None,
        http: bool = False,
        host: str = "127.0.0.1",
        port: int = 3000,
        path: str = "/slack/events",
        visible_commands: bool = True,
        pace: Pace | None = None,
    ) -> None:
        self._chat = chat
        self._commands = commands
        self._bot_token = bot_token
        self._app_token = app_token
        self._signing_secret = signing_secret
        self._oauth = oauth
        self._url = base_url(api_url)
        self._proxy = proxy
        self._http = http
        self._host = host
        self._port = port
        self._path = path
        self._visible_commands = visible_commands
        self._pace = pace or Pace()
        self.ready = asyncio.Event()
        self.post_health = PostHealth()

    async def run(self) -> None:
        """Listen and answer until cancelled. Raises Refused where Slack will not have us; anything else is retried."""
        self._check()
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            if self._oauth is None:
                client = web_client(token=self._bot_token, url=self._url, proxy=self._proxy, session=session)
                workspace = await self._introduce(client)
                desk = self._desk(session)
                app = self._app(desk, _authorize_one(workspace), _here_one(workspace))
            else:
                memory = self._chat.memory
                many = Installations(self._oauth, memory, url=self._url, proxy=self._proxy, session=session)
                desk = self._desk(session, many_workspaces=True)
                app = self._app(desk, many, lambda context, _: many.workspace(context), many)
            listening = asyncio.create_task(self._listen(app, session))
            try:
                await asyncio.wait({listening, desk.refused}, return_when=asyncio.FIRST_COMPLETED)
                await (desk.refused if desk.refused.done() else listening)
            finally:
                self.ready.clear()
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
                await desk.close()

    def _check(self) -> None:
        if self._oauth is not None:
            if not self._http:
                raise Refused("Workspaces can install the bot only over HTTP: run `person2 slack --http`.")
        elif not self._bot_token:
            raise Refused("SLACK_BOT_TOKEN is missing: it starts with xoxb- and stands under “OAuth & Permissions”.")
        elif self._bot_token.startswith("xoxp-"):
            raise Refused("SLACK_BOT_TOKEN is a member's token: set the bot's own, which starts with xoxb-.")
        elif self._bot_token.startswith("xoxe"):
            raise Refused(
                "SLACK_BOT_TOKEN is one that expires: switch token rotation off in the app's settings, "
                "or let workspaces install it (SLACK_CLIENT_ID, SLACK_CLIENT_SECRET)."
            )
        if self._http and not (self._signing_secret or "").strip():
            raise Refused("SLACK_SIGNING_SECRET is missing: HTTP mode needs it; it stands under “Basic Information”.")
        if not self._http and not self._app_token:
            raise Refused(
                "SLACK_APP_TOKEN is missing: Socket Mode needs an app-level token, which starts with xapp-; "
                "make one with the scope connections:write, or run `person2 slack --http`."
            )

    async def _introduce(self, client: AsyncWebClient) -> Workspace:
        """Who the token says we are; waits for Slack to come within reach."""
        pause = self._pace.first_backoff
        while True:
            try:
                answer = await client.auth_test()
            except SlackClientError as error:
                problem = refusal(error, variable="SLACK_BOT_TOKEN")
                if isinstance(problem, Refused):
                    raise problem from error
                log.warning("%s", problem)
            except NETWORK as error:
                log.warning("Slack cannot be reached (%s): trying again", discreet(f"{type(error).__name__}: {error}"))
            else:
                _check_scopes(answer)
                return Workspace(
                    team=str(answer.get("team_id") or ""),
                    bot_user=str(answer.get("user_id") or ""),
                    bot_id=str(answer.get("bot_id") or ""),
                    bot_name=str(answer.get("user") or "Person2"),
                    client=client,
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._pace.longest_backoff)

    async def _listen(self, app: AsyncApp, session: aiohttp.ClientSession) -> None:
        if self._http:
            await HttpMode(app, host=self._host, port=self._port, path=self._path, listening=self.ready.set).run()
        else:
            opener = web_client(token=None, url=self._url, proxy=self._proxy, session=session)
            await SocketMode(
                app,
                app_token=str(self._app_token),
                client=opener,
                proxy=self._proxy,
                pace=self._pace,
                connected=self.ready.set,
                lost=self.ready.clear,
            ).run()

    def _desk(self, session: aiohttp.ClientSession, *, many_workspaces: bool = False) -> Desk:
        return Desk(
            self._chat,
            self._commands,
            visible_commands=self._visible_commands,
            many_workspaces=many_workspaces,
            proxy=self._proxy,
            session=session,
        )

    def _app(self, desk: Desk, authorize: Authorize, here: Here, many: Installations | None = None) -> AsyncApp:
        """slack-bolt's app: every listener acknowledges and hands over.

        slack-bolt would call auth.test before its first acknowledgement, and drop the deletion of our own posts as our
        own doing; so who we are is told it beforehand, and `Desk` itself tells our own words from others'.
        """
        client = AsyncWebClient(base_url=self._url, logger=library_log())
        client.proxy = proxy_for(self._url, self._proxy)
        app = AsyncApp(
            logger=library_log(),
            name="person2",
            client=client,
            signing_secret=self._signing_secret or "",
            authorize=authorize,  # type: ignore[arg-type]  # slack-bolt takes an AsyncAuthorize too, and says so
            oauth_flow=many.flow if many else None,
            user_facing_authorize_error_message=NOT_INSTALLED,
            request_verification_enabled=self._http,
            ignoring_self_events_enabled=False,
        )

        async def on_event(context: AsyncBoltContext, body: Payload) -> None:
            if many is None or not await many.parted(context, body):
                desk.take_event(here(context, body), body)  # slack-bolt acknowledged before it called this

        async def on_command(ack: AsyncAck, context: AsyncBoltContext, body: Payload) -> None:
            await ack()
            desk.take_command(here(context, body), body)

        async def on_shortcut(ack: AsyncAck, context: AsyncBoltContext, body: Payload) -> None:
            await ack()
            desk.take_shortcut(here(context, body), body)

        async def on_action(ack: AsyncAck, context: AsyncBoltContext, body: Payload, action: Payload) -> None:
            await ack()
            if action.get("action_id") in {home.CONSENT_YES, home.CONSENT_NO}:
                desk.take_consent(here(context, body), body, given=action["action_id"] == home.CONSENT_YES)

        anything = re.compile("")
        app.event(anything)(on_event)
        app.command(anything)(on_command)  # an operator may name the command otherwise
        app.shortcut(ANOTHER_ANSWER)(on_shortcut)
        app.action(anything)(on_action)
        return app


def _authorize_one(workspace: Workspace) -> Authorize:
    known = AuthorizeResult(
        enterprise_id=None,
        team_id=workspace.team,
        bot_user_id=workspace.bot_user,
        bot_id=workspace.bot_id,
        bot_token=workspace.client.token,
    )

    async def authorize() -> AuthorizeResult:
        return known

    return authorize


def _here_one(workspace: Workspace) -> Here:
    def here(_: AsyncBoltContext, body: Payload) -> Workspace:
        if workspace.team and workspace.bot_user:
            return workspace
        return replace(
            workspace,
            team=workspace.team or events.team_of(body),
            bot_user=workspace.bot_user or events.bot_of(body),
        )

    return here


def _check_scopes(answer: AsyncSlackResponse) -> None:
    """Slack says a token's scopes in a header (https://docs.slack.dev/authentication/installing-with-oauth)."""
    header = next((value for name, value in answer.headers.items() if name.lower() == "x-oauth-scopes"), "")
    granted = {scope.strip() for scope in str(header).split(",")} - {""}
    if not granted:
        return
    lacking = [scope for scope in NEEDED if scope not in granted]
    if lacking:
        raise Refused(
            f"The bot token lacks the scope {', '.join(lacking)}: "
            "add it under “OAuth & Permissions” and install the app again."
        )
    for scope, purpose in WANTED.items():
        if scope not in granted:
            log.warning("The bot token lacks the scope %s: without it I cannot %s.", scope, purpose)
