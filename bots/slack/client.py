"""The bot: checks its tokens, receives until cancelled, and passes what Slack sends to the dispatcher.

Serves one workspace by its token, or by OAuth any number of them (`oauth`). slack-bolt's own dispatcher is not used: it
acknowledges before anything is stored, reads environment variables of its own, and fails on hostile JSON.
"""

import asyncio
import logging

import aiohttp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bots.slack.compat import REQUEST_SECONDS, base_url, web_client
from bots.slack.credentials import BOTH_WAYS, granted_scopes
from bots.slack.dispatch import Dispatcher, OneWorkspace, Workspaces
from bots.slack.errors import NETWORK, explain, redact
from bots.slack.http_mode import HttpMode
from bots.slack.manifest import NEEDED, WANTED
from bots.slack.messages import PLATFORM
from bots.slack.oauth import Installations, OAuth
from bots.slack.outbox import Outbox
from bots.slack.payloads import identifier, string
from bots.slack.socket_mode import SocketMode
from bots.slack.timeouts import SlackTimeouts
from bots.slack.workspace import Workspace
from core.chat import Chat
from core.commands import Commands
from core.errors import PermanentPlatformError, StorageError
from core.failures import log_failure
from core.health import PostHealth

log = logging.getLogger(__name__)


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
        buttons: bool = False,
        timeouts: SlackTimeouts | None = None,
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
        self._buttons = buttons
        self._timeouts = timeouts or SlackTimeouts()
        self._http_mode: HttpMode | None = None
        self._dispatcher: Dispatcher | None = None
        self.ready = asyncio.Event()
        self.post_health = PostHealth()

    def trouble(self) -> str | None:
        """Why the bot cannot receive or post, as the end of a sentence; None while it can."""
        refusing = self._http_mode.trouble() if self._http_mode is not None else None
        return refusing or self.post_health.trouble()

    async def idle(self) -> None:
        """Wait until everything that Slack sent has been handled; returns at once where the bot does not run."""
        if self._dispatcher is not None:
            await self._dispatcher.idle()

    async def run(self) -> None:
        """Receive and answer until cancelled. Raises PermanentPlatformError where Slack refuses the bot; anything else
        is retried."""
        self._check()
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            workspaces: Workspaces
            flow = None
            if self._oauth is None:
                client = web_client(token=self._bot_token, url=self._url, proxy=self._proxy, session=session, retries=0)
                workspace = await self._identify(client)
                self._chat.known_as(PLATFORM, workspace.bot_name)
                workspaces = OneWorkspace(workspace)
            else:
                workspaces = installations = Installations(
                    self._oauth,
                    self._chat.memory,
                    url=self._url,
                    proxy=self._proxy,
                    session=session,
                    outbox=self._outbox,
                )
                flow = installations.flow
            self._dispatcher = dispatcher = Dispatcher(
                self._chat,
                self._commands,
                workspaces,
                visible_commands=self._visible_commands,
                buttons=self._buttons,
                proxy=self._proxy,
                session=session,
            )
            if self._http:
                self._http_mode = HttpMode(
                    dispatcher.receive,
                    signing_secret=str(self._signing_secret).strip(),
                    flow=flow,
                    host=self._host,
                    port=self._port,
                    path=self._path,
                    listening=self.ready.set,
                )
                listening = asyncio.create_task(self._http_mode.run())
            else:
                listening = asyncio.create_task(self._socket_mode(dispatcher, session).run())
            resuming = asyncio.create_task(self._resume(dispatcher))
            try:
                await asyncio.wait({listening, dispatcher.refused}, return_when=asyncio.FIRST_COMPLETED)
                await (dispatcher.refused if dispatcher.refused.done() else listening)
            finally:
                self.ready.clear()
                for task in (listening, resuming):
                    task.cancel()
                await asyncio.gather(listening, resuming, return_exceptions=True)
                await dispatcher.close()

    def _socket_mode(self, dispatcher: Dispatcher, session: aiohttp.ClientSession) -> SocketMode:
        return SocketMode(
            dispatcher.receive,
            app_token=str(self._app_token),
            client=web_client(token=None, url=self._url, proxy=self._proxy, session=session),
            proxy=self._proxy,
            timeouts=self._timeouts,
            connected=self.ready.set,
            lost=self.ready.clear,
        )

    async def _resume(self, dispatcher: Dispatcher) -> None:
        """Once Slack can be reached: answer what an earlier process left unanswered."""
        await self.ready.wait()
        try:
            await dispatcher.resume()
        except StorageError as error:
            log_failure(log, error, "unanswered questions cannot be looked up")

    def _outbox(self) -> Outbox:
        return Outbox(timeouts=self._timeouts, health=self.post_health)

    def _check(self) -> None:
        if self._oauth is not None:
            if not self._http:
                raise PermanentPlatformError(
                    "Workspaces can install the bot only over HTTP: run `person2 slack --http`."
                )
            if self._bot_token:
                raise PermanentPlatformError(BOTH_WAYS)
        elif not self._bot_token:
            raise PermanentPlatformError(
                "SLACK_BOT_TOKEN is missing: it starts with xoxb- and is found under “OAuth & Permissions”."
            )
        elif self._bot_token.startswith("xoxp-"):
            raise PermanentPlatformError(
                "SLACK_BOT_TOKEN is a member's token: set the bot's own, which starts with xoxb-."
            )
        elif self._bot_token.startswith("xoxe"):
            raise PermanentPlatformError(
                "SLACK_BOT_TOKEN is a token that expires: turn off token rotation in the app's settings, "
                "or let workspaces install it (SLACK_CLIENT_ID, SLACK_CLIENT_SECRET)."
            )
        if self._http and not (self._signing_secret or "").strip():
            raise PermanentPlatformError(
                "SLACK_SIGNING_SECRET is missing: HTTP mode needs it; it is found under “Basic Information”."
            )
        if not self._http and not self._app_token:
            raise PermanentPlatformError(
                "SLACK_APP_TOKEN is missing: Socket Mode needs an app-level token, which starts with xapp-; "
                "make one with the scope connections:write, or run `person2 slack --http`."
            )

    async def _identify(self, client: AsyncWebClient) -> Workspace:
        """The workspace and bot that the token is for; waits until Slack can be reached."""
        pause = self._timeouts.first_backoff
        while True:
            try:
                answer = await client.auth_test()
            except SlackClientError as error:
                problem = explain(error, variable="SLACK_BOT_TOKEN")
                if isinstance(problem, PermanentPlatformError):
                    raise problem from error
                log.warning("%s", problem)
            except NETWORK as error:
                log.warning("Slack cannot be reached (%s): trying again", redact(f"{type(error).__name__}: {error}"))
            else:
                _check_scopes(answer)
                name = string(answer.data, "user") or "Person2"
                log.info("logged in to Slack as %s in %s", name, string(answer.data, "team") or "a workspace")
                return Workspace(
                    team=identifier(answer.data, "team_id"),
                    bot_user=identifier(answer.data, "user_id"),
                    bot_id=identifier(answer.data, "bot_id"),
                    bot_name=name,
                    client=client,
                    outbox=self._outbox(),
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._timeouts.longest_backoff)


def _check_scopes(answer: AsyncSlackResponse) -> None:
    """Raises PermanentPlatformError where the token lacks a scope that is needed."""
    granted = granted_scopes(answer)
    if not granted:
        return
    lacking = [scope for scope in NEEDED if scope not in granted]
    if lacking:
        raise PermanentPlatformError(
            f"The bot token lacks the scope {', '.join(lacking)}: "
            "add it under “OAuth & Permissions” and install the app again."
        )
    # No warning: whoever installed the app may have declined these, and `person2 doctor` says what each is for.
    declined = [scope for scope in WANTED if scope not in granted]
    if declined:
        log.info("The bot token lacks optional scopes: %s", ", ".join(declined))
