"""The Discord bot: its restart loop, and what happens on each event. Words go to `core.chat` and `core.commands`.

Knows no prompt, no table, no model. One DiscordBot is one process's only one: the API base is process-global.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import aiohttp
import discord
from discord import app_commands

from bots.discord import menus
from bots.discord.connection import BAD_TOKEN, NO_INTENT, Connection, intents, invite_url, point_at
from bots.discord.incoming import conversation_of, deleted_place, reworded, to_message
from bots.discord.interactions import Interactions
from bots.discord.menus import Interaction
from bots.discord.patience import Patience
from bots.discord.posts import Posts, parts, retry_after
from core.chat import Chat
from core.commands import Commands
from core.errors import Refused, StorageError
from core.health import PostHealth
from core.messages import Conversation, Kind, Message, Reply
from core.notices import BROKEN

log = logging.getLogger(__name__)

LIKED = {"👍": True, "👎": False}


class DiscordBot:
    """Carries words between Discord and one chat; `run` until cancelled."""

    def __init__(
        self,
        chat: Chat,
        commands: Commands,
        *,
        token: str,
        api_base: str | None = None,
        gateway_url: str | None = None,
        proxy: str | None = None,
        buttons: bool = False,
        patience: Patience | None = None,
    ) -> None:
        self.chat = chat
        self.commands = commands
        self.message_content = True
        """False once Discord refused the privileged intent: only mentions, pinging replies and direct messages."""
        self.patience = patience or Patience()
        self.post_health = PostHealth()
        self.posts = Posts(self._connected, self.patience)
        self.interactions = Interactions(commands=commands, posts=self.posts, patience=self.patience, buttons=buttons)
        self.buttons = buttons
        self._token = token
        self._api_base = api_base
        self._gateway_url = gateway_url
        self._proxy = proxy
        self._client: _Client | None = None
        self._up = asyncio.Event()
        self._synced = ""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    def __repr__(self) -> str:
        return "DiscordBot()"  # never the token

    @property
    def ready(self) -> bool:
        """Connected and listening, for health checks."""
        client = self._client
        return client is not None and client.is_ready() and not any(each.is_closed() for each in client.shards.values())

    async def run(self) -> None:
        """Connect, and again whenever the connection ends, in the same process with the same memory.

        Ends by cancellation. Raises Refused where trying again cannot help: a bad token, or an intent refused that we
        cannot do without.
        """
        point_at(self._api_base)
        attempt = 0
        loop = asyncio.get_running_loop()
        try:
            while True:
                since = loop.time()
                try:
                    await self._run_once()
                    why: object = "the connection was closed"
                    at_least = 0.0
                except discord.LoginFailure as error:
                    raise Refused(BAD_TOKEN) from error
                except discord.PrivilegedIntentsRequired as error:
                    self._do_without_content(error)
                    continue
                except discord.ConnectionClosed as error:
                    if error.code == 4004:
                        raise Refused(BAD_TOKEN) from error
                    why, at_least = error, 0.0
                except Exception as error:  # discord.py ends by AttributeError, KeyError …: whatever it is, start anew
                    log.warning("the connection to Discord ended: %s", error, exc_info=True)
                    why = error.__class__.__name__
                    at_least = retry_after(error) or 0.0 if isinstance(error, discord.HTTPException) else 0.0
                if loop.time() - since > self.patience.steady_after:
                    attempt = 0
                wait = max(self.patience.retry(attempt), at_least)
                attempt += 1
                log.warning("Discord: %s; connecting again in %.1f s", why, wait)
                await asyncio.sleep(wait)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run_once(self) -> None:
        self._client = _Client(
            self,
            intents=intents(message_content=self.message_content),
            proxy=self._proxy,
            gateway_url=self._gateway_url,
            patience=self.patience,
        )
        try:
            async with self._client:
                await self._client.start(self._token)
        finally:
            self._up.clear()

    def _do_without_content(self, error: discord.PrivilegedIntentsRequired) -> None:
        if not self.message_content:
            raise Refused(NO_INTENT) from error
        self.message_content = False
        log.warning(
            "Discord refuses the message content intent: I hear only mentions, replies that ping me and direct "
            "messages. To change that, switch on “Message Content Intent” under "
            "https://discord.com/developers/applications → your application → Bot, and start me again."
        )

    async def _connected(self) -> discord.Client:
        """The client that is logged in now; waits for one while the connection is being restarted."""
        await asyncio.wait_for(self._up.wait(), self.patience.back_online)
        assert self._client is not None  # noqa: S101 - `_up` is set by it
        return self._client

    # What the client tells us

    async def logged_in(self, client: "_Client") -> None:
        self._up.set()
        log.info("Discord: invite me with %s", invite_url(client.application_id or 0))
        self._track(asyncio.create_task(self._sync(client.tree)))

    def _track(self, task: asyncio.Task[Any] | None = None) -> None:
        """Let this task, or the one given, end with the bot."""
        task = task or asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _sync(self, tree: "app_commands.CommandTree[Any]") -> None:
        """Tell Discord our commands, once a process unless they change."""
        payload = [command.to_dict(tree) for command in tree.get_commands()]
        digest = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
        if digest == self._synced:
            return
        try:
            # Not tree.sync(): it reads from the answer what not every server says, and we need none of it.
            await tree.client.http.bulk_upsert_global_commands(tree.client.application_id or 0, payload=payload)
        except discord.HTTPException as error:
            log.warning("Discord did not take our commands (HTTP %s); they stay as they were", error.status)
        except (aiohttp.ClientError, OSError):
            log.warning("Discord did not take our commands; they stay as they were", exc_info=True)
        else:
            self._synced = digest

    async def said(self, message: discord.Message, me: discord.abc.Snowflake) -> None:
        """A message of a channel: hear it, and answer if chat says so."""
        heard = to_message(message, me)
        if heard is None:
            return
        self._track()
        try:
            reply = await self._hear(heard, message.channel.id)
        except Exception:  # the boundary: a member gets a sentence, the operator the traceback
            log.exception("a message in %s could not be answered", heard.conversation.key)
            addressed = heard.mentions_bot or heard.replies_to_bot or heard.conversation.kind is Kind.DIRECT
            reply = Reply(text=BROKEN, answers=heard.id, notice=True) if addressed else None
        if reply is not None:
            await self._post(reply, heard.conversation, message)

    async def _hear(self, heard: Message, channel: int) -> Reply | None:
        """Store in the order in which Discord told, answer as soon as each answer is there."""
        stored = asyncio.Event()
        async with self._order(channel):
            heard = await self._completed(heard)
            answer = asyncio.ensure_future(
                self.chat.hear(heard, thinking=lambda: self.posts.typing(channel), heard=stored.set)
            )
            waiter = asyncio.ensure_future(stored.wait())
            try:
                await asyncio.wait({answer, waiter}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiter.cancel()
        try:
            return await answer
        finally:
            answer.cancel()

    def _order(self, place: int) -> asyncio.Lock:
        """One event of a channel at a time, first come first served: an edit never overtakes its message. So with the
        reactions to one message."""
        return self._locks.setdefault(place, asyncio.Lock())

    async def _completed(self, heard: Message) -> Message:
        """Add what only memory knows of a message."""
        where, memory = heard.conversation, self.chat.memory
        if where.kind is Kind.THREAD:
            heard = replace(heard, joined_thread=await asyncio.to_thread(memory.in_thread, where))
        if heard.reply_to is not None and not heard.replies_to_bot:
            ours = await self.chat.reply_of(where, heard.reply_to)
            heard = replace(heard, replies_to_bot=ours is not None)
        return heard

    async def _post(self, reply: Reply, where: Conversation, message: discord.Message) -> None:
        if reply.notice:
            fleeting = None if where.kind is Kind.DIRECT else self.patience.notice_for
            await self.posts.say(message.channel.id, parts(reply.text), answers=message.id, delete_after=fleeting)
            return
        view = menus.buttons() if self.buttons else None
        ids: list[str] = []
        try:
            ids = await self.posts.say(message.channel.id, parts(reply.text), answers=message.id, view=view)
        finally:
            with self._storing():
                await self.chat.posted(reply, where, ids)

    async def edited(self, message: discord.Message, me: discord.abc.Snowflake) -> None:
        heard = to_message(message, me)
        if heard is None or not heard.text:
            return  # without the content intent an edit comes without its text
        with self._storing():
            async with self._order(message.channel.id):
                await self.chat.reworded(heard.conversation, heard.id, heard.text)

    async def reworded(self, channel: int, guild: int | None, message: int, content: str, client: "_Client") -> None:
        """An edit that tells only the new text."""
        assert client.user is not None  # noqa: S101 - asked by the caller
        text = reworded(content, client.get_guild(guild or 0), client.user)
        if text:
            with self._storing():
                async with self._order(channel):
                    await self.chat.reworded(await self._where(channel, guild), str(message), text)

    async def closed(self, where: Conversation) -> None:
        """A channel or thread was deleted, and with it all that was said there."""
        with self._storing():
            async with self._order(int(where.thread or where.channel)):
                removed = await self.chat.closed(where)
        log.info("forgot %s messages of a deleted place", removed.messages + removed.replies)

    async def deleted(self, channel: int, guild: int | None, ids: Sequence[int]) -> None:
        wished = [str(number) for number in ids if number not in self.posts.deleting]
        self.posts.deleting.difference_update(ids)
        if wished:
            with self._storing():
                async with self._order(channel):
                    where = await self._where(channel, guild)
                await self.chat.removed(where, wished)

    async def reacted(self, event: discord.RawReactionActionEvent, *, added: bool) -> None:
        liked = _thumb(event.emoji)
        if liked is None:
            return
        post, who, verdict = str(event.message_id), str(event.user_id), liked if added else None
        with self._storing():
            async with self._order(event.message_id):
                where = await self._where(event.channel_id, event.guild_id)
                await self.chat.feedback(where, post, who, verdict, was=liked)

    async def unreacted(
        self, event: discord.RawReactionClearEvent | discord.RawReactionClearEmojiEvent, liked: bool | None
    ) -> None:
        """All reactions to a message were cleared, or all of one kind."""
        with self._storing():
            async with self._order(event.message_id):
                where = await self._where(event.channel_id, event.guild_id)
                await self.chat.feedback(where, str(event.message_id), None, None, was=liked)

    async def _where(self, channel: int, guild: int | None) -> Conversation:
        """The conversation of a channel id: events that name only the id may mean a thread."""
        client = await self._connected()
        found: object = client.get_channel(channel)
        if found is None and guild is not None:
            with contextlib.suppress(discord.DiscordException):
                found = await client.fetch_channel(channel)
        if found is None:
            kind = Kind.DIRECT if guild is None else Kind.CHANNEL
            return Conversation(
                platform="discord", space="" if guild is None else str(guild), channel=str(channel), kind=kind
            )
        return conversation_of(found)

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """Where no member waits for an answer, a database fault is the operator's matter alone."""
        try:
            yield
        except StorageError:
            log.exception("what happened on Discord could not be stored")


