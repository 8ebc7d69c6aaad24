"""Handling payloads once each, and acknowledging them when their content is stored.

Knows ids and tasks; knows no event. Slack redelivers payloads that were not acknowledged, and sometimes others.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from bots.slack.errors import reason
from bots.slack.sending import POST_ERRORS
from core.bounded_dict import BoundedDict
from core.errors import Person2Error, StorageError
from core.failures import log_failure
from core.notices import BROKEN

log = logging.getLogger(__name__)

Stored = Callable[[], object]
"""Called once a payload's content is stored."""

Work = Callable[[Stored], Coroutine[Any, Any, None]]
"""Handles a payload; when it ends, the payload counts as stored."""

Notify = Callable[[str], Awaitable[object]]
"""Shows one sentence to the member concerned."""


class Intake:
    def __init__(self, *, watch: Callable[[BaseException], object] = lambda error: None) -> None:
        self._watch = watch
        """Called with every error from Slack: a revoked token ends the bot."""
        self._known: BoundedDict[asyncio.Future[None]] = BoundedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, keys: Iterable[Hashable], work: Work, tell: Notify | None = None) -> "asyncio.Future[None]":
        """Begin the work, unless one of `keys` is known: then return the future of that payload.

        The future is done once the payload may be acknowledged. It fails with StorageError where the content could not
        be stored, and the next delivery of the payload begins again.
        """
        names = tuple(keys)
        for name in names:
            known = self._known.get(name)
            if known is not None:
                return known
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stored.add_done_callback(_seen)
        for name in names:
            self._known.put(name, stored)
        task = asyncio.create_task(self._run(work, stored, names, tell))
        self._tasks.add(task)  # the event loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)
        return stored

    async def idle(self) -> None:
        """Wait until no work is in progress."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self, seconds: float) -> None:
        """Let the work in progress finish for a while, then stop it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(
        self, work: Work, stored: "asyncio.Future[None]", names: tuple[Hashable, ...], tell: Notify | None
    ) -> None:
        def done() -> None:
            if not stored.done():
                stored.set_result(None)

        try:
            await work(done)
        except StorageError as error:
            log_failure(log, error, "no answer on Slack")
            if not stored.done():
                for name in names:
                    self._known.pop(name)
                stored.set_exception(error)
            await self._tell(tell)
        except POST_ERRORS as error:
            log.error("Slack did not accept an answer: %s", reason(error))  # noqa: TRY400 - its traceback is the library's
            self._watch(error)
        except Person2Error as error:
            log_failure(log, error, "no answer on Slack")
            await self._tell(tell)
        except Exception as error:
            log_failure(log, error, "no answer on Slack")
            await self._tell(tell)
        finally:
            done()

    async def _tell(self, tell: Notify | None) -> None:
        """Tell the member that something went wrong; details are only in the log."""
        if tell is None:
            return
        try:
            await tell(BROKEN)
        except POST_ERRORS as error:
            log.warning("the member could not be told either: %s", reason(error))
            self._watch(error)


def _seen(stored: "asyncio.Future[None]") -> None:
    """Keep asyncio from logging a failure that nobody waits for."""
    if not stored.cancelled():
        stored.exception()


@asynccontextmanager
async def acknowledged(
    stored: Stored, thinking: AbstractAsyncContextManager[object] | None = None
) -> AsyncIterator[None]:
    """`thinking`, after `stored` was called: once a reply is being composed, its question is stored."""
    stored()
    async with thinking or nullcontext():
        yield
