"""Answers to slash commands, context menus and buttons: at once, deferred, or as a normal message when it was too late.

Knows Discord's interaction rules (3 s, 15 min, ephemeral or not for good) and the faces of chat and commands.
"""

import asyncio
import contextlib
import io
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import discord

from bots.discord import menus
from bots.discord.incoming import conversation_of, plain
from bots.discord.menus import Interaction
from bots.discord.patience import Patience
from bots.discord.posts import NOBODY, Posts, parts
from core.commands import Answer, Commands, Invocation
from core.messages import Kind, Message, Reply
from core.notices import BROKEN

log = logging.getLogger(__name__)

PUBLIC = frozenset({"ask", "reset"})
"""Commands whose answers all may see; where an answer of theirs is private after all, the public wait is taken back."""

REMEMBERED = 2000
"""Interactions remembered to answer each once, whatever a resumed connection replays."""

UNREADABLE = (AttributeError, LookupError, TypeError, ValueError)
"""What discord.py raises where a server took a call and said of it less than Discord does."""

THANKS = "Thank you, noted."
NOT_MINE = "That is no answer of mine."
REPLACED = "There: another answer, in place of the first."


@dataclass(slots=True)
class Ticket:
    """One use and how far its answering has come."""

    interaction: Interaction
    since: float
    deferred: bool = False
    ephemeral: bool = False
    """How it was deferred; Discord keeps that for the first follow-up."""
    update: bool = False
    """A button: acknowledged without a message of its own."""
    dead: bool = False
    """The token is no good any more: normal messages only."""


