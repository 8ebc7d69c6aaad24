"""Whether a bot's posts get through: the bot reports each attempt, and the health check asks.

Knows no platform. A bot receives over one connection and posts over another, so it may look connected and yet be unable
to post.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STUCK_SECONDS = 120.0
"""A post that is under way for longer counts as stuck, unless a later one got through meanwhile; rate limits of one
channel are waited out in less, or while other channels are served."""

FAILURES = 3
"""Failures in a row after which a bot counts as unable to post."""

RECENT_SECONDS = 600.0
"""Failures older than this do not count: a bot that nobody talks to posts nothing that could succeed."""


class PostHealth:
    """What one bot knows about its own posts. Use it from one event loop only."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._under_way: dict[object, float] = {}
        self._succeeded_at = float("-inf")
        self._failures = 0
        self._failed_at = float("-inf")

    @contextmanager
    def attempt(self, *, refusals: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
        """Put this around one post, its waits and retries included: `with health.attempt(): await send(...)`.

        An exception counts as a failure and goes on to the caller. With one of `refusals` the platform refused just
        this post (no permission in a channel, a deleted thread): it answered, so it can be reached. A cancelled attempt
        does not count.
        """
        mark = object()
        self._under_way[mark] = self._clock()
        try:
            yield
        except refusals:
            self._got_through()
            raise
        except Exception:
            self._failures += 1
            self._failed_at = self._clock()
            raise
        else:
            self._got_through()
        finally:
            del self._under_way[mark]

    def trouble(self) -> str | None:
        """What is wrong, as the end of a sentence for the operator; None while posts get through."""
        now = self._clock()
        oldest = max(min(self._under_way.values(), default=now), self._succeeded_at)
        if self._under_way and now - oldest > STUCK_SECONDS:
            return f"cannot post (a post has been waiting for {now - oldest:.0f} s)"
        if self._failures >= FAILURES and now - self._failed_at < RECENT_SECONDS:
            return f"cannot post (the last {self._failures} posts failed)"
        return None

    def _got_through(self) -> None:
        self._succeeded_at = self._clock()
        self._failures = 0
