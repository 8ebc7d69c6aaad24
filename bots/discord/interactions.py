"""Answers to slash commands, context menus and buttons: at once, deferred, or as a normal message when it is too late.

Knows Discord's rules for interactions (3 s, 15 min, ephemeral or not from the start) and the interfaces of chat and
commands.
"""

import asyncio
import contextlib
import io
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import discord

from bots.discord import commands as menu
from bots.discord.commands import Interaction
from bots.discord.markup import parts, quoted, reply_parts
from bots.discord.messages import conversation_of, plain, roles_of
from bots.discord.sending import CANNOT_POST, NOBODY, UNREACHABLE, UNREADABLE, Sender
from bots.discord.timeouts import DiscordTimeouts
from core.commands import SETTING_VALUES, Answer, Commands, Invocation
from core.failures import log_failure
from core.messages import Message, Reply
from core.notices import NOT_MINE, apology

log = logging.getLogger(__name__)

PUBLIC = frozenset({"ask", "reset"})
"""Commands that are deferred publicly; where the answer turns out to be private, the public placeholder is removed."""

REMEMBERED = 2000
"""Interactions that are remembered, so that each is answered once even if a resumed connection replays it."""

ANSWERED_ALREADY = 40060
"""Discord's code for an interaction that was answered: our first try arrived, though its response was lost
(https://discord.com/developers/docs/topics/opcodes-and-status-codes#json)."""

THANKS = "Thank you for the feedback."
REPLACED = "Done: I replaced it with another answer."
ANSWER_DELETED = "That answer was deleted in the meantime."


@dataclass(slots=True)
class PendingInteraction:
    """One interaction and the state of its answer."""

    interaction: Interaction
    since: float
    deferred: bool = False
    ephemeral: bool = False
    """Whether it was deferred as ephemeral; Discord applies that to the first follow-up."""
    update: bool = False
    """A button: acknowledged without a message of its own."""
    dead: bool = False
    """The token is no longer valid: only normal messages are left."""


