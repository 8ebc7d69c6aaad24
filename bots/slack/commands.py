"""Slash commands, the shortcut and buttons: run, and answered as a post, through the response URL, or as a file.

A public answer is posted where the bot is a member, so that its timestamp is known. Elsewhere it goes through the
response URL, which returns no timestamp: the post is found by the id of its block.
"""

import asyncio
import logging
import secrets
from collections.abc import Hashable
from dataclasses import dataclass, replace

import aiohttp
from slack_sdk.errors import SlackClientError

from bots.slack import home, markup, messages, sending
from bots.slack.errors import reason
from bots.slack.intake import Intake, Notify, Stored, acknowledged
from bots.slack.payloads import Payload, identifier, mapping, mappings, string
from bots.slack.people import People
from bots.slack.sending import POST_ERRORS, Question, ResponseUrl
from bots.slack.status import Status
from bots.slack.workspace import Workspace
from core import commands as table
from core.chat import Chat
from core.commands import Answer, Commands, Invocation
from core.messages import Conversation, Message, Reply

log = logging.getLogger(__name__)

COMMAND = "command-"
"""Prefix of the ids of questions asked by command: nobody sees such a question unless the answer shows it."""

ECHO_SECONDS = 1.0
"""How long to wait for the event of a post made through a response URL; after that the channel's history is
searched."""

CANNOT_POST = "I couldn't post my answer here. Please try again in a few minutes."
NO_FILES = (
    "Your data is too long for a message, and I can't send files here. Ask my operator, who can export it for you."
)

