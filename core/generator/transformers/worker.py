"""The thread that owns the model, the queue in front of it, and the port everybody else sees.

Requests join the running batch and leave it between two tokens. Loading an adapter happens between tokens too, after
it was read and judged elsewhere. Nothing but the owner thread touches the model; nothing here touches a tensor.
"""

import asyncio
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from core.errors import GeneratorError, ModelError, Overloaded, Person2Error, Unavailable
from core.generator import SEED_STEP, Adapter, Candidate, Completion, GeneratorStatus, Sampling, validate
from core.generator.persona import with_persona
from core.generator.transformers.adapter_pool import AdapterPool, Key, Prepared, key_of, prepare
from core.generator.transformers.decoding import Batch, Row, make_row
from core.generator.transformers.loader import Base, load_base

log = logging.getLogger(__name__)

MAX_BATCH = 16
QUEUE_LIMIT = 64
"""Requests that may wait: at a second a reply and 16 at once, the last one waits about four seconds."""
MAX_ADAPTERS = 32
"""In the model at once; at rank 8 one costs GPT-2 small about 5 MB."""
LONG_PROMPT = 4_000
"""Characters from which a prompt is split into tokens beside the event loop, to keep it free."""


def load(
    base: str | Path,
    *,
    device: str = "auto",
    max_batch: int = MAX_BATCH,
    queue_limit: int = QUEUE_LIMIT,
    max_adapters: int = MAX_ADAPTERS,
    templated: bool = True,
    fresh_seed: Callable[[], int] = lambda: secrets.randbits(48),
    clock: Callable[[], float] = time.monotonic,
) -> "TransformersGenerator":
    """A generator ready to use. Blocks while it reads the model. Raises ModelError.

    `base` is a folder or a hub name, the network is touched only for a name that is not in the local cache.
    Without `templated` a base with a chat template is prompted as one that has none. `fresh_seed` seeds requests that
    bring no seed; `clock` counts seconds.
    """
    loaded = load_base(base, device=device)
    return TransformersGenerator(
        loaded if templated else replace(loaded, template=None),
        max_batch=max_batch,
        queue_limit=queue_limit,
        max_adapters=max_adapters,
        fresh_seed=fresh_seed,
        clock=clock,
    )


