"""The worker thread, which alone touches the model, and the port in front of it.

Requests join and leave the running batch between two tokens. Adapters are read and checked on other threads and put
into the model between two tokens as well. Nothing here touches a tensor.
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

import torch

from core.errors import GeneratorError, ModelError, Person2Error, Unavailable
from core.generator import STOPPED, Adapter, Candidate, Completion, GeneratorStatus, Sampling, validate
from core.generator.persona import with_persona
from core.generator.request_queue import Request, RequestQueue, candidates_of, tokenized
from core.generator.transformers.adapter_pool import AdapterKey, AdapterPool, Prepared, key_of, prepare
from core.generator.transformers.decoding import Batch, Row, make_row
from core.generator.transformers.loader import Base, load_base

log = logging.getLogger(__name__)

MAX_BATCH = 16
QUEUE_LIMIT = 64
"""Requests that may wait: at a second per reply and 16 at once, the last one waits about four seconds."""
MAX_ADAPTERS = 32
"""In the model at once; at rank 8 one costs GPT-2 small about 5 MB."""


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

    `base` is a folder or a hub name; the network is used only for a name that is not in the local cache.
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
class _TransformersRequest(Request):
    adapter: Adapter | None
    key: AdapterKey | None
    rows: list[Row] = field(default_factory=list)
    """Its rows once it runs: one per candidate."""


@dataclass(slots=True, kw_only=True, eq=False)
class _WorkerJob:
    """Something for the worker thread to do between two tokens."""

    do: Callable[[], None]
    future: "Future[None]" = field(default_factory=Future)


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
        self._fresh_seed = fresh_seed
        self._clock = clock
        self._requests: RequestQueue[_TransformersRequest] = RequestQueue(limit=queue_limit)
        self._changed = self._requests.changed
        self._jobs: deque[_WorkerJob] = deque()
        self._unloading: set[AdapterKey] = set()
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
        self._requests.check_room()
        key = self._adapters.known(key_of(adapter)) if adapter else None
        if adapter is not None and key is not None and not self._adapters.has(key):
            key = await self._fetch(adapter)
        limit = self.context_length - min(sampling.max_new_tokens, self.context_length - 1)

        def encode() -> list[int]:
            if adapter is None and self._base.template is not None:
                ids = self._base.template.encode(prompt, persona, limit)
                start = list(self._base.start)
                return ids[len(start) :] if ids[: len(start)] == start else ids  # every row starts with it
            framed = with_persona(prompt, persona, budget=limit, count=self.count_tokens) if persona else prompt
            return self._base.encode(framed)

        request = _TransformersRequest(
            prompt=await tokenized(prompt, encode),
            sampling=sampling,
            seed=self._fresh_seed() if sampling.seed is None else sampling.seed,
            adapter=adapter,
            key=key,
            arrived=arrived,
        )
        return await self._requests.answer(request)

    async def load(self, adapter: Adapter) -> None:
        self._requests.check_open()
        key = self._adapters.known(key_of(adapter))
        if not self._adapters.has(key) or key in self._unloading:
            await self._fetch(adapter)

    async def unload(self, adapter_id: str) -> None:
        if not self._requests.closing:
            await self._run_between_steps(lambda: self._unloading.update(self._adapters.keys(adapter_id)))

    def status(self) -> GeneratorStatus:
        return GeneratorStatus(
            model=self._base.name,
            device=f"{self._base.model.device} {str(self._base.model.dtype).removeprefix('torch.')}",
            queued=len(self._requests.waiting),
            running=len(self._requests.running),
            completed=self._completed,
            tokens=self._tokens,
            adapters=self._adapters.ids(),
        )

    async def close(self) -> None:
        await self._requests.close(self._thread)

    # on the callers' side

    async def _fetch(self, adapter: Adapter) -> AdapterKey:
        prepared = await asyncio.to_thread(prepare, adapter, self._base)
        await self._run_between_steps(lambda: self._put(prepared))
        return prepared.key

    async def _run_between_steps(self, do: Callable[[], None]) -> None:
        job = _WorkerJob(do=do)
        with self._changed:
            self._requests.check_open()
            self._jobs.append(job)
            self._changed.notify()
        await asyncio.wrap_future(job.future)

    # on the worker thread

    def _run(self) -> None:
        while self._await_work():
            self._handle()
            try:
                with torch.inference_mode():
                    self._admit()
                    self._answer_finished()
                    self._batch.step()
                    self._answer_finished()
            except Exception as error:
                log.exception("generation failed; %d requests fail with it", len(self._requests.running))
                self._fail_running(error)
        for job in self._jobs:
            with suppress(InvalidStateError):  # the caller is gone
                job.future.set_exception(Unavailable(STOPPED))

    def _await_work(self) -> bool:
        """Sleep until there is something to do; False when the thread is to end."""
        requests = self._requests
        with self._changed:
            while not (requests.waiting or requests.running or self._jobs or self._ready_to_unload()):
                if requests.closing:
                    return False
                self._changed.wait()
            return True

    def _handle(self) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            with suppress(InvalidStateError):  # the caller is gone
                try:
                    job.do()
                except Person2Error as error:
                    job.future.set_exception(error)
                except Exception as error:
                    log.exception("an adapter could not be loaded or unloaded")
                    failed = GeneratorError("the generator could not load or unload the adapter: see the log")
                    failed.__cause__ = error
                    job.future.set_exception(failed)
                else:
                    job.future.set_result(None)
        for key in self._ready_to_unload():
            self._unloading.discard(key)
            self._adapters.remove(key)

    def _put(self, prepared: Prepared) -> None:
        self._unloading.discard(prepared.key)
        self._adapters.put(prepared, in_use=self._in_use())

    def _in_use(self) -> set[AdapterKey]:
        with self._changed:
            requests = (*self._requests.running, *self._requests.waiting)
            return {request.key for request in requests if request.key is not None}

    def _ready_to_unload(self) -> list[AdapterKey]:
        return [key for key in self._unloading if key not in self._in_use()] if self._unloading else []

    def _admit(self) -> None:
        """Add waiting requests to the batch, as many as there is room for."""
        taken: list[_TransformersRequest] = []
        with self._changed:
            while self._requests.waiting and len(self._requests.running) < self._max_batch:
                taken.append(self._requests.waiting.popleft())
                self._requests.running.append(taken[-1])  # before anything can fail: running ones are answered
        for request in taken:
            try:
                request.rows = self._rows(request)
            except Exception as error:
                if not isinstance(error, Person2Error):
                    log.exception("a request could not be started; it fails, the others continue")
                request.fail(_sentence(error))
        self._requests.running = [request for request in self._requests.running if request.rows]
        self._batch.admit([row for request in taken if not request.future.done() for row in request.rows])

    def _rows(self, request: _TransformersRequest) -> list[Row]:
        if request.key is not None and request.adapter is not None and not self._adapters.has(request.key):
            # It was unloaded in favour of others while this request waited.
            prepared = prepare(request.adapter, self._base)
            self._adapters.put(prepared, in_use=self._in_use())
            request.key = prepared.key
        adapter_name = self._adapters.name(request.key)
        return [
            make_row(self._base, request.prompt, sampling=request.sampling, seed=seed, adapter_name=adapter_name)
            for seed in request.seeds
        ]

    def _answer_finished(self) -> None:
        """Answer requests that finished or failed, drop cancelled ones."""
        running = self._requests.running
        over = [r for r in running if r.future.done() or all(row.error or row.finish for row in r.rows)]
        self._requests.running = [request for request in running if request not in over]
        gone = [row for request in over for row in request.rows]
        gone += [row for request in self._requests.running for row in request.rows if row.error or row.finish]
        self._batch.drop(gone)
        for request in over:
            if request.future.done():
                continue
            failed = [row.error for row in request.rows if row.error is not None]
            if len(failed) == len(request.rows):
                if not isinstance(failed[0], Person2Error):
                    log.error("a request failed", exc_info=failed[0])
                request.fail(_sentence(failed[0]))
            else:
                self._completed += 1
                self._tokens += sum(each.new_tokens for each in request.rows)
                request.answer(self._completion(request))

    def _completion(self, request: _TransformersRequest) -> Completion:
        return Completion(
            candidates=self._candidates([row for row in request.rows if row.error is None]),
            prompt_tokens=request.rows[0].prompt_tokens,
            new_tokens=request.rows[0].new_tokens,
            seconds=self._clock() - request.arrived,
            adapter=request.adapter.id if request.adapter else None,
            seed=request.seed,
        )

    def _candidates(self, rows: list[Row]) -> tuple[Candidate, ...]:
        """The candidates, without those that failed."""
        return candidates_of(
            [(row.text, row.finish or "length") for row in rows],
            lambda places: self._adapters.information([rows[place] for place in places]),
        )

    def _fail_running(self, error: Exception) -> None:
        broken, self._requests.running = self._requests.running, []
        self._batch.clear()
        for request in broken:
            request.fail(_sentence(error))


def _sentence(error: Exception) -> Exception:
    """The error itself, except for the one failure that an operator can do something about."""
    if not isinstance(error, torch.OutOfMemoryError):
        return error
    shown = GeneratorError("there is not enough memory for this many conversations at once: lower PERSON2_MAX_BATCH")
    shown.__cause__ = error
    return shown
