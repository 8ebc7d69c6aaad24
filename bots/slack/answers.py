"""Answers to commands and shortcuts: through the response URL, as a post, a whisper or a file, and where they stand.

Slack tells no timestamp of what was said through a response URL; it is learned here afterwards. Knows no event but the
bot's own posts.
"""

import asyncio
import logging
from collections.abc import Sequence

from slack_sdk.errors import SlackClientError

from bots.slack import markup, posting
from bots.slack.events import Payload
from bots.slack.posting import UNREACHABLE, ResponseUrl
from bots.slack.refusals import code
from bots.slack.workspace import Workspace
from core.chat import Chat
from core.commands import Answer, Invocation
from core.messages import Conversation, Reply
from core.recent import Recent

log = logging.getLogger(__name__)

ECHO_SECONDS = 1.0
"""How long the event that tells of a reply said through a response URL may take; then the channel is looked through."""

COMMAND = "command-"
"""How the ids begin of what was asked by command: nobody sees the question unless the answer shows it."""


class CommandAnswers:
    """Delivers what commands gave, for every workspace of one bot process."""

    def __init__(self, chat: Chat, *, visible: bool) -> None:
        self._chat = chat
        self._visible = visible
        self._awaited: Recent[tuple[Reply, Conversation]] = Recent()
        """Replies said through a response URL, whose timestamp comes back as an event."""
        self._searches: set[asyncio.Task[None]] = set()
        """For those whose event does not come."""

    def cancel(self) -> None:
        """Look no further for posts whose event did not come."""
        for task in self._searches:
            task.cancel()

    async def ended(self) -> None:
        """Wait until the searches are over."""
        await asyncio.gather(*self._searches, return_exceptions=True)

    async def deliver(self, workspace: Workspace, invocation: Invocation, answer: Answer, url: ResponseUrl) -> None:
        if answer.silent:
            return
        where, user, reply = invocation.message.conversation, invocation.message.author, answer.reply
        try:
            if reply is not None and answer.replaces:
                question = reply.question or invocation.message
                posts = await posting.replace(
                    workspace,
                    where.channel,
                    answer.replaces,
                    reply.text,
                    thread=question.conversation.thread,
                    question=(question.author_name, question.text) if question.id.startswith(COMMAND) else None,
                )
                await self._chat.posted(reply, where, posts)
                return
            text = answer.text if reply is None else reply.text
            if answer.attachment is not None:
                if await posting.hand_over(workspace, user, text, answer.attachment):
                    text = "I sent it to you as a file, in our direct messages."
                else:
                    text = f"{text}\n{answer.attachment.data.decode()}"
            await self._respond(workspace, invocation, reply, text, url, visible=not answer.private and self._visible)
        except BaseException:
            if reply is not None:
                await self._chat.posted(reply, where, ())
            raise

    async def _respond(
        self,
        workspace: Workspace,
        invocation: Invocation,
        reply: Reply | None,
        text: str,
        url: ResponseUrl,
        *,
        visible: bool,
    ) -> None:
        """Through the response URL as long as Slack takes it, else as a post or a whisper."""
        where, user = invocation.message.conversation, invocation.message.author
        parts = markup.parts(text)
        posts: list[str] = []
        for number, part in enumerate(parts):
            question = invocation.message.text if visible and reply is not None and number == 0 else ""
            blocks = posting.asked(invocation.message.author_name, question, part) if question else None
            if not await url.send(part, visible=visible, blocks=blocks):
                rest = markup.unescape("\n".join(parts[number:]))
                posts = await self._fall_back(workspace, where, user, rest, visible=visible)
                parts = parts[:number]
                break
        if reply is None:
            return
        if posts or not (parts and visible):
            await self._chat.posted(reply, where, posts)
        if parts and visible:
            self._await_echo(workspace, reply, where, parts)

    async def _fall_back(
        self, workspace: Workspace, where: Conversation, user: str, text: str, *, visible: bool
    ) -> list[str]:
        """A post, or a whisper where none can be made or should; the timestamps of posts."""
        if visible:
            try:
                return await posting.post(workspace, where.channel, text, thread=where.thread)
            except SlackClientError as error:
                log.info("no post in a channel the bot is not in: %s", code(error))
        await posting.whisper(workspace, where.channel, user, text, thread=where.thread)
        return []

    async def own_post(self, workspace: Workspace, event: Payload) -> None:
        """Our own words come by: those said through a response URL learn their timestamp here."""
        key = (workspace.team, event.get("channel"), markup.folded(str(event.get("text") or "")))
        found = self._awaited.pop(key) if event.get("ts") else None
        if found is not None:
            await self._chat.posted(*found, [str(event["ts"])])

    def _await_echo(self, workspace: Workspace, reply: Reply, where: Conversation, parts: Sequence[str]) -> None:
        """Learn under which timestamps a reply stands that was said through a response URL, which tells none: by the
        events of its posts, or where none comes (other servers, a channel without our events) by looking for them."""
        keys = [(workspace.team, where.channel, markup.folded(part)) for part in parts]
        for key in keys:
            self._awaited.put(key, (reply, where))

        async def search() -> None:
            posts: list[str] = []
            try:
                await asyncio.sleep(ECHO_SECONDS)
                missing = [key[-1] for key in keys if self._awaited.pop(key) is not None]
                if missing:
                    posts = await posting.look_for(workspace, where.channel, missing)
            except UNREACHABLE as error:
                log.info("a reply by command cannot be found: %s", code(error) or type(error).__name__)
            finally:
                await self._chat.posted(reply, where, posts)

        task = asyncio.create_task(search())
        self._searches.add(task)
        task.add_done_callback(self._searches.discard)
