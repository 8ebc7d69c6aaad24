"""Requests on their way to the thread that answers them: those that wait, at most so many, and those that run.

What `engine` and `transformers` share. Knows futures and who may come in; nothing of models, tokens or adapters.
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
"""Characters from which a prompt is split into tokens beside the event loop, to keep it free."""


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
        """One a candidate."""
        return [self.seed + number * SEED_STEP for number in range(self.sampling.best_of)]

    def answer(self, completion: Completion) -> None:
        with suppress(InvalidStateError):  # the asker is gone
            self.future.set_result(completion)

    def fail(self, error: Exception) -> None:
        """Tell the asker; what is no sentence for people is replaced by one, and stands behind it as its cause."""
        told = error
        if not isinstance(error, Person2Error):
            told = GeneratorError("a reply could not be generated: try again, and see the log if it happens often")
            told.__cause__ = error
        with suppress(InvalidStateError):  # the asker is gone
            self.future.set_exception(told)


R = TypeVar("R", bound=Request)


class RequestQueue(Generic[R]):
    """`changed` guards `waiting` and wakes the thread that answers; that thread alone changes `running`."""

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
        """Wait for the answer. A request that is cancelled leaves the queue at once; the thread drops one that runs."""
        with self.changed:
            self.check_room()
            self.waiting.append(request)
            self.changed.notify()
        try:
            return await asyncio.wrap_future(request.future)
        finally:
            request.future.cancel()
            with self.changed, suppress(ValueError):  # it runs, or is done
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
    """What `encode` makes of `prompt`; where that is long, beside the event loop."""
    return encode() if len(prompt) <= LONG_PROMPT else await asyncio.to_thread(encode)


def candidates_of(
    replies: Sequence[tuple[str, Literal["stop", "length"]]], information: Callable[[list[int]], list[float]]
) -> tuple[Candidate, ...]:
    """Replies as candidates. `information` scores those at the places it is given: the ones that say anything, where
    there are several to choose among."""
    speaking = [place for place, (text, _) in enumerate(replies) if text.strip()]
    scores = dict(zip(speaking, information(speaking), strict=True)) if len(speaking) > 1 else {}
    return tuple(
        Candidate(text=text, finish=finish, information=scores.get(place))
        for place, (text, finish) in enumerate(replies)
    )
