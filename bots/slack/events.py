"""Handlers of Slack's events: messages are heard and answered; edits, deletions and reactions are stored.

Everything goes through `core.chat.Chat`; `messages` interprets payloads, `sending` posts. Slack waits for the
acknowledgement, which waits until the message is stored and for nothing else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable

from bots.slack import home, markup, messages, sending, threads
from bots.slack.commands import CommandHandlers
from bots.slack.errors import reason
from bots.slack.intake import Intake, Notify, Stored, Work, acknowledged
from bots.slack.payloads import Payload, identifier, mapping, string
from bots.slack.people import People
from bots.slack.sending import POST_ERRORS
from bots.slack.status import Status
from bots.slack.workspace import Workspace
from core.bounded_dict import BoundedDict
from core.chat import Chat
from core.commands import Commands
from core.memory import Unanswered
from core.messages import Kind, Message, Reply
from core.notices import Notices
from core.policy import Why

log = logging.getLogger(__name__)

NOT_POSTED = "I couldn't post my answer in that channel. Its admins can allow that, or you can ask me here."
"""Sent to the asker as a direct message."""

PROMPTS = (
    ("Just talk", "Hi! How are you today?"),
    ("Ask for an opinion", "What would you cook for four people tonight?"),
    ("Hear a joke", "Tell me a joke."),
)
"""Suggested prompts of a new conversation: title and message; the manifest has the same."""


class SlackEventHandlers:
    """Answers for every workspace of one bot process."""

    def __init__(
        self,
        chat: Chat,
        commands: Commands,
        answers: CommandHandlers,
        *,
        intake: Intake,
        people: People,
        buttons: bool = False,
    ) -> None:
        self._chat = chat
        self._commands = commands
        self._answers = answers
        self._intake = intake
        self._people = people
        self._buttons = buttons
        self._notices = Notices(commands.clock)
        self._last_edits: BoundedDict[str] = BoundedDict()
        """The latest texts of edited messages."""
        self._votes: BoundedDict[frozenset[bool]] = BoundedDict()
        """The thumbs of a member on a post; removing one must not remove the other."""

    def take(self, workspace: Workspace, body: Payload) -> "asyncio.Future[None] | None":
        """Handle an Events API payload; the future is done once it may be acknowledged. None where there is nothing to
        do."""
        event = mapping(body, "event")
        keys: list[Hashable] = []
        if event_id := identifier(body, "event_id"):
            keys.append(("event", event_id))
        tell: Notify | None = None
        if event.get("type") in ("message", "app_mention"):
            work = self._message_work(workspace, event)
            if work is not None and messages.is_from_member(event, bot_user=workspace.bot_user):
                # A mention comes twice, as `message` and as `app_mention`.
                keys.append(("message", workspace.team, identifier(event, "channel"), identifier(event, "ts")))
                tell = self._notifier(workspace, event)
        else:
            work = self._other_work(workspace, event)
        return None if work is None else self._intake.take(keys, work, tell)

    def _message_work(self, workspace: Workspace, event: Payload) -> Work | None:
        said = mapping(event, "message")
        match event.get("subtype"):
            case "message_changed" if said.get("subtype") == "tombstone":  # the deleted first message of a thread
                return lambda _: self._on_delete(workspace, event, identifier(said, "ts"))
            case "message_changed":
                return lambda stored: self._on_edit(workspace, event, stored)
            case "message_deleted":
                ts = identifier(event, "deleted_ts") or identifier(event, "previous_message", "ts")
                return lambda _: self._on_delete(workspace, event, ts)
            case _ if messages.is_from_member(event, bot_user=workspace.bot_user):
                return lambda stored: self._on_message(workspace, event, stored)
            case _ if messages.is_own_post(event, bot_user=workspace.bot_user, bot_id=workspace.bot_id):
                return lambda _: self._answers.match_echo(workspace, event)
            case _:
                return None

    def _other_work(self, workspace: Workspace, event: Payload) -> Work | None:
        channel = identifier(event, "channel")
        match event.get("type"):
            case "reaction_added" | "reaction_removed":
                return lambda _: self._on_reaction(workspace, event)
            case "channel_deleted" | "group_deleted" if channel:
                return lambda _: self._on_channel_deleted(workspace, channel)
            case "channel_id_changed":
                return lambda _: self._on_channel_moved(workspace, event)
            case "app_home_opened" if event.get("tab", "home") == "home" and identifier(event, "user"):
                return _at_once(lambda: home.show(workspace, self._chat, self._commands, identifier(event, "user")))
            case "assistant_thread_started":
                return _at_once(lambda: self._suggest_prompts(workspace, event))
            case _:
                return None

    # Messages

    async def _on_message(self, workspace: Workspace, event: Payload, stored: Stored) -> None:
        message = self._read(workspace, event)
        if message is None:
            return
        status = Status(workspace, message.conversation.channel, message.conversation.thread)
        reply = await self._chat.hear(
            message,
            thinking=lambda: status,
            heard=stored,
            complete=self._name_lookup(workspace, event, message),
            opening=self._opening(workspace, message),
        )
        stored()  # even where there was nothing to store
        await self._say(workspace, message, reply, status)

    def _read(self, workspace: Workspace, event: Payload) -> Message | None:
        """The event as a Message with the names known by now."""
        return messages.to_message(
            event,
            space=workspace.team,
            bot_user=workspace.bot_user,
            bot_name=workspace.bot_name,
            names=self._people.names(workspace, _people_in(workspace, event)),
        )

    def _name_lookup(
        self, workspace: Workspace, event: Payload, message: Message
    ) -> Callable[[], Awaitable[Message]] | None:
        """A function that looks up the names in a message after it was stored; None where they are known."""
        users = _people_in(workspace, event)
        if self._people.are_known(workspace, users):
            return None

        async def complete() -> Message:
            await self._people.look_up(workspace, users)
            return self._read(workspace, event) or message

        return complete

    def _opening(self, workspace: Workspace, message: Message) -> Callable[[], Awaitable[Message | None]] | None:
        """A function that looks up the first message of a thread, with the names in it; None outside of threads."""
        channel, thread = message.conversation.channel, message.conversation.thread
        if thread is None:
            return None

        async def look_up() -> Message | None:
            first = await threads.first_of_thread(workspace, channel, thread)
            if first is None:
                return None
            await self._people.look_up(workspace, _people_in(workspace, first))
            return self._read(workspace, first)

        return look_up

    async def _say(self, workspace: Workspace, message: Message, reply: Reply | None, status: Status) -> None:
        """Post a reply and store its timestamps; where it cannot be posted, tell the asker."""
        where = message.conversation
        if reply is None or reply.notice:
            await status.clear()
            if reply is not None:
                await self._tell(workspace, message, reply.text)
            return
        try:
            posts = await sending.post(
                workspace,
                where.channel,
                reply.text,
                thread=where.thread,
                after=message.id,
                buttons=self._buttons,
                uncertain=reply.resumed,
            )
        except Exception as error:
            # A cancelled one is not noted as lost: the next process answers it.
            await self._chat.posted(reply, where, ())
            await status.clear()
            if isinstance(error, POST_ERRORS) and reply.details.get("answered because") != Why.AMBIENT:
                await self._notify_directly(workspace, message)
            raise
        await self._chat.posted(reply, where, posts)

    async def _tell(self, workspace: Workspace, message: Message, sentence: str) -> None:
        """Show a sentence to the author of a message alone."""
        where = message.conversation
        if where.kind is Kind.DIRECT:
            seconds = workspace.outbox.timeouts.notice
            await sending.post(workspace, where.channel, sentence, thread=where.thread, seconds=seconds)
            return
        # An ephemeral message in a thread is shown only where the thread exists already.
        thread = where.thread if where.thread != message.id else None
        await sending.post_ephemeral(workspace, where.channel, message.author, sentence, thread=thread)

    async def _notify_directly(self, workspace: Workspace, message: Message) -> None:
        if not self._notices.may_say(NOT_POSTED, message):
            return
        try:
            await sending.post_direct(workspace, message.author, NOT_POSTED)
        except POST_ERRORS as error:
            log.info("the asker could not be told either: %s", reason(error))

    def _notifier(self, workspace: Workspace, event: Payload) -> Notify | None:
        """A function that tells the author of a message about a failure; None where they were not talking to the
        bot."""
        message = self._read(workspace, event)
        if message is None or not (message.mentions_bot or message.conversation.kind is Kind.DIRECT):
            return None

        async def notify(sentence: str) -> None:
            if self._notices.may_say(sentence, message):
                await self._tell(workspace, message, sentence)

        return notify

    async def _on_edit(self, workspace: Workspace, event: Payload, stored: Stored) -> None:
        said = {
            **mapping(event, "message"),
            "type": "message",
            "channel": event.get("channel"),
            "channel_type": event.get("channel_type"),
        }
        previous = mapping(event, "previous_message")
        if previous and messages.text_of(said) == messages.text_of(previous):
            return  # an unfurled link or a new reply, but not another text
        message = self._read(workspace, said)
        if message is None:
            return
        where = message.conversation
        self._last_edits.put((where.channel, message.id), message.text)
        status = Status(workspace, where.channel, where.thread)
        reply = await self._chat.edited(
            message, thinking=lambda: acknowledged(stored, status), opening=self._opening(workspace, message)
        )
        stored()
        complete = self._name_lookup(workspace, said, message)
        if complete is not None:
            named = await complete()
            if named.text != message.text == self._last_edits.get((where.channel, message.id)):
                await self._chat.reworded(where, message.id, named.text)
        await self._say(workspace, message, reply, status)

    async def resume(self, workspace: Workspace, question: Unanswered) -> None:
        """Answer what an earlier process left unanswered."""
        message = question.message
        status = Status(workspace, message.conversation.channel, message.conversation.thread)
        reply = await self._chat.resume(question, thinking=lambda: status)
        if question.by_command and reply is not None:
            await self._answers.resumed(workspace, message, reply)
            return
        await self._say(workspace, message, reply, status)

    async def _on_delete(self, workspace: Workspace, event: Payload, ts: str) -> None:
        channel = identifier(event, "channel")
        if channel and ts:
            await self._chat.removed(messages.conversation_at(channel, space=workspace.team), [ts])

    async def _on_channel_deleted(self, workspace: Workspace, channel: str) -> None:
        """Forget everything in a channel that was deleted."""
        await self._chat.closed(messages.conversation_at(channel, space=workspace.team))

    async def _on_channel_moved(self, workspace: Workspace, event: Payload) -> None:
        """Follow a channel to its new id (https://docs.slack.dev/reference/events/channel_id_changed)."""
        old, new = identifier(event, "old_channel_id"), identifier(event, "new_channel_id")
        if old and new:
            await self._chat.moved(messages.conversation_at(old, space=workspace.team), new)

    async def _on_reaction(self, workspace: Workspace, event: Payload) -> None:
        liked, user = messages.vote_of(string(event, "reaction")), identifier(event, "user")
        item = mapping(event, "item")
        channel, ts = identifier(item, "channel"), identifier(item, "ts")
        if liked is None or not (user and channel and ts) or user == workspace.bot_user:
            return
        key = (channel, ts, user)
        thumbs = self._votes.get(key) or frozenset()
        if event.get("type") == "reaction_added":
            self._votes.put(key, thumbs | {liked})
            verdict: bool | None = liked
        else:
            left = thumbs - {liked}
            self._votes.put(key, left)
            verdict = next(iter(left), None)
        # A removal takes back only its own thumb: after a restart we do not know about the other one.
        await self._chat.feedback(messages.conversation_at(channel, space=workspace.team), ts, user, verdict, was=liked)

    async def _suggest_prompts(self, workspace: Workspace, event: Payload) -> None:
        """Set suggested prompts in a conversation that a member opened in Slack's side panel."""
        thread = mapping(event, "assistant_thread")
        channel, ts = identifier(thread, "channel_id"), identifier(thread, "thread_ts")
        if channel and ts:
            client = await workspace.api()
            await client.assistant_threads_setSuggestedPrompts(
                channel_id=channel,
                thread_ts=ts,
                prompts=[{"title": title, "message": message} for title, message in PROMPTS],
            )


def _people_in(workspace: Workspace, event: Payload) -> tuple[str, ...]:
    """Ids of the author and of the members that a message mentions, each once."""
    users = dict.fromkeys((identifier(event, "user"), *markup.mentioned_users(messages.text_of(event))))
    return tuple(user for user in users if user not in {"", workspace.bot_user})


def _at_once(work: Callable[[], Awaitable[None]]) -> Work:
    """Work with nothing to store, which is acknowledged at once."""

    async def run(stored: Stored) -> None:
        stored()
        await work()

    return run
