"""Calls of Slack's Web API within its rate limits: one queue per workspace and channel, with retries.

Knows slack_sdk's errors; knows no texts and no event. Slack accepts about one post a second in a channel, and limits
every method for each app and workspace; a 429 says how long to wait (https://docs.slack.dev/apis/web-api/rate-limits).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bots.slack.errors import NETWORK, code, reason, status
from bots.slack.timeouts import SlackTimeouts
from core.errors import PlatformError
from core.health import PostHealth

LONGEST_LIMIT_SECONDS = 30 * 60.0
"""Longest wait that a 429 may ask for."""

WAITING = 200
"""Posts that may wait for one channel; at Slack's rate they take more than three minutes."""

QUEUES = 1_000
"""Channel queues that are kept; beyond this, idle ones are dropped."""

IN_FLIGHT = 8
"""Calls of one method at once in a workspace, which are refused together when Slack refuses the whole workspace."""

SERVER_ERRORS = frozenset({"internal_error", "fatal_error", "service_unavailable", "request_timeout"})
"""Slack's codes for errors of its own (https://docs.slack.dev/reference/methods/chat.postMessage, “Errors”)."""

SERVER_ERROR_TRIES = 5
"""Attempts at a call that Slack itself fails at: it may never accept that message, and others are waiting."""

FIRST_SECONDS = 0.05
SLOWEST_SECONDS = 1.0
SLOWING = 1.5
EASING = 0.995
"""The pause between two calls of a method that was called too often: it grows with each refusal and shrinks with each
accepted call, so that under constant load about one call in eighty is refused."""

IDLE_SECONDS = 60.0
"""Time without a call after which the pause is reset."""


class NotPosted(PlatformError):
    """Slack did not accept a call in time."""


@dataclass(eq=False, slots=True)
class ChannelQueue:
    """One channel's queue, first come, first served."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    free_at: float = 0.0
    """When the next call may be made, by the event loop's clock."""


@dataclass(eq=False, slots=True)
class MethodLimit:
    """The rate at which Slack accepts one method in this workspace."""

    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_FLIGHT))
    free_at: float = 0.0
    spacing: float = 0.0
    """Seconds between two calls; 0 until Slack refuses the workspace and not only one channel."""
    held_until: float = 0.0
    """When the last refusal of the workspace ends."""
    failures: int = 0
    """Attempts in a row that did not reach Slack."""
    refused: tuple[str, float] = ("", 0.0)
    """The channel that was refused last, and until when."""


