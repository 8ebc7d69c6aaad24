"""Requests to a worker thread: those that wait, up to a limit, and those that run.

Shared by `engine` and `transformers`. Knows futures; nothing of models, tokens or adapters.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from core.errors import GeneratorError, Person2Error, Unavailable
from core.generator import SEED_STEP, STOPPED, Candidate, Completion, Sampling, overloaded

LONG_PROMPT = 4_000
"""Characters from which on a prompt is tokenized on another thread, to keep the event loop free."""


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    prompt: list[int]
    """Token ids."""
    sampling: Sampling
    seed: int
    arrived: float
    """Seconds on the generator's clock."""
    future: "Future[Completion]" = field(default_factory=Future)

    @property
    def seeds(self) -> list[int]:
        """One per candidate."""
        return [self.seed + number * SEED_STEP for number in range(self.sampling.best_of)]

    def answer(self, completion: Completion) -> None:
        with suppress(InvalidStateError):  # the caller is gone
            self.future.set_result(completion)

    def fail(self, error: Exception) -> None:
        """Raise `error` at the caller; one that is not for people becomes the cause of a GeneratorError."""
        shown = error
        if not isinstance(error, Person2Error):
            shown = GeneratorError("a reply could not be generated: try again, and see the log if it happens often")
            shown.__cause__ = error
        with suppress(InvalidStateError):  # the caller is gone
            self.future.set_exception(shown)


R = TypeVar("R", bound=Request)


class RequestQueue(Generic[R]):
    """`changed` guards `waiting` and wakes the worker thread, which alone changes `running`."""

    def __init__(self, *, limit: int) -> None:
        self.changed = threading.Condition()
        self.waiting: deque[R] = deque()
        self.running: list[R] = []
        self.closing = False
        self._limit = limit

    def check_open(self) -> None:
        """Raises Unavailable after `close`."""
        if self.closing:
            raise Unavailable(STOPPED)

    def check_room(self) -> None:
        """Raises Unavailable after `close`, Overloaded where `limit` requests wait."""
        self.check_open()
        if len(self.waiting) >= self._limit:
            raise overloaded(len(self.waiting))

    async def answer(self, request: R) -> Completion:
        """Wait for the answer. A cancelled request leaves the queue at once, or is dropped by the worker if it runs."""
        with self.changed:
            self.check_room()
            self.waiting.append(request)
            self.changed.notify()
        try:
            return await asyncio.wrap_future(request.future)
        finally:
            request.future.cancel()
            with self.changed:
                if request in self.waiting:  # else it is running, or done
                    self.waiting.remove(request)

    async def close(self, thread: threading.Thread) -> None:
        """Refuse those that wait, and wait for `thread`, which finishes those that run."""
        with self.changed:
            self.closing = True
            refused = list(self.waiting)
            self.waiting.clear()
            self.changed.notify()
        for request in refused:
            request.fail(Unavailable(STOPPED))
        await asyncio.to_thread(thread.join)


async def tokenized(prompt: str, encode: Callable[[], list[int]]) -> list[int]:
    """The tokens that `encode` makes of `prompt`; on another thread where it is long."""
    return encode() if len(prompt) <= LONG_PROMPT else await asyncio.to_thread(encode)


def candidates_of(
    replies: Sequence[tuple[str, Literal["stop", "length"]]], information: Callable[[list[int]], list[float]]
) -> tuple[Candidate, ...]:
    """Replies as candidates. `information` scores the replies at the indices it is given: those that are not empty,
    where there are several."""
    speaking = [place for place, (text, _) in enumerate(replies) if text.strip()]
    scores = dict(zip(speaking, information(speaking), strict=True)) if len(speaking) > 1 else {}
    return tuple(
        Candidate(text=text, finish=finish, information=scores.get(place))
        for place, (text, finish) in enumerate(replies)
    )
