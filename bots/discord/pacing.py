"""One queue for all REST calls of a bot: a little below Discord's global limit, and paused while Discord asks for it.

discord.py keeps the limits of routes; it learns of the global one only by a 429. Knows nothing of routes.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

PER_SECOND = 40.0
"""Calls a second. Discord allows 50 (https://discord.com/developers/docs/topics/rate-limits#global-rate-limit);
the difference allows for uneven network delays."""

INVALID_CALLS = 5_000
INVALID_SECONDS = 600.0
"""The bot pauses after so many answers of 401, 403 or 429 in so many seconds: at 10,000 Discord bans the address
(https://discord.com/developers/docs/topics/rate-limits#invalid-request-limit-aka-cloudflare-bans)."""


class Pacer:
    """First come, first served; outlives restarts of the connection. `clock` gives seconds and never goes back."""

    def __init__(self, per_second: float = PER_SECOND, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1.0 / per_second
        self._clock = clock
        self._next = 0.0
        self._queue = asyncio.Lock()
        self._invalid: deque[float] = deque(maxlen=INVALID_CALLS)
        self.waiting = 0
        """Calls in the queue."""

    @property
    def wait(self) -> float:
        """Seconds until the next call may be made."""
        return max(0.0, self._next - self._clock())

    async def turn(self) -> None:
        """Wait until one more call may be made."""
        self.waiting += 1
        try:
            async with self._queue:
                while (wait := self.wait) > 0:  # noqa: ASYNC110 - it may be put off meanwhile
                    await asyncio.sleep(wait)
                self._next = self._clock() + self._interval
        finally:
            self.waiting -= 1

    def hold(self, seconds: float) -> None:
        """Make no call for so many seconds, but ten minutes at most."""
        self._next = max(self._next, self._clock() + min(seconds, INVALID_SECONDS))

    def count_invalid(self) -> None:
        """Count an answer of 401, 403 or 429."""
        self._invalid.append(self._clock())
        if len(self._invalid) == INVALID_CALLS:
            self.hold(self._invalid[0] + INVALID_SECONDS - self._clock())
