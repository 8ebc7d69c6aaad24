"""The first message of a thread, read from Slack's history. Knows no chat."""

import logging

from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bots.slack.errors import reason
from bots.slack.payloads import Payload, identifier, mappings
from bots.slack.sending import POST_ERRORS
from bots.slack.workspace import Workspace

log = logging.getLogger(__name__)

READ_SECONDS = 3.0
"""Longest wait for it, because somebody is waiting for an answer."""


async def first_of_thread(workspace: Workspace, channel: str, thread: str) -> Payload | None:
    """The first message of a thread, as an event; None where Slack does not let us read it. Not retried: apps outside
    Slack's directory may call this method once a minute (https://docs.slack.dev/apis/web-api/rate-limits)."""

    async def send() -> AsyncSlackResponse:
        client = await workspace.api()
        return await client.conversations_replies(channel=channel, ts=thread, limit=1)

    try:
        response = await workspace.outbox.call("conversations.replies", send, seconds=READ_SECONDS, once=True)
    except POST_ERRORS as error:
        log.info("the first message of a thread cannot be read: %s", reason(error))
        return None
    found = [said for said in mappings(response.data, "messages") if identifier(said, "ts") == thread]
    return {**found[0], "type": "message", "channel": channel} if found else None
