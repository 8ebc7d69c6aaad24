"""A stored question → its reply, in order and with a typing indicator meanwhile; an apology where it fails.

Owns the replies on their way, and notes when a question is owed no answer any more. Knows memory and the composer;
whether a message is a question at all was decided before.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias

from core import notices
from core.composer import Composer
from core.errors import Overloaded
from core.failures import log_failure
from core.locks import Locks
from core.memory import ChannelSettings, Memory, Remembered, Unanswered
from core.messages import Conversation, Message, Reply
from core.notices import Notices
from core.pending import PendingReplies, PendingReply
from core.policy import Why

log = logging.getLogger(__name__)

Thinking: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]
"""Makes what a platform shows while a reply is composed: a typing indicator, a status."""


class Responder:
    def __init__(self, *, memory: Memory, composer: Composer, clock: Callable[[], datetime]) -> None:
        self.pending = PendingReplies()
        self._memory = memory
        self._composer = composer
        self._notices = Notices(clock)
        self._turns = Locks()

    async def answer(
        self,
        question: Remembered,
        chosen: ChannelSettings,
        *,
        why: Why,
        ready: Callable[[], Awaitable[object]],
        thinking: Thinking,
    ) -> Reply | None:
        """Answer it once `ready` returns. The asker is told of a failure at most once a minute, but always after a
        command and never after an ambient answer."""
        message = question.message
        pending = self.pending.begin(message.conversation, question.row)

        async def compose() -> Reply | None:
            if message.reply_to is not None:
                await self.pending.settled(message.conversation)  # what it answers may have been posted a moment ago
            await ready()
            return await self._composer.compose(message, question.row, chosen, why=why)

        def may_say(reply: Reply) -> bool:
            if why in {Why.AMBIENT, Why.COMMAND}:
                return why is Why.COMMAND
            return not reply.notice or self._notices.may_say(reply.text, message)

        return await self._composed(pending, compose, message, may_say=may_say, thinking=thinking)

    async def again(
        self, question: Remembered, chosen: ChannelSettings, *, thinking: Thinking
    ) -> tuple[Reply | None, tuple[str, ...]]:
        """Another answer in place of the current one, once no other is on its way, and the ids of the posts it
        replaces; None where the question was deleted meanwhile."""
        pending = self.pending.begin(question.message.conversation, question.row)
        replaced: tuple[str, ...] = ()

        async def compose() -> Reply | None:
            nonlocal replaced
            await self.pending.answered(question.row)
            live = await asyncio.to_thread(self._memory.live_reply, question.row)
            pending.replaces = live[0].row if live else None
            reply = await self._composer.compose(
                question.message, question.row, chosen, why=Why.COMMAND, replacing=pending.replaces
            )
            replaced = live[1] if live and reply is not None and not reply.notice else ()
            return reply

        reply = await self._composed(pending, compose, question.message, thinking=thinking)
        return reply, replaced

    async def resume(
        self,
        question: Unanswered,
        chosen: Callable[[], Awaitable[ChannelSettings | None]],
        *,
        thinking: Thinking,
    ) -> Reply | None:
        """The reply that an earlier process composed, else a new one, else an apology; None where `chosen` gives none,
        because the bot is not allowed there any more."""
        message, row = question.message, question.row
        pending = self.pending.begin(message.conversation, row)

        async def compose() -> Reply | None:
            here = await chosen()
            if here is None:
                return None
            await asyncio.to_thread(self._memory.take_on, row)
            live = await asyncio.to_thread(self._memory.live_reply, row)
            if live is None:
                return await self._composer.compose(message, row, here, why=Why.RESUMED)
            reply = live[0]
            return Reply(text=reply.message.text, answers=message.id, row=reply.row, question=message, resumed=True)

        reply = await self._composed(pending, compose, message, thinking=thinking)
        return replace(reply, text=notices.MISSED) if reply is not None and reply.notice else reply

    async def posted(self, row: int, conversation: Conversation, posts: Sequence[str], *, stands: bool) -> None:
        """A reply was posted, or (`stands` is False) never will be: then the one that it was to replace is restored."""
        pending = None
        try:
            if stands:
                await asyncio.to_thread(self._memory.posted, row, conversation, posts)
            else:
                pending = self.pending.posted(row)
                await asyncio.to_thread(self._memory.withdraw, row, restored=pending.replaces if pending else None)
        finally:
            self.pending.posted(row)

    def notice(self, text: str, to: Message) -> Reply | None:
        """A sentence for the member alone, unless they were shown one a moment ago."""
        return Reply(text=text, answers=to.id, notice=True) if self._notices.may_say(text, to) else None

    async def give_up(self, question: int, reply: Reply | None) -> Reply | None:
        """Note that the question is owed no answer; returns `reply`, which the asker is shown instead."""
        await asyncio.to_thread(self._memory.settle, question)
        return reply

    async def _composed(
        self,
        pending: PendingReply,
        compose: Callable[[], Awaitable[Reply | None]],
        to: Message,
        *,
        may_say: Callable[[Reply], bool] = lambda reply: True,
        thinking: Thinking,
    ) -> Reply | None:
        """The reply that `compose` makes in its turn, or an apology where `may_say` allows one."""
        conversation, row = pending.conversation, None
        try:
            try:
                async with thinking(), self._turns.of(conversation.key):
                    reply = await compose()
            except Exception as error:  # the boundary: the log gets the error, the member a sentence
                if isinstance(error, Overloaded):
                    log.info("no room for a reply in %s", conversation.key)
                else:
                    log_failure(log, error, "no reply in %s", conversation.key)
                reply = Reply(text=notices.apology(error), answers=to.id, notice=True)
            if reply is not None and reply.row is not None:
                row = reply.row
                return reply
            return await self.give_up(pending.question, reply if reply is not None and may_say(reply) else None)
        finally:
            self.pending.composed(pending, row)
