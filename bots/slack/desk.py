"""The desk: what Slack sends comes in here after its acknowledgement, and is answered.

Everything goes through `core.chat.Chat` and `core.commands.Commands`; what a payload means is said in `events`, how
words are posted in `posting`. Nothing here is waited for by Slack.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any
from weakref import WeakValueDictionary

import aiohttp
from slack_sdk.errors import SlackClientError

from bots.slack import events, home, markup, posting
from bots.slack.answers import COMMAND, CommandAnswers
from bots.slack.events import PLATFORM, Payload
from bots.slack.people import People
from bots.slack.posting import UNREACHABLE, ResponseUrl, Status
from bots.slack.refusals import DEAD_TOKEN, code, discreet, refusal
from bots.slack.workspace import Workspace
from core import commands as table
from core.chat import Chat
from core.commands import Commands, Invocation
from core.errors import Person2Error
from core.messages import Conversation, Kind, Message, Reply
from core.notices import BROKEN
from core.recent import Recent

log = logging.getLogger(__name__)

FAREWELL_SECONDS = 5.0
"""How long answers in progress may take to finish when the bot is stopped."""

Tell = Callable[[str], Awaitable[object]]
"""Says one sentence to the member concerned."""


class Desk:
    """Answers for every workspace of one bot process."""

    def __init__(
        self,
        chat: Chat,
        commands: Commands,
        *,
        visible_commands: bool = True,
        many_workspaces: bool = False,
        proxy: str | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self._chat = chat
        self._commands = commands
        self._answers = CommandAnswers(chat, visible=visible_commands)
        self._many = many_workspaces
        self._proxy = proxy
        self._session = session
        self._people = People()
        self._tasks: set[asyncio.Task[None]] = set()
        self._order: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._seen: Recent[None] = Recent()
        """Event ids, trigger ids and messages taken in."""
        self._gone: Recent[None] = Recent()
        """Messages deleted, in case the deletion overtakes the message."""
        self._engaged: Recent[None] = Recent()
        """Threads in which an answer is being made: they are joined before it is stored."""
        self._thumbs: Recent[frozenset[bool]] = Recent()
        """Thumbs a member has on a post; taking one back must not take the other."""
        self.refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with Refused when Slack stops accepting the token."""

    # Taking in

    def take_event(self, workspace: Workspace, body: Payload) -> None:
        """An Events API payload; one that came before (a retry, another socket) is let go."""
        event: Payload = body.get("event") or {}
        event_id = body.get("event_id")
        if event_id and not self._seen.put(event_id, None):
            return
        match event.get("type"):
            case "message" | "app_mention":
                self._take_message(workspace, event)
            case "reaction_added" | "reaction_removed":
                self._start(self._reacted(workspace, event))
            case "channel_deleted" | "group_deleted" if event.get("channel"):
                self._start(self._closed(workspace, str(event["channel"])))
            case "app_home_opened" if event.get("tab", "home") == "home":
                self._start(self._show_home(workspace, str(event.get("user"))))
            case _:
                pass

    def take_command(self, workspace: Workspace, body: Payload) -> None:
        """A slash command."""
        url = self._response_url(body)
        if self._taken(body):
            return
        tell = self._teller(workspace, str(body.get("channel_id")), str(body.get("user_id")), url)
        self._start(self._command(workspace, body, url), tell)

    def take_shortcut(self, workspace: Workspace, body: Payload) -> None:
        """The message shortcut “another answer”."""
        url = self._response_url(body)
        if self._taken(body):
            return
        tell = self._teller(workspace, _id(body, "channel"), _id(body, "user"), url)
        self._start(self._another(workspace, body, url), tell)

    def take_consent(self, workspace: Workspace, body: Payload, *, given: bool) -> None:
        """The switch in the App Home."""
        if not self._taken(body):
            self._start(self._consented(workspace, _id(body, "user"), given=given))

    async def close(self) -> None:
        """Let answers in progress finish for a moment, then stop them."""
        self._answers.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FAREWELL_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, self._answers.ended(), return_exceptions=True)
        self.refused.cancel()

    def _taken(self, body: Payload) -> bool:
        trigger = body.get("trigger_id")
        return bool(trigger) and not self._seen.put(("trigger", trigger), None)

    def _start(self, work: Coroutine[Any, Any, None], tell: Tell | None = None) -> None:
        task = asyncio.create_task(self._guarded(work, tell))
        self._tasks.add(task)  # the event loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Awaitable[None], tell: Tell | None) -> None:
        """The boundary: the log gets the traceback, the member a sentence."""
        try:
            await work
        except Person2Error as error:
            log.exception("no answer on Slack")
            await self._tell(tell, str(error))
        except UNREACHABLE as error:
            log.error("Slack did not take an answer: %s", discreet(f"{type(error).__name__}: {error}"))  # noqa: TRY400 - its traceback is the library's
            self._watch(error)
        except Exception:
            log.exception("no answer on Slack")
            await self._tell(tell, BROKEN)

    async def _tell(self, tell: Tell | None, sentence: str) -> None:
        if tell is None:
            return
        try:
            await tell(sentence)
        except UNREACHABLE as error:
            log.warning("nor could the member be told: %s", discreet(f"{type(error).__name__}: {error}"))
            self._watch(error)

    def _watch(self, error: BaseException) -> None:
        """A token that died while running ends the bot with a sentence, unless other workspaces have theirs."""
        if not isinstance(error, SlackClientError) or code(error) not in DEAD_TOKEN:
            return
        if self._many:
            log.warning("the token of an installed workspace is dead: it must install the bot again")
        elif not self.refused.done():
            self.refused.set_exception(refusal(error, variable="SLACK_BOT_TOKEN"))

    # Messages

    def _take_message(self, workspace: Workspace, event: Payload) -> None:
        match event.get("subtype"):
            case "message_changed":
                said: Payload = event.get("message") or {}
                if said.get("subtype") == "tombstone":  # the deleted first message of a thread
                    self._start(self._deleted(workspace, event, str(said.get("ts"))))
                else:
                    self._start(self._edited(workspace, event, said))
            case "message_deleted":
                previous: Payload = event.get("previous_message") or {}
                self._start(self._deleted(workspace, event, str(event.get("deleted_ts") or previous.get("ts"))))
            case _ if events.heard(event, bot_user=workspace.bot_user):
                # A mention comes twice, as `message` and as `app_mention`; memory would know it too, but later.
                if self._seen.put((workspace.team, event["channel"], event["ts"]), None):
                    self._start(self._heard(workspace, event), self._asker(workspace, event))
            case _ if events.ours(event, bot_user=workspace.bot_user, bot_id=workspace.bot_id):
                self._start(self._answers.own_post(workspace, event))
            case _:
                pass

    async def _heard(self, workspace: Workspace, event: Payload) -> None:
        where = events.conversation(event, space=workspace.team, bot_user=workspace.bot_user)
        # Names take a while to look up; a later message of the same channel must not overtake.
        async with self._in_order(workspace, where.channel):
            message = await self._read(workspace, event, where)
        if message is None or (where.channel, message.id) in self._gone:
            return
        status = Status(workspace, where.channel, where.thread)
        reply = await self._chat.hear(message, thinking=lambda: status)
        if reply is None:
            return
        await self._say(workspace, message, reply)
        if reply.notice:
            await status.clear()

    def _in_order(self, workspace: Workspace, channel: str) -> asyncio.Lock:
        """Held while a message is read: what follows in the same channel waits its turn."""
        return self._order.setdefault(f"{workspace.team}/{channel}", asyncio.Lock())

    async def _read(self, workspace: Workspace, event: Payload, where: Conversation) -> Message | None:
        text = str(event.get("text") or "")
        users = dict.fromkeys((str(event["user"]), *markup.mentioned(text)))
        users.pop(workspace.bot_user, None)
        names = await self._people.names(workspace, tuple(users))
        joined = where.kind is Kind.THREAD and (
            where.key in self._engaged or await asyncio.to_thread(self._chat.memory.in_thread, where)
        )
        message = events.to_message(
            event,
            space=workspace.team,
            bot_user=workspace.bot_user,
            bot_name=workspace.bot_name,
            names=names,
            joined_thread=joined,
        )
        if message is not None and message.mentions_bot and where.kind is Kind.THREAD:
            self._engaged.put(where.key, None)
        return message

    async def _say(self, workspace: Workspace, message: Message, reply: Reply) -> None:
        where = message.conversation
        if reply.notice and where.kind is not Kind.DIRECT:
            # A whisper in a thread shows only where the thread already stands.
            thread = where.thread if where.thread != message.id else None
            await posting.whisper(workspace, where.channel, message.author, reply.text, thread=thread)
            return
        posts: list[str] = []
        try:
            posts = await posting.post(workspace, where.channel, reply.text, thread=where.thread)
        finally:
            await self._chat.posted(reply, where, posts)

    async def _edited(self, workspace: Workspace, event: Payload, said: Payload) -> None:
        text, previous = str(said.get("text") or ""), event.get("previous_message") or {}
        if not events.heard({"type": "message", "channel": event.get("channel"), **said}, bot_user=workspace.bot_user):
            return
        if text == previous.get("text"):
            return  # an unfurled link, a new reply: not the words
        where = events.place(str(event["channel"]), space=workspace.team)
        async with self._in_order(workspace, where.channel):
            names = await self._people.names(workspace, markup.mentioned(text))
        words = markup.to_words(text, names=names, bot_user=workspace.bot_user, bot_name=workspace.bot_name)
        await self._chat.reworded(where, str(said["ts"]), words)

    async def _deleted(self, workspace: Workspace, event: Payload, ts: str) -> None:
        channel = str(event.get("channel"))
        self._gone.put((channel, ts), None)
        async with self._in_order(workspace, channel):
            pass  # one that is being read gets to be stored first
        await self._chat.removed(events.place(channel, space=workspace.team), [ts])

    async def _closed(self, workspace: Workspace, channel: str) -> None:
        """A channel was deleted, and with it all that was said there."""
        async with self._in_order(workspace, channel):
            pass
        await self._chat.closed(events.place(channel, space=workspace.team))

    async def _reacted(self, workspace: Workspace, event: Payload) -> None:
        liked, user = events.thumb(str(event.get("reaction"))), str(event.get("user"))
        item: Payload = event.get("item") or {}
        if liked is None or item.get("type", "message") != "message" or user == workspace.bot_user:
            return
        key = (item.get("channel"), item.get("ts"), user)
        thumbs = self._thumbs.get(key) or frozenset()
        if event.get("type") == "reaction_added":
            self._thumbs.put(key, thumbs | {liked})
            verdict: bool | None = liked
        else:
            left = thumbs - {liked}
            self._thumbs.put(key, left)
            verdict = next(iter(left), None)
        where = events.place(str(item.get("channel")), space=workspace.team)
        async with self._order.setdefault(f"{where.key}/{item.get('ts')}", asyncio.Lock()):
            # What a removal takes back is only its own thumb: after a restart we do not know of the other.
            await self._chat.feedback(where, str(item.get("ts")), user, verdict, was=liked)

    # Commands

    async def _command(self, workspace: Workspace, body: Payload, url: ResponseUrl) -> None:
        user, channel = str(body.get("user_id")), str(body.get("channel_id"))
        text = str(body.get("text") or "")
        names = await self._people.names(workspace, (user, *markup.mentioned(text)))
        words = markup.to_words(text, names=names, bot_user=workspace.bot_user, bot_name=workspace.bot_name)
        name, argument = table.parse(words)
        where = events.place(channel, space=workspace.team)
        invocation = Invocation(
            name=name,
            argument=argument,
            message=self._spoken(where, body, user, names.get(user) or str(body.get("user_name") or ""), argument),
            admin=(await self._people.person(workspace, user)).admin,
            whole_channel=True,  # Slack takes no commands in threads
        )
        async with self._in_order(workspace, channel):
            pass  # what was said before the command is heard before it
        await self._answers.deliver(workspace, invocation, await self._commands.run(invocation), url)

    async def _another(self, workspace: Workspace, body: Payload, url: ResponseUrl) -> None:
        user, said = _id(body, "user"), body.get("message") or {}
        thread = said.get("thread_ts")
        where = events.place(_id(body, "channel"), space=workspace.team, thread=str(thread) if thread else None)
        name = str((body.get("user") or {}).get("name") or "")
        status = Status(workspace, where.channel, where.thread)
        invocation = Invocation(
            name="again",
            message=self._spoken(where, body, user, name, ""),
            post=str(said.get("ts")),
            thinking=lambda: status,
        )
        await self._answers.deliver(workspace, invocation, await self._commands.run(invocation), url)
        await status.clear()

    async def _consented(self, workspace: Workspace, user: str, *, given: bool) -> None:
        where = events.place(user, space=workspace.team, channel_type="im")
        await self._commands.run(
            Invocation(
                name="consent", argument="yes" if given else "no", message=self._spoken(where, {}, user, "", "consent")
            )
        )
        await self._show_home(workspace, user)

    def _spoken(self, where: Conversation, body: Payload, user: str, name: str, words: str) -> Message:
        """A command as something said; its trigger id names it, so a redelivered one is the same message."""
        return Message(
            conversation=where,
            id=f"{COMMAND}{body.get('trigger_id') or secrets.token_hex(8)}"[:100],
            author=user,
            author_name=name or markup.SOMEONE,
            text=words,
            sent_at=self._commands.clock(),
        )

    async def _show_home(self, workspace: Workspace, user: str) -> None:
        memory = self._chat.memory
        consent = await asyncio.to_thread(memory.consent, PLATFORM, user)
        liked, disliked = await asyncio.to_thread(memory.feedback_counts, PLATFORM, workspace.team)
        view = home.view(help_text=self._commands.help_text(), consent=consent, liked=liked, disliked=disliked)
        await workspace.client.views_publish(user_id=user, view=view)

    # Telling a member that something failed

    def _asker(self, workspace: Workspace, event: Payload) -> Tell | None:
        """How to tell the author of a message; None where they were not talking to the bot."""
        where = events.conversation(event, space=workspace.team, bot_user=workspace.bot_user)
        if where.kind is Kind.DIRECT:
            return lambda words: posting.post(workspace, where.channel, words, thread=where.thread)
        if not events.addressed(event, bot_user=workspace.bot_user):
            return None
        thread = where.thread if where.thread != event["ts"] else None
        return lambda words: posting.whisper(workspace, where.channel, str(event["user"]), words, thread=thread)

    def _teller(self, workspace: Workspace, channel: str, user: str, url: ResponseUrl) -> Tell:
        async def tell(sentence: str) -> None:
            if not await url.send(markup.escape(sentence), visible=False):
                await posting.whisper(workspace, channel, user, sentence)

        return tell

    def _response_url(self, body: Payload) -> ResponseUrl:
        return ResponseUrl(str(body.get("response_url") or ""), proxy=self._proxy, session=self._session)


def _id(body: Payload, part: str) -> str:
    """The id of an object inside an interaction's payload."""
    found = body.get(part)
    return str(found.get("id") or "") if isinstance(found, Mapping) else str(found or "")