def _thumb(emoji: discord.PartialEmoji) -> bool | None:
    return LIKED.get((emoji.name or "")[:1])  # skin tones follow the hand; a deleted emoji has no name


class _Client(Connection):
    """discord.py's events, handed on."""

    def __init__(self, bot: DiscordBot, **options: Any) -> None:
        super().__init__(**options)
        self._bot = bot
        self.tree = app_commands.CommandTree(self)
        self.tree.error(self._misused)
        menus.build(self.tree, bot.interactions)

    async def setup_hook(self) -> None:
        await self._bot.logged_in(self)

    async def on_message(self, message: discord.Message) -> None:
        if self.user is not None:
            await self._bot.said(message, self.user)

    async def on_raw_message_edit(self, event: discord.RawMessageUpdateEvent) -> None:
        if self.user is not None and "content" in event.data:
            await self._bot.edited(event.message, self.user)

    async def on_raw_message_delete(self, event: discord.RawMessageDeleteEvent) -> None:
        await self._bot.deleted(event.channel_id, event.guild_id, [event.message_id])

    async def on_raw_bulk_message_delete(self, event: discord.RawBulkMessageDeleteEvent) -> None:
        await self._bot.deleted(event.channel_id, event.guild_id, sorted(event.message_ids))

    async def on_raw_reaction_add(self, event: discord.RawReactionActionEvent) -> None:
        if self.user is not None and event.user_id != self.user.id and not (event.member and event.member.bot):
            await self._bot.reacted(event, added=True)

    async def on_raw_reaction_remove(self, event: discord.RawReactionActionEvent) -> None:
        if self.user is not None and event.user_id != self.user.id:
            await self._bot.reacted(event, added=False)

    async def on_raw_reaction_clear(self, event: discord.RawReactionClearEvent) -> None:
        await self._bot.unreacted(event, None)

    async def on_raw_reaction_clear_emoji(self, event: discord.RawReactionClearEmojiEvent) -> None:
        liked = _thumb(event.emoji)
        if liked is not None:
            await self._bot.unreacted(event, liked)

    async def on_partial_edit(self, channel: int, guild: int | None, message: int, content: str) -> None:
        if self.user is not None:
            await self._bot.reworded(channel, guild, message, content, self)

    async def on_place_delete(self, place: dict[str, Any]) -> None:
        await self._bot.closed(deleted_place(place))

    async def on_guild_remove(self, guild: discord.Guild) -> None:
        log.info(
            "removed from the server %s: what was said there stays stored until its members have it forgotten "
            "(`person2 forget`) or RETENTION_DAYS pass",
            guild.id,
        )

    async def on_interaction(self, interaction: Interaction) -> None:
        if interaction.type is discord.InteractionType.component:
            await menus.pressed(interaction, self._bot.interactions)

    async def _misused(self, interaction: Interaction, error: app_commands.AppCommandError) -> None:
        """A command that we no longer have, still shown by a member's client until it hears of the new ones."""
        log.warning("a command could not be used: %s", error, exc_info=error)
        if interaction.type is discord.InteractionType.application_command:
            await self._bot.interactions.command(interaction, "help", "")
