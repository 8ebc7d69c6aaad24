"""What happens on each event of Discord: messages go to `core.chat`, and its replies are posted.

Knows no prompt, no database, no model; calls to Discord are made by `sending`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import discord
from discord import app_commands

from bots.discord import commands
from bots.discord.commands import Interaction
from bots.discord.gateway import GatewayClient
from bots.discord.interactions import Interactions
from bots.discord.markup import parts, reply_parts
from bots.discord.messages import PLATFORM, conversation_of, deleted_place, pasted_file, reworded, spoken, to_message
from bots.discord.reposts import Original, RepostTracker
from bots.discord.sending import CANNOT_POST, Sender
from bots.discord.timeouts import DiscordTimeouts
from core.chat import Chat
from core.errors import StorageError
from core.failures import log_failure
from core.memory import Unanswered
from core.messages import Conversation, Kind, Message, Reply
from core.notices import Notices, apology

log = logging.getLogger(__name__)

THUMBS = {"👍": True, "👎": False}

PASTED_SECONDS = 5.0
"""Longest wait for the file that Discord made of a long message; after that the message is handled without it."""


class DiscordEventHandlers:
    """One for all logins of a bot."""

    def __init__(
        self,
        chat: Chat,
        interactions: Interactions,
        sender: Sender,
        timeouts: DiscordTimeouts,
        *,
        connected: Callable[[], Awaitable[discord.Client]],
        buttons: bool,
    ) -> None:
        self.chat = chat
        self.interactions = interactions
        self._sender = sender
        self._timeouts = timeouts
        self._connected = connected
        self._buttons = buttons
        self.message_content = True
        """False once Discord refused the privileged intent: only mentions, pinging replies and direct messages."""
        self._resuming = False
        self._notices = Notices(lambda: datetime.now(UTC))
        self._reposts = RepostTracker()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Cancel the answers in progress; call it when no client is connected any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _track(self) -> None:
        """Have `close` cancel the current task."""
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def said(self, message: discord.Message, me: discord.abc.Snowflake) -> None:
        """Handle a message of a channel, and answer it if chat says so."""
        self._track()
        original = None
        if message.webhook_id is not None:
            post = spoken(message, me)
            heard = await self._reposts.reposted(post) if post is not None else None
        else:
            heard = to_message(message, me, pasted=await self._pasted(message))
            original = self._reposts.heard(heard) if heard is not None else None
        if heard is None:
            return
        try:
            await self._answer(heard, message, original)
        finally:
            if original is not None:
                original.handled.set()

    async def _answer(self, heard: Message, message: discord.Message, original: Original | None) -> None:
        channel = message.channel.id
        reply = await self._reply_or_apology(
            heard,
            lambda: self.chat.hear(
                heard, thinking=lambda: self._sender.typing(channel), opening=self._opening(message.channel)
            ),
        )
        if reply is not None:
            posts = await self._post(reply, heard, channel)
            if original is not None:
                original.answered = bool(posts) and not reply.notice

    async def _reply_or_apology(self, heard: Message, think: Callable[[], Awaitable[Reply | None]]) -> Reply | None:
        """Chat's reply to a message; where it fails, a sentence for the member, and the error in the log."""
        try:
            return await think()
        except Exception as error:  # the boundary
            log_failure(log, error, "a message in %s could not be answered", heard.conversation.key)
            addressed = heard.mentions_bot or heard.replies_to_bot or heard.conversation.kind is Kind.DIRECT
            if not addressed or not self._notices.may_say(apology(error), heard):
                return None
            return Reply(text=apology(error), answers=heard.id, notice=True)

    async def _pasted(self, message: discord.Message) -> str:
        """The text of a message so long that Discord's client made a file of it."""
        file = pasted_file(message)
        if file is None:
            return ""
        try:
            async with asyncio.timeout(PASTED_SECONDS):
                return (await file.read()).decode("utf-8", errors="replace")
        except (discord.DiscordException, aiohttp.ClientError, OSError, RuntimeError) as error:
            log.warning("a pasted text in channel %s could not be read: %s", message.channel.id, error)
            return ""

    def _opening(self, thread: object) -> Callable[[], Awaitable[Message | None]] | None:
        """A function that looks up the first message of a thread; None where there is none that we may read."""
        if not isinstance(thread, discord.Thread) or thread.parent is None:
            return None
        me = thread.guild.me
        if me is None or not thread.permissions_for(me).read_message_history:
            return None
        # It has the thread's id: in a forum it is in the thread, else in the channel that the thread belongs to.
        place = thread.id if isinstance(thread.parent, discord.ForumChannel) else thread.parent.id

        async def look_up() -> Message | None:
            found = await self._sender.fetch(place, thread.id)
            return to_message(found, me) if found is not None else None

        return look_up

    async def _post(self, reply: Reply, heard: Message, channel: int, *, show_question: bool = False) -> list[str]:
        where = heard.conversation
        if reply.notice:
            fleeting = None if where.kind is Kind.DIRECT else self._timeouts.notice_shown
            return await self._sender.say(channel, parts(reply.text), answers=int(heard.id), delete_after=fleeting)
        view = commands.buttons() if self._buttons else None
        texts = reply_parts(reply, show_question=show_question)
        # If the bot is stopped meanwhile the reply stays owed: after the next start it is looked for, or posted.
        posts = await self._sender.say(channel, texts, answers=int(heard.id), view=view)
        with self._storing():
            await self.chat.posted(reply, where, [post for post in posts if post], stands=bool(posts))
        if not posts and where.kind is not Kind.DIRECT and self._notices.may_say(CANNOT_POST, heard):
            await self._sender.tell(int(heard.author), [CANNOT_POST.format(channel=channel)])
        return posts

    async def edited(self, message: discord.Message, me: discord.abc.Snowflake) -> None:
        """Handle an edited message, which may mention us only now. A webhook's is stored only where a member wrote
        it."""
        if message.webhook_id is not None:
            post = spoken(message, me)
            if post is not None:
                with self._storing():
                    await self.chat.reworded(post.conversation, post.id, post.text)
            return
        heard = to_message(message, me, pasted=await self._pasted(message))
        if heard is None or not (heard.text or self._knows_text(heard)):
            return
        self._track()
        channel = message.channel.id
        reply = await self._reply_or_apology(
            heard,
            lambda: self.chat.edited(
                heard, thinking=lambda: self._sender.typing(channel), opening=self._opening(message.channel)
            ),
        )
        if reply is not None:
            await self._post(reply, heard, channel)

    def _knows_text(self, message: Message) -> bool:
        """Whether an empty text means that there is none: without the privileged intent Discord leaves texts out."""
        return self.message_content or message.mentions_bot or message.conversation.kind is Kind.DIRECT

    async def reworded(self, channel: int, guild: int | None, message: int, content: str, client: "Client") -> None:
        """Handle an edit event that has only the new text."""
        assert client.user is not None  # noqa: S101 - asked by the caller
        text = reworded(content, client.get_guild(guild or 0), client.user)
        if text or self.message_content:
            with self._storing():
                await self.chat.reworded(await self._where(channel, guild), str(message), text)

    async def closed(self, where: Conversation) -> None:
        """Forget everything in a channel or thread that was deleted."""
        with self._storing():
            removed = await self.chat.closed(where)
            log.info("forgot %s messages of a deleted channel or thread", removed.messages + removed.replies)

    async def typing(self, channel: int, guild: int | None, member: int) -> None:
        """Somebody is typing, so their last message is not answered yet. Makes no request to find the channel."""
        found = (await self._connected()).get_channel(channel)
        if found is not None:
            self.chat.typing(conversation_of(found), str(member))
        elif guild is None:
            self.chat.typing(Conversation(platform=PLATFORM, channel=str(channel), kind=Kind.DIRECT), str(member))

    async def deleted(self, channel: int, guild: int | None, posts: Sequence[int]) -> None:
        for post in posts:
            self._reposts.deleted(str(post))
        theirs = [str(post) for post in posts if not await self._sender.deleted_by_us(post)]
        if theirs:
            with self._storing():
                await self.chat.removed(await self._where(channel, guild), theirs)

    async def reacted(self, event: discord.RawReactionActionEvent, *, added: bool) -> None:
        liked = thumb(event.emoji)
        if liked is None:
            return
        post, who, verdict = str(event.message_id), str(event.user_id), liked if added else None
        with self._storing():
            where = await self._where(event.channel_id, event.guild_id)
            await self.chat.feedback(where, post, who, verdict, was=liked)

    async def unreacted(
        self, event: discord.RawReactionClearEvent | discord.RawReactionClearEmojiEvent, liked: bool | None
    ) -> None:
        """Handle that all reactions to a message were cleared, or all of one kind."""
        with self._storing():
            where = await self._where(event.channel_id, event.guild_id)
            await self.chat.feedback(where, str(event.message_id), None, None, was=liked)

    async def _where(self, channel: int, guild: int | None) -> Conversation:
        """The conversation of a channel id, which may be a thread's."""
        client = await self._connected()
        found: object = client.get_channel(channel)
        if found is None and guild is not None:
            with contextlib.suppress(discord.DiscordException, aiohttp.ClientError, OSError, RuntimeError):
                found = await client.fetch_channel(channel)
        if found is None:
            kind = Kind.DIRECT if guild is None else Kind.CHANNEL
            return Conversation(
                platform=PLATFORM, space="" if guild is None else str(guild), channel=str(channel), kind=kind
            )
        return conversation_of(found)

    async def resume(self) -> None:
        """Answer what an earlier process left unanswered; once per process."""
        if self._resuming:
            return
        self._resuming = True
        with self._storing():
            for question in await self.chat.unanswered(PLATFORM):
                self._sender.spawn(self._resume(question))

    async def _resume(self, question: Unanswered) -> None:
        asked = question.message
        where = asked.conversation
        channel = int(where.thread or where.channel)
        reply = await self._reply_or_apology(
            asked, lambda: self.chat.resume(question, thinking=lambda: self._sender.typing(channel))
        )
        if reply is None:
            return
        texts = reply_parts(reply, show_question=question.by_command)
        if reply.resumed:
            posts = await self._sender.find(channel, int(asked.id), texts)
            if posts:
                with self._storing():
                    await self.chat.posted(reply, where, posts)
                return
        await self._post(reply, asked, channel, show_question=question.by_command)

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """Log a database error where no member is waiting for an answer."""
        try:
            yield
        except StorageError as error:
            log_failure(log, error, "a Discord event could not be stored")