LARGEST_TEXT = 8_000
"""Characters of a member's data that are shown as text where no file can be sent: two posts."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PendingEcho:
    """A reply posted through a response URL, whose timestamp is not known yet."""

    reply: Reply
    where: Conversation
    block_id: str
    text: str
    """In the form in which it is compared (`markup.comparable`)."""
    known: "asyncio.Future[str]"


class CommandHandlers:
    """Runs members' commands, for every workspace of one bot process."""

    def __init__(
        self,
        chat: Chat,
        commands: Commands,
        *,
        intake: Intake,
        people: People,
        visible: bool = True,
        buttons: bool = False,
        proxy: str | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self._chat = chat
        self._commands = commands
        self._intake = intake
        self._people = people
        self._visible = visible
        self._buttons = buttons
        self._proxy = proxy
        self._session = session
        self._echoes: dict[tuple[str, str, str], PendingEcho] = {}
        """By workspace, channel and block id, for a second or so."""

    # Payloads

    def take_command(self, workspace: Workspace, body: Payload) -> "asyncio.Future[None] | None":
        """Handle a slash command; the future is done once it may be acknowledged."""
        channel, user = identifier(body, "channel_id"), identifier(body, "user_id")
        if not (channel and user):
            return None
        url = self._response_url(body)
        return self._intake.take(
            _keys(body),
            lambda stored: self._command(workspace, body, url, stored),
            self._notifier(workspace, channel, user, url),
        )

    def take_interaction(self, workspace: Workspace, body: Payload) -> "asyncio.Future[None] | None":
        """Handle a message shortcut or a button; None for one that is not ours."""
        user = identifier(body, "user", "id")
        action = next(iter(mappings(body, "actions")), {})
        match body.get("type"), action.get("action_id"):
            case "message_action", _ if user and identifier(body, "channel", "id"):
                url = self._response_url(body)
                tell = self._notifier(workspace, identifier(body, "channel", "id"), user, url)
                return self._intake.take(_keys(body), lambda stored: self._again(workspace, body, url, stored), tell)
            case "block_actions", home.CONSENT_YES | home.CONSENT_NO if user:
                given = action.get("action_id") == home.CONSENT_YES
                return self._intake.take(_keys(body), lambda _: self._set_consent(workspace, user, given=given))
            case "block_actions", sending.FEEDBACK if user:
                liked = action.get("value") == "good"
                return self._intake.take(_keys(body), lambda _: self._rate(workspace, body, user, liked=liked))
            case _:
                return None

    async def _command(self, workspace: Workspace, body: Payload, url: ResponseUrl, stored: Stored) -> None:
        user, channel, text = identifier(body, "user_id"), identifier(body, "channel_id"), string(body, "text")
        people = (user, *markup.mentioned_users(text))
        name, _ = table.parse(text)
        if name != "ask":  # a question is stored at once; other commands can wait for names
            await self._people.look_up(workspace, people)
        where = messages.conversation_at(channel, space=workspace.team)

        def read() -> tuple[str, Message]:
            """The command's name, and its argument as a message, with the names known by now."""
            names = self._people.names(workspace, people)
            words = markup.plain_text(text, names=names, bot_user=workspace.bot_user, bot_name=workspace.bot_name)
            name, argument = table.parse(words)
            author_name = names.get(user) or string(body, "user_name")
            return name, self._as_message(where, body, user, author_name, argument)

        async def complete() -> Message:
            await self._people.look_up(workspace, people)
            return replace(read()[1], id=message.id)

        name, message = read()
        invocation = Invocation(
            name=name,
            argument=message.text,
            message=message,
            admin=name != "ask" and (await self._people.person(workspace, user)).admin,
            whole_channel=True,  # Slack takes no commands in threads
            thinking=lambda: acknowledged(stored),
            heard=stored,
            complete=complete,
        )
        await self._deliver(workspace, invocation, await self._commands.run(invocation), url)

    async def _again(self, workspace: Workspace, body: Payload, url: ResponseUrl, stored: Stored) -> None:
        user, said = identifier(body, "user", "id"), mapping(body, "message")
        thread = identifier(said, "thread_ts") or None
        where = messages.conversation_at(identifier(body, "channel", "id"), space=workspace.team, thread=thread)
        status = Status(workspace, where.channel, where.thread)
        invocation = Invocation(
            name="again",
            message=self._as_message(where, body, user, string(body, "user", "name"), ""),
            admin=(await self._people.person(workspace, user)).admin,
            post=identifier(said, "ts"),
            thinking=lambda: acknowledged(stored, status),
        )
        await self._deliver(workspace, invocation, await self._commands.run(invocation), url)
        await status.clear()

    async def _set_consent(self, workspace: Workspace, user: str, *, given: bool) -> None:
        where = messages.conversation_at(user, space=workspace.team, channel_type="im")
        word = "yes" if given else "no"
        await self._commands.run(
            Invocation(name="consent", argument=word, message=self._as_message(where, {}, user, "", f"consent {word}"))
        )
        await home.show(workspace, self._chat, self._commands, user)

    async def _rate(self, workspace: Workspace, body: Payload, user: str, *, liked: bool) -> None:
        channel = identifier(body, "container", "channel_id") or identifier(body, "channel", "id")
        ts = identifier(body, "container", "message_ts") or identifier(body, "message", "ts")
        if channel and ts:
            await self._chat.feedback(messages.conversation_at(channel, space=workspace.team), ts, user, liked)

    def _as_message(self, where: Conversation, body: Payload, user: str, name: str, words: str) -> Message:
        """A command as a message; its trigger id is the message's id, so a redelivered one is the same message."""
        return Message(
            conversation=where,
            id=f"{COMMAND}{identifier(body, 'trigger_id') or secrets.token_hex(8)}"[:100],
            author=user,
            author_name=name or markup.SOMEONE,
            text=words,
            sent_at=self._commands.clock(),
        )

    def _notifier(self, workspace: Workspace, channel: str, user: str, url: ResponseUrl) -> Notify:
        async def tell(sentence: str) -> None:
            if not await url.send(markup.escape(sentence), visible=False):
                await sending.post_ephemeral(workspace, channel, user, sentence)

        return tell

    def _response_url(self, body: Payload) -> ResponseUrl:
        return ResponseUrl(string(body, "response_url"), proxy=self._proxy, session=self._session)

    # Answering

    async def _deliver(self, workspace: Workspace, invocation: Invocation, answer: Answer, url: ResponseUrl) -> None:
        if answer.silent:
            return
        reply, asked = answer.reply, invocation.message
        try:
            if reply is not None and answer.replaces:
                await self._replace(workspace, asked, reply, answer.replaces)
            elif answer.attachment is not None:
                await self._send_attachment(workspace, asked, answer, url)
            elif answer.private or not self._visible:
                text = answer.text if reply is None else reply.text
                await self._reply_privately(workspace, asked, text, url)
                if reply is not None:
                    await self._chat.posted(reply, asked.conversation, (), stands=True)
            else:
                await self._say(workspace, asked, answer, url)
        except Exception as error:
            # A cancelled one is not noted as lost: the next process answers it.
            if reply is not None:
                await self._chat.posted(reply, asked.conversation, ())
            if isinstance(error, POST_ERRORS):
                await self._notifier(workspace, asked.conversation.channel, asked.author, url)(CANNOT_POST)
            raise

    async def resumed(self, workspace: Workspace, asked: Message, reply: Reply) -> None:
        """Post the answer to a command of an earlier process, whose response URL is gone."""
        await self._deliver(
            workspace,
            Invocation(name="ask", argument=asked.text, message=asked),
            Answer(reply=reply, private=reply.notice),
            ResponseUrl(""),
        )

    async def _replace(self, workspace: Workspace, asked: Message, reply: Reply, posts: tuple[str, ...]) -> None:
        question = reply.question or asked
        by_command = question.id.startswith(COMMAND)
        standing = await sending.replace(
            workspace,
            asked.conversation.channel,
            posts,
            reply.text,
            thread=question.conversation.thread,
            question=Question(author_name=question.author_name, text=question.text) if by_command else None,
            buttons=self._buttons,
        )
        await self._chat.posted(reply, asked.conversation, standing)

    async def _say(self, workspace: Workspace, asked: Message, answer: Answer, url: ResponseUrl) -> None:
        """Answer publicly: as a post, else through the response URL, else to the asker alone."""
        where, reply = asked.conversation, answer.reply
        text = answer.text if reply is None else reply.text
        question = reply.question or asked if reply is not None else None
        shown = None
        if question is not None and question.id.startswith(COMMAND):
            shown = Question(author_name=question.author_name, text=question.text)
        thread = question.conversation.thread if question is not None else where.thread
        try:
            posts = await sending.post(
                workspace,
                where.channel,
                text,
                thread=thread,
                question=shown,
                buttons=self._buttons and reply is not None,
                uncertain=reply is not None and reply.resumed,
            )
        except SlackClientError as error:
            log.info("cannot post in a channel that the bot is not a member of: %s", reason(error))
        else:
            if reply is not None:
                await self._chat.posted(reply, where, posts)
            return
        found = await self._respond(workspace, where, reply, text, shown, url)
        if found is None:
            await self._reply_privately(workspace, asked, text, url)
            if reply is not None:
                await self._chat.posted(reply, where, (), stands=True)
        elif reply is not None:
            await self._chat.posted(reply, where, found, stands=True)

    async def _respond(
        self,
        workspace: Workspace,
        where: Conversation,
        reply: Reply | None,
        text: str,
        question: Question | None,
        url: ResponseUrl,
    ) -> list[str] | None:
        """Answer publicly through the response URL: the timestamps found; None where Slack no longer accepts the
        URL."""
        awaited: list[PendingEcho] = []
        for number, piece in enumerate(markup.parts(text)):
            block_id = f"person2-{secrets.token_hex(8)}"
            blocks = sending.as_blocks(
                piece,
                question=question if number == 0 else None,
                buttons=self._buttons and reply is not None,
                block_id=block_id,
            )
            if reply is not None:
                known = asyncio.get_running_loop().create_future()
                awaited.append(
                    PendingEcho(reply=reply, where=where, block_id=block_id, text=markup.comparable(piece), known=known)
                )
                self._echoes[workspace.team, where.channel, block_id] = awaited[-1]
            if not await url.send(piece, visible=True, blocks=blocks):
                if awaited:
                    self._echoes.pop((workspace.team, where.channel, awaited.pop().block_id), None)
                if number == 0:
                    return None
                log.warning("a long answer was cut short: the response URL is used up")
                break
        return await self._timestamps(workspace, where, awaited)

    async def _timestamps(self, workspace: Workspace, where: Conversation, awaited: list[PendingEcho]) -> list[str]:
        """Timestamps of posts made through a response URL, from their events, else from the channel's history. Those
        not found are left out."""
        if not awaited:
            return []
        await asyncio.wait({each.known for each in awaited}, timeout=ECHO_SECONDS)
        found = {each.block_id: each.known.result() for each in awaited if each.known.done()}
        missing = [each.block_id for each in awaited if each.block_id not in found]
        for block_id in missing:
            self._echoes.pop((workspace.team, where.channel, block_id), None)
        if missing:
            try:
                posts = await sending.find_posts(workspace, where.channel, missing)
            except POST_ERRORS as error:
                log.info("a reply by command cannot be found: %s", reason(error))
            else:
                return [*found.values(), *posts]
        return list(found.values())

    async def match_echo(self, workspace: Workspace, event: Payload) -> None:
        """Handle the event of a post of ours: one made through a response URL gets its timestamp here.

        An event without blocks is matched where only one reply with this text is awaited in the channel.
        """
        channel, ts = identifier(event, "channel"), identifier(event, "ts")
        if not (channel and ts) or (channel, ts) in workspace.posts:
            return
        keys = [(workspace.team, channel, string(block, "block_id")) for block in mappings(event, "blocks")]
        found = next((self._echoes.pop(key) for key in keys if key in self._echoes), None)
        if found is None and not keys:
            text = markup.comparable(string(event, "text"))
            alike = [
                (key, each)
                for key, each in self._echoes.items()
                if key[:2] == (workspace.team, channel) and each.text == text
            ]
            if len(alike) == 1:
                found = alike[0][1]
                del self._echoes[alike[0][0]]
        if found is not None and not found.known.done():
            workspace.posts.put((channel, ts), None)
            found.known.set_result(ts)

    async def _reply_privately(self, workspace: Workspace, asked: Message, text: str, url: ResponseUrl) -> None:
        """Answer the asker alone: through the response URL while Slack accepts it, else as an ephemeral message."""
        pieces = markup.parts(text)
        for number, piece in enumerate(pieces):
            if not await url.send(piece, visible=False):
                rest = markup.unescape("\n".join(pieces[number:]))
                where = asked.conversation
                await sending.post_ephemeral(workspace, where.channel, asked.author, rest, thread=where.thread)
                return

    async def _send_attachment(self, workspace: Workspace, asked: Message, answer: Answer, url: ResponseUrl) -> None:
        """Send a member's data as a file, else as text where it is short."""
        assert answer.attachment is not None  # noqa: S101 - asked before
        if await sending.send_file(workspace, asked.author, answer.text, answer.attachment):
            text = "I sent it to you as a file, in our direct messages."
        else:
            data = answer.attachment.text
            text = f"{answer.text}\n{data}" if len(data) <= LARGEST_TEXT else f"{answer.text} {NO_FILES}"
        await self._reply_privately(workspace, asked, text, url)


def _keys(body: Payload) -> list[Hashable]:
    trigger = identifier(body, "trigger_id")
    return [("trigger", trigger)] if trigger else []
