"""Questions that an earlier process stored and never answered: each platform gets its own, once.

Knows memory and a clock.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from core.memory import Memory, Unanswered
from core.policy import Why

ANSWER_WITHIN = timedelta(minutes=10)
"""Questions that an earlier process left unanswered are still answered when they are no older than this."""


class EarlierProcess:
    def __init__(self, memory: Memory, clock: Callable[[], datetime]) -> None:
        self._memory = memory
        self._clock = clock
        self._lock = asyncio.Lock()
        self._newest: int | None = None
        self._told: set[str] = set()
        """Platforms that have asked for theirs."""

    async def newest_row(self) -> int:
        """The newest row when this process began: questions up to it belong to an earlier one. The first call must come
        before this process stores anything."""
        async with self._lock:
            if self._newest is None:
                self._newest = await asyncio.to_thread(self._memory.newest_row)
            return self._newest

    async def unanswered(self, platform: str) -> list[Unanswered]:
        """Questions of the last minutes that an earlier process stored and never answered: those tried least
        first, then the oldest. The first call in a process gives them all, later ones (of a platform that connects
        again) give nothing."""
        if platform in self._told:
            return []
        self._told.add(platform)
        until, since = await self.newest_row(), self._clock() - ANSWER_WITHIN
        return await asyncio.to_thread(
            self._memory.unanswered, platform, since=since, until=until, command=str(Why.COMMAND)
        )
