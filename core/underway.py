"""Answers underway in each channel: being thought of, or said and not yet remembered under the ids of their posts.

A member may react to a post, delete it or want another as soon as they see it, and a platform may tell of that before
it has confirmed the post to us. Whoever looks a post up waits here first, for a moment. Knows no platform, no memory.
"""

import asyncio
from dataclasses import dataclass, field

from core.messages import Conversation

SETTLE_SECONDS = 10.0
"""Longest wait for a post to be confirmed; one that takes longer is waiting out a rate limit, and nobody saw it yet."""

THINK_SECONDS = 120.0
"""Longest wait for an answer being thought of."""


@dataclass(eq=False, slots=True)
class Turn:
    """One answer on its way."""

    conversation: Conversation
    row: int | None = None
    said_at: float = 0.0
    """When it was handed over to be posted, by the event loop's clock."""
    thought: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Underway:
    def __init__(self) -> None:
        self._turns: dict[tuple[str, str, str], dict[Turn, None]] = {}
        self._by_row: dict[int, Turn] = {}

    def begin(self, conversation: Conversation) -> Turn:
        turn = Turn(conversation)
        self._turns.setdefault(_place(conversation), {})[turn] = None
        return turn

    def said(self, turn: Turn, row: int | None) -> None:
        """Thought of: from now on it is being posted. One without a row is never looked up, so it is over."""
        if row is None:
            self.end(turn)
            return
        turn.row, turn.said_at = row, asyncio.get_running_loop().time()
        self._by_row[row] = turn
        turn.thought.set()

    def posted(self, row: int) -> None:
        """The reply of that row stands, or never will."""
        if row in self._by_row:
            self.end(self._by_row[row])

    def end(self, turn: Turn) -> None:
        turn.thought.set()
        turn.over.set()
        if turn.row is not None:
            self._by_row.pop(turn.row, None)
        place = _place(turn.conversation)
        turns = self._turns.get(place, {})
        turns.pop(turn, None)
        if not turns:
            self._turns.pop(place, None)

    async def settled(self, conversation: Conversation, *, thinking: bool = False, threads: bool = True) -> None:
        """Wait until what is being posted in this channel is remembered; with `thinking` until what is being thought
        of is, too. Without `threads` only this very conversation matters."""
        for turn in tuple(self._turns.get(_place(conversation), ())):
            if not threads and turn.conversation.key != conversation.key:
                continue
            if thinking:
                await _within(THINK_SECONDS, turn.thought)
            if turn.thought.is_set():
                left = turn.said_at + SETTLE_SECONDS - asyncio.get_running_loop().time()
                if not await _within(left, turn.over):
                    self.end(turn)  # given up: the next one need not wait for it


def _place(conversation: Conversation) -> tuple[str, str, str]:
    return conversation.platform, conversation.space, conversation.channel


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether the event came in time."""
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await event.wait()
    except TimeoutError:
        return False
    return True