@dataclass(slots=True, kw_only=True)
class Interactions:
    """The `CommandTarget` of our menus."""

    commands: Commands
    sender: Sender
    timeouts: DiscordTimeouts
    buttons: bool = False
    _seen: dict[int, None] = field(default_factory=dict)

    # Called by menus and buttons

    async def command(self, interaction: Interaction, name: str, argument: str) -> None:
        invocation = self._invocation(interaction, name, argument)
        channel = interaction.channel_id
        if name == "ask" and channel is not None:
            invocation = replace(invocation, thinking=lambda: self.sender.typing(channel))
        asks = name == "forget-me" and argument.strip().casefold() != "yes"
        view = menu.confirm() if asks else None
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
        adapters = ["current", "none", *await asyncio.to_thread(self.commands.adapters)]
        if command == "voice":
            return adapters
        match getattr(interaction.namespace, "name", ""):
            case "voice":
                return adapters
            case setting:
                return [*SETTING_VALUES.get(setting, ()), "default"]

    # Answering

    def _invocation(self, interaction: Interaction, name: str, argument: str, *, post: str | None = None) -> Invocation:
        conversation = conversation_of(interaction.channel)
        # A setting may mention members and roles: there the ids matter, not the names.
        text = argument if name == "settings" else plain(argument, interaction.guild)
        return Invocation(
            name=name,
            argument=text,
            message=Message(
                conversation=conversation,
                id=str(interaction.id),
                author=str(interaction.user.id),
                author_name=interaction.user.display_name,
                author_roles=roles_of(interaction.user, interaction.guild),
                text=text,
                sent_at=interaction.created_at,
            ),
            admin=interaction.permissions.manage_channels,
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
        """Answer an interaction once and in time, with `view` under an answer that is not a reply. Errors are logged,
        and the member gets a sentence."""
        if interaction.id in self._seen:
            return
        self._seen[interaction.id] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        pending = PendingInteraction(interaction, asyncio.get_running_loop().time())
        work = asyncio.ensure_future(self._run(run))
        try:
            done, _ = await asyncio.wait({work}, timeout=self.timeouts.defer_after)
            if not done:
                await self._defer(pending, ephemeral=not public)
            await self._show(pending, await work, view)
        finally:
            work.cancel()

    async def _run(self, run: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            return await run()
        except Exception as error:  # the boundary: the log gets the error, the member a sentence
            log_failure(log, error, "a command failed")
            return Answer(text=apology(error))

    async def _defer(self, pending: PendingInteraction, *, ephemeral: bool) -> None:
        interaction = pending.interaction
        pending.update = interaction.type is discord.InteractionType.component
        pending.ephemeral = ephemeral
        thinking = not pending.update
        try:
            await self._call(lambda: interaction.response.defer(ephemeral=ephemeral, thinking=thinking))
            pending.deferred = True
        except UNREADABLE:  # accepted, but answered without the body that discord.py reads
            pending.deferred = True
        except UNREACHABLE as error:
            pending.deferred = _answered_already(error)
            pending.dead = not pending.deferred
            if pending.dead:
                log.warning("an interaction could not be deferred (%s); its answer will be a normal message", error)

    async def _call(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Make a first response, which Discord accepts only within 3 s."""
        return await self.sender.deliver(lambda _: call(), within=self.timeouts.first_response)

    async def _show(self, pending: PendingInteraction, answer: Answer, view: discord.ui.View | None) -> None:
        if answer.silent:
            await self._remove_deferral(pending)
            return
        reply = answer.reply
        if reply is not None and not reply.notice:
            await self._post_reply(pending, answer, reply)
            return
        text = reply.text if reply is not None else answer.text
        attachment = answer.attachment
        file = discord.File(io.BytesIO(attachment.data), attachment.name) if attachment is not None else None
        await self._deliver(pending, parts(text, markup=True), private=answer.private, view=view, file=file)

    async def _post_reply(self, pending: PendingInteraction, answer: Answer, reply: Reply) -> None:
        """Post a reply, in place of earlier posts or as the answer to the interaction."""
        conversation = conversation_of(pending.interaction.channel)
        channel = int(conversation.thread or conversation.channel)
        by_command = pending.interaction.type is discord.InteractionType.application_command
        view = menu.buttons() if self.buttons else None
        ids: list[str] | None = None
        made: list[str] = []
        try:
            if answer.replaces:
                shown = await self.sender.shows(channel, answer.replaces[0], quoted(reply))
                texts = reply_parts(reply, show_question=shown)
                ids = await self.sender.replace(channel, answer.replaces, texts, view=view)
            replaced = ids is not None
            if ids is None:
                texts = reply_parts(reply, show_question=by_command and not answer.replaces)
                made = await self._deliver(pending, texts, private=answer.private, view=view)
                ids = [post for post in made if post]
        except Exception:
            await self.commands.chat.posted(reply, conversation, ())
            raise
        await self.commands.chat.posted(reply, conversation, ids, stands=bool(ids or made))
        if replaced and not ids:
            await self._deliver(pending, [ANSWER_DELETED], private=True)
        elif not replaced and not made:
            await self.sender.tell(pending.interaction.user.id, [CANNOT_POST.format(channel=channel)])
        elif replaced and by_command:
            await self._deliver(pending, [REPLACED], private=True)
        elif replaced and not pending.deferred:  # the member who pressed the button sees the answer change
            await self._defer(pending, ephemeral=True)

    async def _deliver(
        self,
        pending: PendingInteraction,
        texts: Sequence[str],
        *,
        private: bool,
        view: discord.ui.View | None = None,
        file: discord.File | None = None,
    ) -> list[str]:
        """Show parts through the interaction while it is valid, then as normal messages (private ones as direct
        messages).

        Returns an id for each part that was posted, an empty one where the server does not tell it.
        """
        made: list[str] = []
        left = self.timeouts.interaction_token + pending.since - asyncio.get_running_loop().time()
        if not pending.dead and left > 0:
            try:
                for number, text in enumerate(texts):
                    made.append(
                        await self.sender.deliver(
                            lambda _, n=number, t=text: self._part(  # type: ignore[misc]  # the defaults bind the loop's values
                                pending,
                                t,
                                first=n == 0,
                                private=private,
                                view=view if n == len(texts) - 1 else None,
                                file=file if n == 0 else None,
                            ),
                            within=left if pending.deferred else self.timeouts.first_response,
                        )
                    )
            except UNREACHABLE as error:
                log.warning("an interaction could not be answered (%s); sending a normal message instead", error)
            else:
                return made
        rest = texts[len(made) :]
        interaction = pending.interaction
        if private:
            await self.sender.tell(interaction.user.id, rest, [file] if file is not None and not made else ())
            return made
        where = conversation_of(interaction.channel)
        return made + await self.sender.say(int(where.thread or where.channel), rest, view=view)

    async def _part(
        self,
        pending: PendingInteraction,
        text: str,
        *,
        first: bool,
        private: bool,
        view: discord.ui.View | None,
        file: discord.File | None,
    ) -> str:
        interaction = pending.interaction
        options: dict[str, Any] = {"allowed_mentions": NOBODY}
        if view is not None:
            options["view"] = view
        if file is not None:
            file.reset()  # an earlier try has read it to its end
        if first and not pending.deferred:
            if file is not None:
                options["file"] = file
            made = None
            try:
                made = (await interaction.response.send_message(text, ephemeral=private, **options)).message_id
            except UNREADABLE:  # accepted, but answered without the body that discord.py reads
                pass
            except discord.HTTPException as error:
                if not _answered_already(error):
                    raise
            pending.deferred, pending.ephemeral = True, private
            if made is None:
                with contextlib.suppress(discord.HTTPException, *UNREADABLE):  # posted, but without a known id
                    made = (await interaction.original_response()).id
            return str(made or "")
        if first and not pending.update and pending.ephemeral == private:
            if file is not None:
                options["attachments"] = [file]
            return str((await interaction.edit_original_response(content=text, **options)).id)
        if first:
            await self._remove_deferral(pending)
        if file is not None:
            options["file"] = file
        sent = await interaction.followup.send(text, ephemeral=private, wait=True, **options)
        return str(sent.id)

    async def _remove_deferral(self, pending: PendingInteraction) -> None:
        """Remove our “is thinking …”, where we showed one.

        The first follow-up inherits a deferral's visibility until the deferral has become a message: hence the edit.
        """
        if pending.deferred and not pending.update:
            try:
                await pending.interaction.edit_original_response(content="…", allowed_mentions=NOBODY)
                await pending.interaction.delete_original_response()
            except discord.HTTPException as error:
                log.debug("the deferred response could not be deleted: %s", error)


def _answered_already(error: BaseException) -> bool:
    return isinstance(error, discord.HTTPException) and error.code == ANSWERED_ALREADY
