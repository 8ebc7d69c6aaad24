"""Words out: posts, whispers, response URLs, edits, files. Escapes and splits everything; knows no event, no policy."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
from slack_sdk.errors import SlackClientError
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncConnectionErrorRetryHandler,
    AsyncRateLimitErrorRetryHandler,
)
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bots.slack import events, markup
from bots.slack.refusals import NETWORK, code
from bots.slack.workspace import Workspace, library_log, proxy_for
from core.commands import Attachment

log = logging.getLogger(__name__)

RESPONSE_URL_USES = 5
RESPONSE_URL_SECONDS = 30 * 60.0
"""How often and how long a `response_url` may be used
(https://docs.slack.dev/interactivity/handling-user-interaction#message_responses)."""

CONTEXT_LIMIT = 2_000
"""Characters of a context block's text element (https://docs.slack.dev/reference/block-kit/composition-objects/text-object
allows 3,000; escaping needs room)."""

SECTION_LIMIT = 3_000
"""Characters of a section block's text (https://docs.slack.dev/reference/block-kit/blocks/section-block)."""

LOOK_BACK = 20
"""Messages of a channel looked through for a post of ours."""

UNREACHABLE = (SlackClientError, *NETWORK)


class ResponseUrl:
    """The answer address of one slash command or shortcut, good for a few uses and half an hour."""

    def __init__(
        self,
        url: str,
        *,
        proxy: str | None = None,
        session: aiohttp.ClientSession | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._proxy = proxy
        self._session = session
        self._monotonic = monotonic
        self._uses = RESPONSE_URL_USES if url else 0
        self._until = monotonic() + RESPONSE_URL_SECONDS

    async def send(self, text: str, *, visible: bool, blocks: Sequence[dict[str, Any]] | None = None) -> bool:
        """Say escaped `text` to the asker, or to the channel; False where Slack no longer takes it here."""
        if self._uses < 1 or self._monotonic() > self._until:
            return False
        self._uses -= 1
        client = AsyncWebhookClient(
            self._url,
            session=self._session,
            logger=library_log(),
            retry_handlers=[AsyncConnectionErrorRetryHandler(), AsyncRateLimitErrorRetryHandler(max_retry_count=2)],
        )
        client.proxy = proxy_for(self._url, self._proxy)
        body: dict[str, Any] = {"text": text, "response_type": "in_channel" if visible else "ephemeral"}
        if blocks:
            body["blocks"] = list(blocks)
        try:
            response = await client.send_dict({**body, "replace_original": False})
        except UNREACHABLE as error:
            log.warning("a response URL cannot be reached: %s", type(error).__name__)
            return False
        if response.status_code != 200:
            log.info("a response URL is used up or expired: HTTP %s", response.status_code)
            return False
        return True


async def post(workspace: Workspace, channel: str, text: str, *, thread: str | None = None) -> list[str]:
    """Post plain `text` in parts; their timestamps. Raises slack_sdk's errors where not even the first can be posted; a
    later one that fails ends it."""
    posted: list[str] = []
    for part in markup.parts(text):
        try:
            response = await workspace.client.chat_postMessage(
                channel=channel, text=part, thread_ts=thread, parse="none", link_names=False, unfurl_links=False
            )
        except UNREACHABLE as error:
            if not posted:
                raise
            log.warning("a long answer ends early: %s", code(error) or type(error).__name__)
            break
        posted.append(str(response.get("ts") or ""))
    return [ts for ts in posted if ts]


async def look_for(workspace: Workspace, channel: str, folded: Sequence[str]) -> list[str]:
    """Timestamps of our newest posts in a channel with these texts (`markup.folded`); those not found are left out."""
    response = await workspace.client.conversations_history(channel=channel, limit=LOOK_BACK)
    found: dict[str, str] = {}
    for said in response.get("messages") or ():
        if said.get("ts") and events.ours(said, bot_user=workspace.bot_user, bot_id=workspace.bot_id):
            found.setdefault(markup.folded(str(said.get("text") or "")), str(said["ts"]))
    return [found[text] for text in folded if text in found]


async def whisper(workspace: Workspace, channel: str, user: str, text: str, *, thread: str | None = None) -> None:
    """Say plain `text` to one member of a channel; by direct message where the bot is not in that channel."""
    for part in markup.parts(text):
        try:
            await workspace.client.chat_postEphemeral(
                channel=channel, user=user, text=part, thread_ts=thread, parse="none", link_names=False
            )
        except SlackClientError as error:
            log.info("no whisper in the channel (%s), a direct message instead", code(error))
            await workspace.client.chat_postMessage(
                channel=await _direct(workspace, user), text=part, parse="none", link_names=False
            )


async def _direct(workspace: Workspace, user: str) -> str:
    """The channel of a member's direct messages; Slack takes their id for it too, where it cannot be asked."""
    try:
        opened = await workspace.client.conversations_open(users=user)
    except SlackClientError:
        return user
    return str((opened.get("channel") or {}).get("id") or user)


async def replace(
    workspace: Workspace,
    channel: str,
    posts: Sequence[str],
    text: str,
    *,
    thread: str | None = None,
    question: tuple[str, str] | None = None,
) -> list[str]:
    """Put `text` in the place of `posts`: edit as many as it has parts, delete the rest, add what is missing. The first
    shows the question (who, what) above it where there is one."""
    parts = markup.parts(text)
    standing: list[str] = []
    for old, part in zip(posts, parts, strict=False):
        blocks = asked(*question, part) if question and not standing else None
        try:
            # Slack removes the blocks that a new text comes without; other servers keep them unless told.
            await workspace.client.chat_update(
                channel=channel, ts=old, text=part, blocks=blocks or [], parse="none", link_names=False
            )
            standing.append(old)
        except SlackClientError as error:
            log.info("a post cannot be edited (%s), a new one instead", code(error))
            standing += await post(workspace, channel, markup.unescape(part), thread=thread)
    for part in parts[len(posts) :]:
        standing += await post(workspace, channel, markup.unescape(part), thread=thread)
    for old in posts[len(parts) :]:
        with suppress(*UNREACHABLE):
            await workspace.client.chat_delete(channel=channel, ts=old)
    return standing


async def hand_over(workspace: Workspace, user: str, text: str, attachment: Attachment) -> bool:
    """Send a file to a member's direct messages; False where the app may not."""
    try:
        opened = await workspace.client.conversations_open(users=user)
        channel = str((opened.get("channel") or {}).get("id") or "")
        await workspace.client.files_upload_v2(
            channel=channel,
            filename=attachment.name,
            title=attachment.name,
            content=attachment.data,
            initial_comment=markup.escape(text),
        )
    except UNREACHABLE as error:
        log.warning("a file could not be handed over: %s", code(error) or type(error).__name__)
        return False
    return True


def asked(name: str, question: str, answer: str) -> list[dict[str, Any]] | None:
    """Blocks that show a channel the question of a command above the (escaped) answer; None where it is too long."""
    question = markup.escape(question[: CONTEXT_LIMIT // 5])
    if len(answer) > SECTION_LIMIT:
        return None
    return [
        {
            "type": "context",
            "elements": [{"type": "mrkdwn", "text": f"{markup.escape(name)}: {question}", "verbatim": True}],
        },
        {"type": "section", "text": {"type": "mrkdwn", "text": answer, "verbatim": True}},
    ]


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
        if self._thread is not None:
            self._shown = asyncio.create_task(self._show("is thinking…"))

    async def __aexit__(self, *raised: object) -> None:
        if self._shown is not None and not self._shown.done():
            self._shown.cancel()  # a status that arrives after the reply would stay
            await asyncio.gather(self._shown, return_exceptions=True)

    async def clear(self) -> None:
        """Needed only where no post follows."""
        if self._shown is not None:
            await self._show("")

    async def _show(self, words: str) -> None:
        try:
            await self._workspace.client.assistant_threads_setStatus(
                channel_id=self._channel, thread_ts=str(self._thread), status=words
            )
        except UNREACHABLE as error:
            log.debug("no status in a thread: %s", code(error) or type(error).__name__)
