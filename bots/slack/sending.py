"""Posts, ephemeral messages, response URLs, edits, files. Escapes and splits everything; knows no event.

Calls go through the workspace's `outbox`, which keeps to Slack's rate limits.
"""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from slack_sdk.errors import SlackClientError
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncConnectionErrorRetryHandler,
    AsyncRateLimitErrorRetryHandler,
)
from slack_sdk.web.async_slack_response import AsyncSlackResponse
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bots.slack import markup, messages
from bots.slack.compat import library_log, proxy_for
from bots.slack.errors import NETWORK, reason
from bots.slack.outbox import NotPosted, is_temporary
from bots.slack.payloads import identifier, mappings, string
from bots.slack.workspace import Workspace
from core.commands import Attachment

log = logging.getLogger(__name__)

RESPONSE_URL_USES = 5
RESPONSE_URL_SECONDS = 30 * 60.0
"""How often and for how long a `response_url` may be used
(https://docs.slack.dev/interactivity/handling-user-interaction#message_responses)."""

CONTEXT_LIMIT = 2_000
"""Characters of a context block's text element (https://docs.slack.dev/reference/block-kit/composition-objects/text-object
allows 3,000; escaping needs room)."""

SECTION_LIMIT = 3_000
"""Characters of a section block's text (https://docs.slack.dev/reference/block-kit/blocks/section-block)."""

LOOK_BACK = 50
"""Messages that are searched for a post of ours."""

METADATA_TYPE = "person2_reply"
"""Type of the metadata by which a post of ours is found again (https://docs.slack.dev/messaging/message-metadata)."""

FEEDBACK = "feedback"
"""Action id of the thumbs under an answer."""

POST_ERRORS = (SlackClientError, NotPosted, *NETWORK)