@dataclass(slots=True, kw_only=True, eq=False)
class _Request:
    ids: list[int]
    sampling: Sampling
    seed: int
    adapter: Adapter | None
    key: Key | None
    arrived: float
    future: "Future[Completion]"
    rows: list[Row] = field(default_factory=list)
    """Those that run for it: one, or `Sampling.best_of` of them."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Order:
    """Something for the owner to do between two tokens."""

    do: Callable[[], None]
    future: "Future[None]"


class TransformersGenerator:
    """`core.generator.Generator` over transformers and peft. Build it with `load`."""

    def __init__(
        self,
        base: Base,
        *,
        max_batch: int = MAX_BATCH,
        queue_limit: int = QUEUE_LIMIT,
        max_adapters: int = MAX_ADAPTERS,
        fresh_seed: Callable[[], int] = lambda: secrets.randbits(48),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if min(max_batch, queue_limit, max_adapters) < 1:
            raise ModelError(
                "PERSON2_MAX_BATCH, PERSON2_QUEUE_LIMIT and the number of adapters should each be 1 or more"
            )
        self._base = base
        self._adapters = AdapterPool(base, limit=max_adapters)
        self._batch = Batch(base=base, forward=self._adapters.forward)
        self._max_batch = max_batch
        self._queue_limit = queue_limit
        self._fresh_seed = fresh_seed
        self._clock = clock
        self._changed = threading.Condition()
        self._queue: deque[_Request] = deque()
        self._running: list[_Request] = []
        self._orders: deque[_Order] = deque()
        self._doomed: set[Key] = set()
        self._closing = False
        self._completed = 0
        self._tokens = 0
        self._thread = threading.Thread(target=self._run, name="transformers", daemon=True)
        self._thread.start()

    # the port

    @property
    def context_length(self) -> int:
        return self._base.context_length

    @property
    def fingerprint(self) -> str:
        """Of the base model, for cards."""
        return self._base.fingerprint

    def count_tokens(self, text: str) -> int:
        return len(self._base.encode(text))

    async def generate(
        self,
        prompt: str,
        *,
        sampling: Sampling,
        adapter: Adapter | None = None,
        conversation: str | None = None,
        persona: str = "",
    ) -> Completion:
        arrived = self._clock()
        validate(sampling)
        self._admissible()
        key = self._adapters.known(key_of(adapter)) if adapter else None
        if adapter is not None and key is not None and not self._adapters.has(key):
            key = await self._fetch(adapter)
        limit = self.context_length - min(sampling.max_new_tokens, self.context_length - 1)

        def encode() -> list[int]:
            if adapter is None and self._base.template is not None:
                ids = self._base.template.encode(prompt, persona, limit)
                start = list(self._base.start)
                return ids[len(start) :] if ids[: len(start)] == start else ids  # each row begins with it
            framed = with_persona(prompt, persona, budget=limit, count=self.count_tokens) if persona else prompt
            return self._base.encode(framed)

        ids = encode() if len(prompt) <= LONG_PROMPT else await asyncio.to_thread(encode)
        request = _Request(
            ids=ids,
            sampling=sampling,
            seed=self._fresh_seed() if sampling.seed is None else sampling.seed,
            adapter=adapter,
            key=key,
            arrived=arrived,
            future=Future(),
        )
        with self._changed:
            self._admissible()
            self._queue.append(request)
            self._changed.notify()
        try:
            return await asyncio.wrap_future(request.future)
        finally:
            self._withdraw(request)

    async def load(self, adapter: Adapter) -> None:
        self._open()
        key = self._adapters.known(key_of(adapter))
        if not self._adapters.has(key) or key in self._doomed:
            await self._fetch(adapter)

    async def unload(self, adapter_id: str) -> None:
        if not self._closing:
            await self._order(lambda: self._doomed.update(self._adapters.keys(adapter_id)))

    def status(self) -> GeneratorStatus:
        return GeneratorStatus(
            model=self._base.name,
            device=f"{self._base.model.device} {str(self._base.model.dtype).removeprefix('torch.')}",
            queued=len(self._queue),
            running=len(self._running),
            completed=self._completed,
            tokens=self._tokens,
            adapters=self._adapters.ids(),
        )

    async def close(self) -> None:
        with self._changed:
            self._closing = True
            waiting = list(self._queue)
            self._queue.clear()
            self._changed.notify()
        for request in waiting:
            _fail(request.future, Unavailable(_STOPPED))
        await asyncio.to_thread(self._thread.join)

    # on the callers' side

    def _open(self) -> None:
        if self._closing:
            raise Unavailable(_STOPPED)

    def _admissible(self) -> None:
        self._open()
        if len(self._queue) >= self._queue_limit:
            raise Overloaded(f"{len(self._queue)} people are waiting for a reply already: please try again in a moment")

    async def _fetch(self, adapter: Adapter) -> Key:
        prepared = await asyncio.to_thread(prepare, adapter, self._base)
        await self._order(lambda: self._put(prepared))
        return prepared.key

    def _withdraw(self, request: _Request) -> None:
        """Free the place of a request whose asker is gone; a running one is dropped after the current token."""
        request.future.cancel()
        with self._changed:
            if not request.rows and request in self._queue:
                self._queue.remove(request)

    async def _order(self, do: Callable[[], None]) -> None:
        order = _Order(do=do, future=Future())
        with self._changed:
            self._open()
            self._orders.append(order)
            self._changed.notify()
        await asyncio.wrap_future(order.future)

    # on the owner's thread

    def _run(self) -> None:
        while self._await_work():
            self._handle()
            try:
                with torch.inference_mode():
                    self._admit()
                    self._settle()
                    self._batch.step()
                    self._settle()
            except Exception as error:
                log.exception("generation failed; %d requests fail with it", len(self._running))
                self._break(error)
        for order in self._orders:
            _fail(order.future, Unavailable(_STOPPED))

    def _await_work(self) -> bool:
        """Sleep until there is something to do; False when it is time to go."""
        with self._changed:
            while not (self._queue or self._running or self._orders or self._doomed_free()):
                if self._closing:
                    return False
                self._changed.wait()
            return True

    def _handle(self) -> None:
        while self._orders:
            order = self._orders.popleft()
            try:
                order.do()
            except Person2Error as error:
                _fail(order.future, error)
            except Exception as error:
                log.exception("an order to the generator failed")
                _fail(order.future, GeneratorError("the generator could not do that: see the log"), error)
            else:
                _resolve(order.future, None)
        for key in self._doomed_free():
            self._doomed.discard(key)
            self._adapters.remove(key)

    def _put(self, prepared: Prepared) -> None:
        self._doomed.discard(prepared.key)
        self._adapters.put(prepared, in_use=self._in_use())

    def _in_use(self) -> set[Key]:
        with self._changed:
            return {request.key for request in (*self._running, *self._queue) if request.key is not None}

    def _doomed_free(self) -> list[Key]:
        return [key for key in self._doomed if key not in self._in_use()] if self._doomed else []

    def _admit(self) -> None:
        """Take as many waiting requests as there is room for into the batch."""
        with self._changed:
            taken: list[_Request] = []
            while self._queue and len(self._running) + len(taken) < self._max_batch:
                taken.append(self._queue.popleft())
            self._running += taken  # before anything can fail: what is here is answered
        for request in taken:
            try:
                request.rows = self._rows(request)
            except Exception as error:
                _fail(request.future, _sentence(error), error)
        self._running = [request for request in self._running if request.rows]
        self._batch.admit([row for request in taken if not request.future.done() for row in request.rows])

    def _rows(self, request: _Request) -> list[Row]:
        if request.key is not None and request.adapter is not None and not self._adapters.has(request.key):
            # It gave way to others while this request waited.
            prepared = prepare(request.adapter, self._base)
            self._adapters.put(prepared, in_use=self._in_use())
            request.key = prepared.key
        voice = self._adapters.name(request.key)
        seeds = (request.seed + number * SEED_STEP for number in range(request.sampling.best_of))
        return [make_row(self._base, request.ids, sampling=request.sampling, seed=seed, voice=voice) for seed in seeds]

    def _settle(self) -> None:
        """Answer what is finished or failed, forget what was cancelled."""
        over = [r for r in self._running if r.future.done() or all(row.error or row.finish for row in r.rows)]
        self._running = [request for request in self._running if request not in over]
        gone = [row for request in over for row in request.rows]
        gone += [row for request in self._running for row in request.rows if row.error or row.finish]
        self._batch.drop(gone)
        for request in over:
            if request.future.done():
                continue
            failed = [row.error for row in request.rows if row.error is not None]
            if len(failed) == len(request.rows):
                _fail(request.future, _sentence(failed[0]), failed[0])
            else:
                self._completed += 1
                self._tokens += sum(each.new_tokens for each in request.rows)
                _resolve(request.future, self._completion(request))

    def _candidates(self, rows: list[Row]) -> tuple[Candidate, ...]:
        """What was drawn, less what failed; scored where there is something to choose among."""
        speaking = [number for number, row in enumerate(rows) if row.error is None and row.text.strip()]
        scores: dict[int, float] = {}
        if len(speaking) > 1:
            found = self._adapters.information([rows[number] for number in speaking])
            scores = dict(zip(speaking, found, strict=True))
        return tuple(
            Candidate(text=row.text, finish=row.finish or "length", information=scores.get(number))
            for number, row in enumerate(rows)
            if row.error is None
        )

    def _completion(self, request: _Request) -> Completion:
        return Completion(
            candidates=self._candidates(request.rows),
            prompt_tokens=request.rows[0].prompt_tokens,
            new_tokens=request.rows[0].new_tokens,
            seconds=self._clock() - request.arrived,
            adapter=request.adapter.id if request.adapter else None,
            seed=request.seed,
        )

    def _break(self, error: Exception) -> None:
        broken, self._running = self._running, []
        self._batch.clear()
        for request in broken:
            _fail(request.future, _sentence(error), error)


_STOPPED = "the generator is stopped: start the program again"


def _sentence(error: Exception) -> Person2Error:
    if isinstance(error, Person2Error):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return GeneratorError("there is not enough memory for this many conversations at once: lower PERSON2_MAX_BATCH")
    return GeneratorError("a reply could not be generated: try again, and see the log if it happens often")


def _fail(future: "Future[Any]", error: Exception, cause: Exception | None = None) -> None:
    if cause is not None and cause is not error:
        log.error("a request failed", exc_info=cause)
        error.__cause__ = cause
    with suppress(InvalidStateError):  # the asker is gone
        future.set_exception(error)


def _resolve(future: "Future[Any]", value: Any) -> None:
    with suppress(InvalidStateError):  # the asker is gone
        future.set_result(value)
