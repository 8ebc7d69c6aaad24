"""“is thinking…”, shown while a reply is composed. Knows no event and no text."""

import asyncio
import logging

from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bots.slack.errors import reason
from bots.slack.sending import POST_ERRORS
from bots.slack.workspace import Workspace

log = logging.getLogger(__name__)

LOADING = ("is reading along…", "is thinking…", "is looking for words…")
"""Texts that Slack shows in turn while a reply is composed."""

STATUS_SECONDS = 1.0
"""How long a reply waits for its status to arrive: a status after the reply would stay for two minutes."""


class Status:
    """“is thinking…” under a thread while a reply is composed: an async context manager; failures are ignored.

    `assistant.threads.setStatus` needs only `chat:write`, works in any thread and ends with the bot's next post there
    (https://docs.slack.dev/changelog/2026/03/05/set-status-scope-update).
    """

    def __init__(self, workspace: Workspace, channel: str, thread: str | None) -> None:
        self._workspace = workspace
        self._channel = channel
        self._thread = thread
        self._shown: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        # Where posts are waiting already, another call would only delay them.
        if self._thread is not None and not self._workspace.outbox.busy(self._channel):
            self._shown = asyncio.create_task(self._show("is thinking…"))

    async def __aexit__(self, *raised: object) -> None:
        if self._shown is not None:
            await asyncio.wait({self._shown}, timeout=STATUS_SECONDS)
            self._shown.cancel()
            await asyncio.gather(self._shown, return_exceptions=True)

    async def clear(self) -> None:
        """Needed only where no post follows."""
        if self._shown is not None:
            await self._show("")

    async def _show(self, words: str) -> None:
        async def send() -> AsyncSlackResponse:
            client = await self._workspace.api()
            return await client.assistant_threads_setStatus(
                channel_id=self._channel,
                thread_ts=str(self._thread),
                status=words,
                loading_messages=list(LOADING) if words else None,
            )

        try:
            await self._workspace.outbox.call("assistant.threads.setStatus", send, seconds=0.0)
        except POST_ERRORS as error:
            log.debug("no status in a thread: %s", reason(error))
