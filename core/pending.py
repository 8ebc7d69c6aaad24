"""Replies on their way: being composed, or handed over to be posted and not yet confirmed by the platform.

A member may react to a post, delete it or ask for another as soon as they see it, and that event may arrive before the
platform has confirmed the post. Whoever looks a post up waits here first, for a moment. Knows no platform and no
memory.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from core.messages import Conversation

SETTLE_SECONDS = 10.0
"""Longest wait for a post to be confirmed; one that takes longer is waiting out a rate limit, and nobody saw it yet."""


@dataclass(eq=False, slots=True)
class PendingReply:
    """One reply on its way."""

    conversation: Conversation
    question: int
    """The memory row of what it answers."""
    row: int | None = None
    """Its own memory row, once composed."""
    replaces: int | None = None
    """The row of the reply whose place it takes."""
    handed_over_at: float = 0.0
    """When it was handed over to be posted, by the event loop's clock."""
    over: asyncio.Event = field(default_factory=asyncio.Event)


class PendingReplies:
    def __init__(self) -> None:
        self._by_channel: dict[tuple[str, str, str], dict[PendingReply, None]] = {}
        self._by_row: dict[int, PendingReply] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self, conversation: Conversation, question: int) -> PendingReply:
        pending = PendingReply(conversation, question)
        self._by_channel.setdefault(conversation.channel_key, {})[pending] = None
        self._idle.clear()
        return pending

    def composed(self, pending: PendingReply, row: int | None) -> None:
        """It is being posted from now on. One without a row is never looked up, so it ends here."""
        if row is None:
            self.end(pending)
            return
        pending.row, pending.handed_over_at = row, asyncio.get_running_loop().time()
        self._by_row[row] = pending

    def posted(self, row: int) -> PendingReply | None:
        """The reply of that row was posted, or never will be; returns it, None where it had ended already."""
        pending = self._by_row.get(row)
        if pending is not None:
            self.end(pending)
        return pending

    def end(self, pending: PendingReply) -> None:
        pending.over.set()
        if pending.row is not None:
            self._by_row.pop(pending.row, None)
        channel = pending.conversation.channel_key
        others = self._by_channel.get(channel, {})
        others.pop(pending, None)
        if not others:
            self._by_channel.pop(channel, None)
        if not self._by_channel:
            self._idle.set()

    def in_conversation(self, conversation: Conversation) -> bool:
        """Whether something said in this very conversation is being answered."""
        return any(pending.conversation.key == conversation.key for pending in self._in(conversation))

    def posting(self, conversation: Conversation) -> bool:
        """Whether a reply is being posted somewhere in this channel."""
        return any(pending.row is not None for pending in self._in(conversation))

    async def settled(self, conversation: Conversation) -> None:
        """Wait until the ids of everything that is being posted in this channel are stored."""
        await self._wait(self._in(conversation))

    async def answered(self, question: int) -> None:
        """Wait until the ids of the reply to that memory row, where one is being posted, are stored."""
        await self._wait([each for each in self._by_row.values() if each.question == question])

    async def drained(self, seconds: float) -> bool:
        """Wait until nothing is on its way; False where that takes longer."""
        return await _within(seconds, self._idle)

    def _in(self, conversation: Conversation) -> tuple[PendingReply, ...]:
        return tuple(self._by_channel.get(conversation.channel_key, ()))

    async def _wait(self, replies: Iterable[PendingReply]) -> None:
        for pending in replies:
            if pending.row is not None:
                left = pending.handed_over_at + SETTLE_SECONDS - asyncio.get_running_loop().time()
                await _within(left, pending.over)


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether the event came in time."""
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await event.wait()
    except TimeoutError:
        return False
    return True