Block = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question asked by command, which nobody sees unless the answer shows it."""

    author_name: str
    text: str


class ResponseUrl:
    """The response URL of one slash command or shortcut, valid for a few uses and half an hour."""

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
        self._uses = RESPONSE_URL_USES if url.startswith(("https://", "http://")) else 0
        self._until = monotonic() + RESPONSE_URL_SECONDS

    async def send(self, text: str, *, visible: bool, blocks: Sequence[Block] | None = None) -> bool:
        """Send escaped `text` to the asker, or to the channel; False where Slack no longer accepts the URL."""
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
        except (*POST_ERRORS, ValueError) as error:  # ValueError: an invalid URL
            log.warning("a response URL cannot be reached: %s", type(error).__name__)
            return False
        if response.status_code != 200:
            log.info("a response URL is used up or expired: HTTP %s", response.status_code)
            return False
        return True


async def post(
    workspace: Workspace,
    channel: str,
    text: str,
    *,
    thread: str | None = None,
    after: str | None = None,
    question: Question | None = None,
    buttons: bool = False,
    seconds: float | None = None,
    uncertain: bool = False,
) -> list[str]:
    """Post plain `text` in parts; their timestamps. The first shows the `question` above it, the last has thumbs.

    `after` is the message that is answered: no post of this text is older. Where it is `uncertain`, an earlier process
    may have posted it already. Raises the outbox's errors where not even the first part can be posted; stops at a later
    part that fails.
    """
    posted: list[str] = []
    pieces = markup.parts(text)
    for number, piece in enumerate(pieces, 1):
        blocks = as_blocks(piece, question=question if number == 1 else None, buttons=buttons and number == len(pieces))
        try:
            posted.append(
                await _post(workspace, channel, piece, thread, after, blocks, seconds=seconds, uncertain=uncertain)
            )
        except POST_ERRORS as error:
            if not posted:
                raise
            log.warning("a long answer was cut short: %s", reason(error))
            break
    return [ts for ts in posted if ts]


async def _post(
    workspace: Workspace,
    channel: str,
    piece: str,
    thread: str | None,
    after: str | None,
    blocks: list[Block] | None,
    *,
    seconds: float | None,
    uncertain: bool,
) -> str:
    mark = secrets.token_hex(8)

    async def send() -> AsyncSlackResponse:
        client = await workspace.api()
        return await client.chat_postMessage(
            channel=channel,
            text=piece,
            thread_ts=thread,
            blocks=blocks,
            metadata={"event_type": METADATA_TYPE, "event_payload": {"id": mark}},
            parse="none",
            link_names=False,
            unfurl_links=False,
        )

    async def posted() -> str | None:
        return await _find_posted(workspace, channel, piece, thread, after, mark)

    ts = await workspace.outbox.post(channel, send, posted=posted, seconds=seconds, uncertain=uncertain)
    workspace.posts.put((channel, ts), None)
    return ts


async def _find_posted(
    workspace: Workspace, channel: str, piece: str, thread: str | None, after: str | None, mark: str
) -> str | None:
    """The timestamp of a post that was not confirmed; None where it does not exist, or cannot be looked for.

    It has our mark in its metadata. Where an earlier process posted it, or a server keeps no metadata, it is a post of
    this text that is later than what it answers and not known as another post.
    """
    client = await workspace.api()
    try:
        if thread is None:
            found = await client.conversations_history(
                channel=channel, oldest=after, limit=LOOK_BACK, include_all_metadata=True
            )
        else:
            found = await client.conversations_replies(
                channel=channel, ts=thread, oldest=after, limit=LOOK_BACK, include_all_metadata=True
            )
    except SlackClientError as error:
        if is_temporary(error):
            raise
        log.info("whether a post exists cannot be checked: %s", reason(error))
        return None
    for said in mappings(found.data, "messages"):
        ts = identifier(said, "ts")
        if not ts or not messages.is_own_post(said, bot_user=workspace.bot_user, bot_id=workspace.bot_id):
            continue
        if string(said, "metadata", "event_payload", "id") == mark:
            return ts
        if (
            after
            and messages.is_later(ts, after)
            and (channel, ts) not in workspace.posts
            and markup.comparable(string(said, "text")) == markup.comparable(piece)
        ):
            return ts
    return None


async def find_posts(workspace: Workspace, channel: str, block_ids: Sequence[str]) -> list[str]:
    """Timestamps of our newest posts in a channel that have these blocks; those not found are left out."""
    client = await workspace.api()
    response = await client.conversations_history(channel=channel, limit=LOOK_BACK)
    found = {
        string(block, "block_id"): identifier(said, "ts")
        for said in mappings(response.data, "messages")
        for block in mappings(said, "blocks")
    }
    return [found[each] for each in block_ids if found.get(each)]


async def post_ephemeral(
    workspace: Workspace, channel: str, user: str, text: str, *, thread: str | None = None
) -> None:
    """Show plain `text` to one member of a channel; as a direct message where that is not possible."""
    for piece in markup.parts(text):

        async def send(piece: str = piece) -> AsyncSlackResponse:
            client = await workspace.api()
            return await client.chat_postEphemeral(
                channel=channel, user=user, text=piece, thread_ts=thread, parse="none", link_names=False
            )

        try:
            await workspace.outbox.call("chat.postEphemeral", send, once=True)
        except SlackClientError as error:
            log.info("no ephemeral message in the channel (%s), a direct message instead", reason(error))
            await post_direct(workspace, user, markup.unescape(piece))


async def post_direct(workspace: Workspace, user: str, text: str) -> None:
    """Send plain `text` to a member as a direct message."""
    seconds = workspace.outbox.timeouts.notice
    await post(workspace, await _direct(workspace, user), text, seconds=seconds)


async def _direct(workspace: Workspace, user: str) -> str:
    """The channel of a member's direct messages; their id, which Slack accepts too, where it cannot be looked up."""
    client = await workspace.api()
    try:
        opened = await client.conversations_open(users=user)
    except SlackClientError:
        return user
    return identifier(opened.data, "channel", "id") or user