class Outbox:
    """The queues of one workspace."""

    def __init__(
        self,
        *,
        timeouts: SlackTimeouts | None = None,
        health: PostHealth | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.timeouts = timeouts or SlackTimeouts()
        self._health = health or PostHealth()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._queues: dict[str, ChannelQueue] = {}
        self._methods: dict[str, MethodLimit] = {}

    def busy(self, channel: str) -> bool:
        """Whether something waits for its turn in this channel."""
        queue = self._queues.get(channel)
        return queue is not None and queue.waiting > 1

    async def post(
        self,
        channel: str,
        send: Callable[[], Awaitable[AsyncSlackResponse]],
        *,
        posted: Callable[[], Awaitable[str | None]],
        seconds: float | None = None,
        uncertain: bool = False,
    ) -> str:
        """Make one post in its turn; returns its timestamp.

        After an attempt whose outcome is unknown, `posted` checks whether the post exists; where an earlier process may
        have made it (`uncertain`), before the first attempt too. Raises NotPosted, and SlackClientError where Slack
        refuses it permanently.
        """
        queue = self._queue(channel)
        if queue.waiting >= WAITING:
            raise NotPosted("too many posts are waiting for this channel.")
        queue.waiting += 1
        with self._health.attempt(refusals=(SlackClientError,)):
            try:
                deadline = self._now() + (self.timeouts.reply if seconds is None else seconds)
                async with queue.turn:
                    try:
                        return await self._attempts(
                            "chat.postMessage", send, deadline, channel, queue, posted, unknown=uncertain
                        )
                    finally:
                        queue.free_at = max(queue.free_at, self._now() + self.timeouts.between_posts)
            finally:
                queue.waiting -= 1

    async def call(
        self,
        method: str,
        send: Callable[[], Awaitable[AsyncSlackResponse]],
        *,
        seconds: float | None = None,
        once: bool = False,
    ) -> AsyncSlackResponse:
        """Make any other call; with `once` it is not tried again where it may have arrived.

        Raises SlackClientError where Slack refuses it permanently, and NotPosted.
        """
        deadline = self._now() + (self.timeouts.notice if seconds is None else seconds)
        answers: list[AsyncSlackResponse] = []

        async def keep() -> AsyncSlackResponse:
            answers.append(await send())
            return answers[-1]

        await self._attempts(method, keep, deadline, "", ChannelQueue(), None, once=once)
        return answers[-1]

    async def _attempts(
        self,
        name: str,
        send: Callable[[], Awaitable[AsyncSlackResponse]],
        deadline: float,
        channel: str,
        queue: ChannelQueue,
        posted: Callable[[], Awaitable[str | None]] | None,
        *,
        once: bool = False,
        unknown: bool = False,
    ) -> str:
        method = self._methods.setdefault(name, MethodLimit())
        tries = 0
        while True:
            await self._until(deadline, queue)
            async with method.slots:
                await self._until(deadline, queue, method)
                try:
                    if unknown and posted is not None:
                        stands = await posted()
                        if stands is not None:
                            return stands
                        unknown = False
                    if self._now() - method.free_at > IDLE_SECONDS:
                        method.spacing = 0.0
                    method.free_at = max(method.free_at, self._now() + method.spacing)
                    answer = await send()
                except (SlackClientError, *NETWORK) as error:
                    tries += 1
                    unknown = unknown or _may_have_arrived(error)
                    if not self._worth_trying_again(error, method, channel, queue, tries):
                        raise
                    if (once and unknown) or self._now() > deadline:
                        raise NotPosted(f"Slack did not accept {name} ({reason(error)}).") from error
                else:
                    method.failures = 0
                    method.spacing *= EASING
                    return str(answer.get("ts") or "")

    def _worth_trying_again(
        self, error: BaseException, method: MethodLimit, channel: str, queue: ChannelQueue, tries: int
    ) -> bool:
        """Delay the queues as an error demands; False where trying again cannot help."""
        now = self._now()
        if is_rate_limited(error):
            until = now + retry_after(error)
            queue.free_at = max(queue.free_at, until)
            before, since = method.refused
            if not channel or (before not in {"", channel} and since > now):
                # Not only this channel: the workspace makes too many calls. Calls refused together slow it down once.
                if method.held_until <= now:
                    method.spacing = min(max(method.spacing * SLOWING, FIRST_SECONDS), SLOWEST_SECONDS)
                method.held_until = max(method.held_until, until)
                method.free_at = max(method.free_at, until)
            method.refused = (channel, until)
            return True
        if is_server_error(error) and status(error) < 500:
            queue.free_at = now + self.timeouts.backoff(tries, self._rng)
            return tries < SERVER_ERROR_TRIES
        if isinstance(error, NETWORK) or status(error) >= 500:
            method.failures += 1
            method.free_at = max(method.free_at, now + self.timeouts.backoff(method.failures, self._rng))
            return True
        return False

    async def _until(self, deadline: float, *queues: ChannelQueue | MethodLimit) -> None:
        """Wait until all these queues are free. Raises NotPosted where that is after the deadline."""
        while (free_at := max(queue.free_at for queue in queues)) > (now := self._now()):
            if free_at > deadline:
                raise NotPosted("Slack's rate limits do not allow a call before it would be too late.")
            await asyncio.sleep(free_at - now)

    def _queue(self, channel: str) -> ChannelQueue:
        if len(self._queues) > QUEUES:
            now = self._now()
            self._queues = {name: queue for name, queue in self._queues.items() if queue.waiting or queue.free_at > now}
        return self._queues.setdefault(channel, ChannelQueue())

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def is_server_error(error: BaseException) -> bool:
    """Whether Slack reports an error of its own, or answers with something other than its JSON."""
    return code(error) in SERVER_ERRORS or (status(error) == 200 and not code(error))


def is_temporary(error: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    return isinstance(error, NETWORK) or is_rate_limited(error) or is_server_error(error) or status(error) >= 500


def is_rate_limited(error: BaseException) -> bool:
    """Whether Slack refuses for the time being because of its rate limits."""
    return status(error) == 429 or code(error) in {"ratelimited", "rate_limited"}


def retry_after(error: BaseException) -> float:
    """Seconds that Slack asks to wait; 1 where it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    told = next((value for name, value in headers.items() if name.lower() == "retry-after"), "1")
    with suppress(ValueError, TypeError):
        return min(max(float(told), 0.05), LONGEST_LIMIT_SECONDS)
    return 1.0


def _may_have_arrived(error: BaseException) -> bool:
    """Whether a failed call may have been executed: it was neither refused nor failed to connect."""
    if isinstance(error, SlackClientError):
        return status(error) >= 500 or is_server_error(error)
    return not isinstance(error, aiohttp.ClientConnectorError)
