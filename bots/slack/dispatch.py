"""Which workspace and handler a payload is for, and when it is acknowledged. Knows neither transport."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import aiohttp

from bots.slack import messages
from bots.slack.commands import CommandHandlers
from bots.slack.errors import REVOKED, code, explain
from bots.slack.events import SlackEventHandlers
from bots.slack.intake import Intake
from bots.slack.payloads import Payload, bot_of, string, team_of
from bots.slack.people import People
from bots.slack.sending import ResponseUrl
from bots.slack.workspace import Workspace
from core.chat import Chat
from core.commands import Commands
from core.errors import StorageError
from core.failures import log_failure

log = logging.getLogger(__name__)

ACK_SECONDS = 2.0
"""How long an acknowledgement waits until the message is stored; Slack waits three seconds for it."""

CLOSING_SECONDS = 2.0
"""How long other work in progress may take when the bot is stopped; replies were waited for before."""

NOT_INSTALLED = "Person2 is not installed in this workspace any more: ask an administrator to install it again."


class NotStored(Exception):
    """The message could not be stored: without an acknowledgement Slack delivers it again."""


Receive = Callable[[Payload], Awaitable[None]]
"""Handles a payload; returns once it may be acknowledged. Raises NotStored."""


class Workspaces(Protocol):
    """The workspaces that the bot is in."""

    async def of(self, body: Payload) -> Workspace | None:
        """The workspace of a payload; None where the bot is not in it. Raises StorageError."""

    async def in_space(self, space: str) -> Workspace | None:
        """The workspace with this id; None where the bot is not in it any more. Raises StorageError."""

    async def uninstalled(self, body: Payload) -> bool:
        """Whether this payload says that the bot was removed from a workspace, which is then forgotten. Raises
        StorageError."""


class OneWorkspace:
    """The workspace of a bot token."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def of(self, body: Payload) -> Workspace | None:
        known = self._workspace
        if known.team and known.bot_user:
            return known
        # Where `auth.test` did not tell our ids, each event does.
        return replace(known, team=known.team or team_of(body), bot_user=known.bot_user or bot_of(body))

    async def in_space(self, space: str) -> Workspace | None:
        known = self._workspace
        return replace(known, team=space) if known.team in {"", space} else None

    async def uninstalled(self, body: Payload) -> bool:
        return False


class Dispatcher:
    """Handles everything that Slack sends."""

    def __init__(
        self,
        chat: Chat,
        commands: Commands,
        workspaces: Workspaces,
        *,
        visible_commands: bool = True,
        buttons: bool = False,
        proxy: str | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self._chat = chat
        self._workspaces = workspaces
        self._proxy = proxy
        self._session = session
        self._people = People()
        self._intake = Intake(watch=self._watch)
        self._commands = CommandHandlers(
            chat,
            commands,
            intake=self._intake,
            people=self._people,
            visible=visible_commands,
            buttons=buttons,
            proxy=proxy,
            session=session,
        )
        self._events = SlackEventHandlers(
            chat, commands, self._commands, intake=self._intake, people=self._people, buttons=buttons
        )
        self.refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with PermanentPlatformError when Slack stops accepting the token of the one workspace."""

    async def receive(self, body: Payload) -> None:
        """Handle a payload; returns once it may be acknowledged. Raises NotStored."""
        try:
            async with asyncio.timeout(ACK_SECONDS):
                taken = await self._take(body)
                if taken is not None:
                    await asyncio.shield(taken)
        except (TimeoutError, StorageError) as error:
            # Slack delivers events again, but shows members an error for commands.
            if body.get("type") == "event_callback":
                raise NotStored from error
        except Exception as error:  # delivering an unexpected payload again would not help
            log_failure(log, error, "a payload from Slack could not be processed")

    async def _take(self, body: Payload) -> "asyncio.Future[None] | None":
        if body.get("type") == "event_callback" and await self._workspaces.uninstalled(body):
            return None
        workspace = await self._workspaces.of(body)
        if workspace is None:
            self._tell_not_installed(body)
            return None
        if body.get("type") == "event_callback":
            return self._events.take(workspace, body)
        if string(body, "command"):  # the operator may have renamed the command
            return self._commands.take_command(workspace, body)
        return self._commands.take_interaction(workspace, body)

    def _tell_not_installed(self, body: Payload) -> None:
        """Tell the user of a command why nothing happens."""
        url = ResponseUrl(string(body, "response_url"), proxy=self._proxy, session=self._session)

        async def tell(_: object) -> None:
            await url.send(NOT_INSTALLED, visible=False)

        self._intake.take((), tell)

    async def resume(self) -> None:
        """Answer what an earlier process left unanswered, each question once. Raises StorageError."""
        for question in await self._chat.unanswered(messages.PLATFORM):
            workspace = await self._workspaces.in_space(question.message.conversation.space)
            if workspace is not None:
                self._intake.take((), lambda _, here=workspace, asked=question: self._events.resume(here, asked))  # type: ignore[misc]  # bound now

    async def idle(self) -> None:
        """Wait until all payloads have been handled and their answers posted."""
        await self._intake.idle()

    async def close(self) -> None:
        """Let work in progress finish for a moment, then stop it."""
        await self._intake.close(CLOSING_SECONDS)
        await self._people.close()
        self.refused.cancel()

    def _watch(self, error: BaseException) -> None:
        """End the bot where its token was revoked, unless it serves other workspaces with theirs."""
        if code(error) not in REVOKED:
            return
        if not isinstance(self._workspaces, OneWorkspace):
            log.warning("the token of an installed workspace was revoked or has expired: it must install the bot again")
        elif not self.refused.done():
            self.refused.set_exception(explain(error, variable="SLACK_BOT_TOKEN"))