def thumb(emoji: discord.PartialEmoji) -> bool | None:
    return THUMBS.get((emoji.name or "")[:1])  # a skin tone is a second character; a deleted emoji has no name


class Client(GatewayClient):
    """One login: passes discord.py's events on."""

    def __init__(
        self,
        handlers: DiscordEventHandlers,
        *,
        on_login: "Callable[[Client], Awaitable[None]]",
        on_ready: "Callable[[Client], Awaitable[None]]",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._handle = handlers
        self._tell_login = on_login
        self._tell_ready = on_ready
        self.tree = app_commands.CommandTree(self)
        self.tree.error(self._on_unknown_command)
        commands.build(self.tree, handlers.interactions)

    async def setup_hook(self) -> None:
        if self.user is not None:
            self._handle.chat.known_as(PLATFORM, self.user.display_name)
        await self._tell_login(self)

    async def on_ready(self) -> None:
        if not self.is_closed():  # discord.py may call this a moment late
            await self._tell_ready(self)

    async def on_message(self, message: discord.Message) -> None:
        if self.user is not None:
            await self._handle.said(message, self.user)

    async def on_raw_typing(self, event: discord.RawTypingEvent) -> None:
        await self._handle.typing(event.channel_id, event.guild_id, event.user_id)

    async def on_raw_message_edit(self, event: discord.RawMessageUpdateEvent) -> None:
        if self.user is not None and "content" in event.data:
            await self._handle.edited(event.message, self.user)

    async def on_raw_message_delete(self, event: discord.RawMessageDeleteEvent) -> None:
        await self._handle.deleted(event.channel_id, event.guild_id, [event.message_id])

    async def on_raw_bulk_message_delete(self, event: discord.RawBulkMessageDeleteEvent) -> None:
        await self._handle.deleted(event.channel_id, event.guild_id, sorted(event.message_ids))

    async def on_raw_reaction_add(self, event: discord.RawReactionActionEvent) -> None:
        if self.user is not None and event.user_id != self.user.id and not (event.member and event.member.bot):
            await self._handle.reacted(event, added=True)

    async def on_raw_reaction_remove(self, event: discord.RawReactionActionEvent) -> None:
        if self.user is not None and event.user_id != self.user.id:
            await self._handle.reacted(event, added=False)

    async def on_raw_reaction_clear(self, event: discord.RawReactionClearEvent) -> None:
        await self._handle.unreacted(event, None)

    async def on_raw_reaction_clear_emoji(self, event: discord.RawReactionClearEmojiEvent) -> None:
        liked = thumb(event.emoji)
        if liked is not None:
            await self._handle.unreacted(event, liked)

    async def on_partial_edit(self, channel: int, guild: int | None, message: int, content: str) -> None:
        if self.user is not None:
            await self._handle.reworded(channel, guild, message, content, self)

    async def on_place_delete(self, place: dict[str, Any]) -> None:
        await self._handle.closed(deleted_place(place))

    async def on_guild_remove(self, guild: discord.Guild) -> None:
        log.info(
            "the bot was removed from server %s; what was said there stays stored until it is forgotten "
            "(`person2 forget`) or PERSON2_RETENTION_DAYS have passed",
            guild.id,
        )

    async def on_interaction(self, interaction: Interaction) -> None:
        if interaction.type is discord.InteractionType.component:
            await commands.pressed(interaction, self._handle.interactions)

    async def _on_unknown_command(self, interaction: Interaction, error: app_commands.AppCommandError) -> None:
        """Answer a command that no longer exists, which a member's client may show until it is updated."""
        log.warning("a command that no longer exists was used: %s", error)
        if interaction.type is discord.InteractionType.application_command:
            await self._handle.interactions.command(interaction, "help", "")
