"""Several messages in quick succession that are one turn: answered once, after a pause, to the last.

Knows no database and no platform. People send a thought in pieces, and a bot that answers each piece interrupts. Where
a channel has everything answered, people who talk to each other at once get one answer as well.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from core.messages import Conversation, Message
from core.policy import Decision, Why

LONGEST = 8.0
"""Seconds after which a burst is answered even if it goes on: people who wait longer think that the bot is broken."""
TYPING = 3.0
"""Seconds for which a typing event counts; Discord repeats it about every eight, and sends none when typing ends."""

_OF_ALL = frozenset({Why.EVERYTHING, Why.AMBIENT})
"""Reasons to answer the channel's talk rather than one member."""
_AT_ONCE = frozenset({Why.COMMAND, Why.RESUMED})

BurstKey = tuple[str, str | None]


class Burst:
    """Messages in quick succession: of one member, or of everybody in a channel where everything is answered."""

    def __init__(self, why: Why, pause: float, sleep: Callable[[float], Awaitable[None]], clock: Callable[[], float]):
        self.why = why
        self._pause = pause
        self._sleep = sleep
        self._clock = clock
        self._begun = clock()
        self._ends = self._begun + pause
        self._last = ""
        self.over = False

    def add(self, message: Message) -> None:
        self._last = message.id
        self.extend(self._pause)

    def extend(self, seconds: float) -> None:
        self._ends = min(max(self._ends, self._clock() + seconds), self._begun + LONGEST)

    async def ends_with(self, message: Message) -> bool:
        """Wait for the pause that ends the burst; True if `message` was its last one, which is the one to answer."""
        while self._last == message.id and (left := self._ends - self._clock()) > 0:
            await self._sleep(left)
        if self._last != message.id:
            return False
        self.over = True
        return True


class Bursts:
    def __init__(
        self,
        pause: float,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """A pause of so many seconds ends a burst; with 0 every message is answered by itself."""
        self._pause = min(pause, LONGEST)
        self._sleep = sleep
        self._clock = clock
        self._open: dict[BurstKey, Burst] = {}

    def take(self, message: Message, decision: Decision) -> Burst | None:
        """The burst that a stored message belongs to; None where it is answered at once, or not at all."""
        if self._pause <= 0 or decision.why in _AT_ONCE:
            return None
        for key in self._keys(message):
            burst = self._open.get(key)
            if burst is not None and not burst.over and (decision.answer or not message.mentions_others):
                burst.add(message)
                return burst
        if not decision.answer:
            return None
        own, everybodys = self._keys(message)
        key = everybodys if decision.why in _OF_ALL else own
        self._open = {each: burst for each, burst in self._open.items() if not burst.over}
        burst = self._open[key] = Burst(decision.why, self._pause, self._sleep, self._clock)
        burst.add(message)
        return burst

    def typing(self, conversation: Conversation, member: str) -> None:
        """A member types: what they have said so far waits for the rest."""
        for key in ((conversation.key, member), (conversation.key, None)):
            burst = self._open.get(key)
            if burst is not None and not burst.over:
                burst.extend(TYPING)

    @staticmethod
    def _keys(message: Message) -> tuple[BurstKey, BurstKey]:
        key = message.conversation.key
        return (key, message.author), (key, None)