async def replace(
    workspace: Workspace,
    channel: str,
    posts: Sequence[str],
    text: str,
    *,
    thread: str | None = None,
    question: Question | None = None,
    buttons: bool = False,
) -> list[str]:
    """Replace `posts` by `text`: edit as many as it has parts, delete the rest, post what is missing."""
    pieces = markup.parts(text)
    standing: list[str] = []
    for number, (old, piece) in enumerate(zip(posts, pieces, strict=False), 1):
        blocks = as_blocks(piece, question=question if number == 1 else None, buttons=buttons and number == len(pieces))
        if await _edit(workspace, channel, old, piece, blocks):
            standing.append(old)
        else:
            standing += await post(
                workspace, channel, markup.unescape(piece), thread=thread, question=question if number == 1 else None
            )
    for piece in pieces[len(posts) :]:
        standing += await post(workspace, channel, markup.unescape(piece), thread=thread)
    for old in posts[len(pieces) :]:
        await delete(workspace, channel, old)
    return standing


async def _edit(workspace: Workspace, channel: str, ts: str, piece: str, blocks: list[Block] | None) -> bool:
    """False where the post can no longer be edited."""

    async def send() -> AsyncSlackResponse:
        client = await workspace.api()
        # Slack removes blocks that are not given again; other servers do so only for an empty list.
        return await client.chat_update(
            channel=channel, ts=ts, text=piece, blocks=blocks or [], parse="none", link_names=False
        )

    try:
        await workspace.outbox.call("chat.update", send, seconds=workspace.outbox.timeouts.reply)
    except SlackClientError as error:
        log.info("a post cannot be edited (%s), a new one instead", reason(error))
        return False
    return True


async def delete(workspace: Workspace, channel: str, ts: str) -> None:
    """Delete a post of ours; errors are only logged."""

    async def send() -> AsyncSlackResponse:
        client = await workspace.api()
        return await client.chat_delete(channel=channel, ts=ts)

    try:
        await workspace.outbox.call("chat.delete", send)
    except POST_ERRORS as error:
        log.info("a post cannot be deleted: %s", reason(error))


async def send_file(workspace: Workspace, user: str, text: str, attachment: Attachment) -> bool:
    """Send a file to a member as a direct message; False where the app may not."""

    async def send() -> AsyncSlackResponse:
        client = await workspace.api()
        opened = await client.conversations_open(users=user)
        return await client.files_upload_v2(
            channel=identifier(opened.data, "channel", "id"),
            filename=attachment.name,
            title=attachment.name,
            content=attachment.data,
            initial_comment=markup.escape(text),
        )

    try:
        await workspace.outbox.call("files.completeUploadExternal", send, once=True)
    except POST_ERRORS as error:
        log.warning("a file could not be handed over: %s", reason(error))
        return False
    return True


def as_blocks(
    piece: str, *, question: Question | None = None, buttons: bool = False, block_id: str | None = None
) -> list[Block] | None:
    """The blocks of an (escaped) answer with its question above or thumbs below; None where the text is enough.

    `block_id` names the answer's own block, so that a post can be found by it.
    """
    if question is None and not buttons and block_id is None:
        return None
    blocks: list[Block] = []
    if question is not None and question.text:
        name, said = markup.escape(question.author_name), markup.escape(question.text[: CONTEXT_LIMIT // 5])
        blocks.append(
            {"type": "context", "elements": [{"type": "mrkdwn", "text": f"{name}: {said}", "verbatim": True}]}
        )
    for number, words in enumerate(markup.parts(markup.unescape(piece), limit=SECTION_LIMIT)):
        section: Block = {"type": "section", "text": {"type": "mrkdwn", "text": words, "verbatim": True}}
        blocks.append({**section, "block_id": block_id} if block_id and number == 0 else section)
    if buttons:
        blocks.append(
            {
                "type": "context_actions",
                "elements": [
                    {
                        "type": "feedback_buttons",
                        "action_id": FEEDBACK,
                        "positive_button": {"text": {"type": "plain_text", "text": "👍"}, "value": "good"},
                        "negative_button": {"text": {"type": "plain_text", "text": "👎"}, "value": "bad"},
                    }
                ],
            }
        )
    return blocks