@dataclass(slots=True, kw_only=True)
class Interactions:
    """The desk that `menus` carries uses to."""

    commands: Commands
    posts: Posts
    patience: Patience
    buttons: bool = False
    _seen: dict[int, None] = field(default_factory=dict)

    # What menus call

    async def command(self, interaction: Interaction, name: str, argument: str) -> None:
        invocation = self._invocation(interaction, name, argument)
        channel = interaction.channel_id
        if name == "ask" and channel is not None:
            invocation = replace(invocation, thinking=lambda: self.posts.typing(channel))
        asks = name == "forget-me" and argument.strip().casefold() != "yes"
        view = menus.confirm() if asks else None
        await self._answer(interaction, lambda: self.commands.run(invocation), public=name in PUBLIC, view=view)

    async def another(self, interaction: Interaction, post: str) -> None:
        invocation = self._invocation(interaction, "again", "", post=post)
        await self._answer(interaction, lambda: self.commands.run(invocation), public=False)

    async def why(self, interaction: Interaction, post: str) -> None:
        invocation = self._invocation(interaction, "why", "", post=post)
        await self._answer(interaction, lambda: self.commands.why(invocation), public=False)

    async def feedback(self, interaction: Interaction, liked: bool) -> None:
        async def note() -> Answer:
            post = str(interaction.message.id) if interaction.message is not None else ""
            where, who = conversation_of(interaction.channel), str(interaction.user.id)
            found = await self.commands.chat.feedback(where, post, who, liked)
            return Answer(text=THANKS if found else NOT_MINE)

        await self._answer(interaction, note, public=False)

    async def suggest(self, interaction: Interaction, command: str, option: str, typed: str) -> list[str]:
        voices = ["current", "none", *await asyncio.to_thread(self.commands.voices)]
        if command == "voice":
            return voices
        match getattr(interaction.namespace, "name", ""):
            case "voice":
                return voices
            case "allowed":
                return ["yes", "no", "default"]
            case _:
                return ["default"]

    # Answering

    def _invocation(self, interaction: Interaction, name: str, argument: str, *, post: str | None = None) -> Invocation:
        conversation = conversation_of(interaction.channel)

        def user(number: int) -> str | None:
            member = interaction.guild.get_member(number) if interaction.guild is not None else None
            return member.display_name if member is not None else None

        text = plain(argument, interaction.guild, user)
        return Invocation(
            name=name,
            argument=text,
            message=Message(
                conversation=conversation,
                id=str(interaction.id),
                author=str(interaction.user.id),
                author_name=interaction.user.display_name,
                text=text,
                sent_at=interaction.created_at,
            ),
            admin=conversation.kind is Kind.DIRECT or interaction.permissions.manage_channels,
            post=post,
        )

    async def _answer(
        self,
        interaction: Interaction,
        run: Callable[[], Awaitable[Answer]],
        *,
        public: bool,
        view: discord.ui.View | None = None,
    ) -> None:
        """Answer once, in time, `view` under what is no reply; what goes wrong is logged and said in a sentence."""
        if interaction.id in self._seen:
            return
        self._seen[interaction.id] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        ticket = Ticket(interaction, asyncio.get_running_loop().time())
        work = asyncio.ensure_future(self._run(run))
        try:
            done, _ = await asyncio.wait({work}, timeout=self.patience.defer_after)
            if not done:
                await self._defer(ticket, ephemeral=not public)
            await self._show(ticket, await work, view)
        finally:
            work.cancel()

    async def _run(self, run: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            return await run()
        except Exception:  # the boundary: a member gets a sentence, the operator the traceback
            log.exception("a command failed")
            return Answer(text=BROKEN)

    async def _defer(self, ticket: Ticket, *, ephemeral: bool) -> None:
        interaction = ticket.interaction
        ticket.update = interaction.type is discord.InteractionType.component
        ticket.ephemeral = ephemeral
        try:
            await interaction.response.defer(ephemeral=ephemeral, thinking=not ticket.update)
            ticket.deferred = True
        except UNREADABLE:  # taken, but answered without the body that discord.py asks for and reads
            ticket.deferred = True
        except (discord.DiscordException, aiohttp.ClientError, OSError, RuntimeError) as error:
            log.warning("an interaction could not be deferred (%s); its answer will be a normal message", error)
            ticket.dead = True

    async def _show(self, ticket: Ticket, answer: Answer, view: discord.ui.View | None) -> None:
        if answer.silent:
            await self._take_back(ticket)
            return
        reply = answer.reply
        if reply is not None and not reply.notice:
            await self._speak(ticket, answer, reply)
            return
        text = reply.text if reply is not None else answer.text
        attachment = answer.attachment
        file = discord.File(io.BytesIO(attachment.data), attachment.name) if attachment is not None else None
        await self._deliver(ticket, parts(text, markup=True), private=answer.private, view=view, file=file)

    async def _speak(self, ticket: Ticket, answer: Answer, reply: Reply) -> None:
        """Say a reply: in place of others, or as the answer to the interaction."""
        conversation = conversation_of(ticket.interaction.channel)
        view, texts = menus.buttons() if self.buttons else None, parts(reply.text)
        ids: list[str] | None = None
        try:
            if answer.replaces:
                channel = int(conversation.thread or conversation.channel)
                ids = await self.posts.replace(channel, answer.replaces, texts, view=view)
            replaced = ids is not None
            if ids is None:
                ids = [post for post in await self._deliver(ticket, texts, private=answer.private, view=view) if post]
        finally:
            await self.commands.chat.posted(reply, conversation, ids or ())
        if not replaced:
            return
        if ticket.interaction.type is not discord.InteractionType.component:
            await self._deliver(ticket, [REPLACED], private=True)
        elif not ticket.deferred:  # who pressed the button under the answer sees it change
            await self._defer(ticket, ephemeral=True)

    async def _deliver(
        self,
        ticket: Ticket,
        texts: Sequence[str],
        *,
        private: bool,
        view: discord.ui.View | None = None,
        file: discord.File | None = None,
    ) -> list[str]:
        """Show parts through the interaction while it lives, then as normal messages (private ones directly)."""
        made: list[str] = []
        late = asyncio.get_running_loop().time() - ticket.since > self.patience.follow_up_within
        if not (ticket.dead or late):
            try:
                for number, text in enumerate(texts):
                    made.append(
                        await self.posts.patiently(
                            lambda _, n=number, t=text: self._part(  # type: ignore[misc]  # defaults bind the loop's values
                                ticket,
                                t,
                                first=n == 0,
                                private=private,
                                view=view if n == len(texts) - 1 else None,
                                file=file if n == 0 else None,
                            )
                        )
                    )
            except (discord.DiscordException, aiohttp.ClientError, OSError, RuntimeError, TimeoutError) as error:
                log.warning("an interaction could not be answered (%s); saying it in a normal message", error)
            else:
                return made
        rest = texts[len(made) :]
        interaction = ticket.interaction
        if private:
            if file is not None:
                file.reset()
            await self.posts.tell(interaction.user.id, rest, file if not made else None)
            return made
        where = conversation_of(interaction.channel)
        return made + await self.posts.say(int(where.thread or where.channel), rest, view=view)

    async def _part(
        self,
        ticket: Ticket,
        text: str,
        *,
        first: bool,
        private: bool,
        view: discord.ui.View | None,
        file: discord.File | None,
    ) -> str:
        interaction = ticket.interaction
        options: dict[str, Any] = {"allowed_mentions": NOBODY}
        if view is not None:
            options["view"] = view
        if first and not ticket.deferred:
            if file is not None:
                options["file"] = file
            made = None
            with contextlib.suppress(*UNREADABLE):  # taken, but answered without the body that discord.py reads
                made = (await interaction.response.send_message(text, ephemeral=private, **options)).message_id
            ticket.deferred, ticket.ephemeral = True, private
            if made is None:
                with contextlib.suppress(discord.HTTPException, *UNREADABLE):  # it stands, under an id we never learn
                    made = (await interaction.original_response()).id
            return str(made or "")
        if first and not ticket.update and ticket.ephemeral == private:
            if file is not None:
                options["attachments"] = [file]
            return str((await interaction.edit_original_response(content=text, **options)).id)
        if first:
            await self._take_back(ticket)
        if file is not None:
            options["file"] = file
        sent = await interaction.followup.send(text, ephemeral=private, wait=True, **options)
        return str(sent.id)

    async def _take_back(self, ticket: Ticket) -> None:
        """Remove our “is thinking …”, where we showed one.

        A deferral passes its visibility on to the first follow-up until it has become a message: hence the edit.
        """
        if ticket.deferred and not ticket.update:
            try:
                await ticket.interaction.edit_original_response(content="…", allowed_mentions=NOBODY)
                await ticket.interaction.delete_original_response()
            except discord.HTTPException as error:
                log.debug("the deferred response stays: %s", error)
