"""The engine's port: one thread runs the batch, while adapters are loaded and unloaded.

Only that thread touches caches, the batch and its counters. Adapters are read on other threads and passed to it
complete. Computes nothing itself.
"""

import asyncio
import logging
import secrets
import threading
import time
from collections import OrderedDict, abc, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from core.errors import NumericalError
from core.generator import NOT_FINITE, Adapter, Candidate, Completion, GeneratorStatus, Sampling, validate
from core.generator.chat_template import ChatTemplate
from core.generator.engine.kv_cache import KVCachePool
from core.generator.engine.lora import Lora, Site, read_lora
from core.generator.engine.memory import return_free_memory
from core.generator.engine.model import Model
from core.generator.engine.scheduler import Scheduler, Sequence, room_for
from core.generator.engine.tokenizer import Tokenizer
from core.generator.persona import with_persona
from core.generator.request_queue import Request, RequestQueue, candidates_of, tokenized

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    max_batch: int
    """Requests that are answered at once."""
    queue_limit: int
    """Requests that may wait meanwhile."""
    max_adapters: int
    """Adapters in memory at once; the least recently used one is dropped, and read again when it is needed."""
    prefill_chunk: int
    """Tokens of a prompt computed in one step while other requests generate."""
    idle_seconds: float
    """How long keys and values are kept for a silent conversation."""


@dataclass(slots=True, kw_only=True, eq=False)
class _EngineRequest(Request):
    lora: Lora | None
    conversation: str | None
    sequences: list[Sequence] = field(default_factory=list)
    """Its sequences once it runs: one per candidate."""


class Engine:
    """Implements `core.generator.Generator`; `load` in this package builds one."""

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        pool: KVCachePool,
        *,
        name: str,
        device: str,
        fingerprint: str,
        biases: Mapping[str, Tensor],
        weights: Callable[[Site], Tensor],
        limits: EngineLimits,
        advice: str = "",
        template: ChatTemplate | None = None,
        fresh_seed: Callable[[], int] = lambda: secrets.randbits(48),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._tokenizer, self._limits = model, tokenizer, limits
        self._name, self._device, self._fingerprint, self._advice = name, device, fingerprint, advice
        self._biases, self._weights, self._template = biases, weights, template
        self._fresh_seed, self._clock = fresh_seed, clock
        self._pool = pool
        self._scheduler = Scheduler(model=model, pool=pool, tokenizer=tokenizer, chunk=limits.prefill_chunk)
        self._requests: RequestQueue[_EngineRequest] = RequestQueue(limit=limits.queue_limit)
        self._changed = self._requests.changed
        self._loras: OrderedDict[str, Lora] = OrderedDict()
        self._dropped: deque[Lora] = deque()
        self._reading = threading.Lock()
        self._completed = self._generated = self._cached = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # the port

    @property
    def model(self) -> Model:
        """For benchmarks and tests that read logits while nothing runs."""
        return self._model

    @property
    def cache_used(self) -> int:
        """Bytes of all keys and values now."""
        return self._pool.used

    @property
    def fingerprint(self) -> str:
        """Of the base model, for cards (`core.adapters.validation`)."""
        return self._fingerprint

    @property
    def context_length(self) -> int:
        return self._model.config.context

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text))

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
        lora = None
        if adapter is not None:
            lora = self._loaded(adapter) or await asyncio.to_thread(self._read, adapter)
        limit = self.context_length - room_for(sampling, self.context_length)

        def encode() -> list[int]:
            if lora is None and self._template is not None:
                return self._template.encode(prompt, persona, limit)
            framed = with_persona(prompt, persona, budget=limit, count=self.count_tokens) if persona else prompt
            return self._tokenizer.prompt(framed, limit)

        request = _EngineRequest(
            prompt=await tokenized(prompt, encode),
            sampling=sampling,
            seed=self._fresh_seed() if sampling.seed is None else sampling.seed,
            lora=lora,
            conversation=conversation,
            arrived=arrived,
        )
        return await self._requests.answer(request)

    async def load(self, adapter: Adapter) -> None:
        self._requests.check_open()
        if self._loaded(adapter) is None:
            await asyncio.to_thread(self._read, adapter)

    async def unload(self, adapter_id: str) -> None:
        with self._changed:
            lora = self._loras.pop(adapter_id, None)
            if lora is not None:
                self._dropped.append(lora)
                self._changed.notify()

    def status(self) -> GeneratorStatus:
        with self._changed:
            adapters = tuple(sorted(self._loras))
        return GeneratorStatus(
            model=self._name,
            device=self._device,
            queued=len(self._requests.waiting),
            running=len(self._requests.running),
            completed=self._completed,
            tokens=self._generated,
            cached_tokens=self._cached,
            adapters=adapters,
            advice=self._advice,
        )

    async def close(self) -> None:
        await self._requests.close(self._thread)

    # on the callers' side

    def _loaded(self, adapter: Adapter) -> Lora | None:
        with self._changed:
            lora = self._loras.get(adapter.id)
            if lora is None or lora.path != adapter.path:
                return None
            self._loras.move_to_end(adapter.id)
            return lora

    def _read(self, adapter: Adapter) -> Lora:
        with self._reading:  # two requests for the same new adapter read it once
            lora = self._loaded(adapter)
            if lora is not None:
                return lora
            lora = read_lora(adapter, self._model.config, self._fingerprint, self._biases, self._weights)
            with self._changed:
                old = self._loras.pop(adapter.id, None)
                self._loras[adapter.id] = lora
                if old is None and len(self._loras) > self._limits.max_adapters:
                    _, old = self._loras.popitem(last=False)
                if old is not None:
                    self._dropped.append(old)
            return lora

    # on the engine's thread

    def _run(self) -> None:
        while self._await_work():
            try:
                self._answer_finished()
                self._admit()
                self._generated += self._scheduler.step()
                self._answer_finished()
            except Exception as error:
                log.exception("generation failed; %d requests fail with it", len(self._requests.running))
                self._fail_running(error)
        self._pool.clear()

    def _await_work(self) -> bool:
        """Sleep until there is something to do; False when the thread is to end."""
        with self._changed:
            while not (self._requests.waiting or self._requests.running):
                self._free_dropped()
                if self._requests.closing:
                    return False
                if not self._changed.wait(self._limits.idle_seconds / 2):
                    self._expire()
            self._free_dropped()
            return True

    def _expire(self) -> None:
        """Free caches that have not been used for a while."""
        if self._pool.expire(self._limits.idle_seconds):
            if not len(self._pool):
                self._model.release()
            return_free_memory()

    def _free_dropped(self) -> None:
        while self._dropped:
            self._pool.drop(self._dropped.popleft())

    def _admit(self) -> None:
        """Add waiting requests to the batch, in order, as long as there is memory."""
        waiting, running = self._requests.waiting, self._requests.running
        while len(running) < self._limits.max_batch:
            with self._changed:
                request = waiting[0] if waiting else None
            if request is None:
                return
            try:
                if not self._join(request):
                    return  # until a running request ends
            except Exception as error:
                log.exception("a request could not be started; it fails, the others continue")
                self._release(request)
                request.fail(error)
            else:
                running.append(request)
            with self._changed:
                if request in waiting:  # it was not cancelled meanwhile
                    waiting.remove(request)

    def _join(self, request: _EngineRequest) -> bool:
        """Begin a request's sequences; False while there is no memory for all of them."""
        leader = self._scheduler.join(
            request.prompt,
            sampling=request.sampling,
            seed=request.seed,
            lora=request.lora,
            conversation=request.conversation,
        )
        if leader is None:
            return False
        request.sequences.append(leader)
        for seed in request.seeds[1:]:
            candidate = self._scheduler.candidate(leader, seed=seed)
            if candidate is None and self._requests.running:
                self._release(request)
                return False  # the number of candidates must not depend on other requests
            if candidate is None:
                break  # alone, and still not enough memory for all
            request.sequences.append(candidate)
        return True

    def _release(self, request: _EngineRequest) -> None:
        """End a request's sequences; the first one's keys and values are kept for the conversation's next turn."""
        for sequence in request.sequences:
            sequence.conversation = request.conversation if sequence is request.sequences[0] else None
            self._scheduler.leave(sequence)
        request.sequences.clear()

    def _answer_finished(self) -> None:
        """Answer finished requests, drop cancelled ones."""
        for request in list(self._requests.running):
            cancelled = request.future.cancelled()
            if not cancelled and any(sequence.finish is None for sequence in request.sequences):
                continue
            first, candidates = request.sequences[0], () if cancelled else self._candidates(request.sequences)
            self._requests.running.remove(request)
            self._release(request)
            if cancelled:
                continue
            if not candidates:
                request.fail(NumericalError(NOT_FINITE))
                continue
            self._completed += 1
            self._cached += first.reused
            request.answer(
                Completion(
                    candidates=candidates,
                    prompt_tokens=first.prompt_tokens,
                    new_tokens=len(first.new_tokens),
                    seconds=self._clock() - request.arrived,
                    adapter=first.lora.id if first.lora else None,
                    seed=request.seed,
                )
            )

    def _candidates(self, sequences: abc.Sequence[Sequence]) -> tuple[Candidate, ...]:
        """The candidates, without those whose numbers were not finite."""
        whole = [one for one in sequences if one.finish != "damaged"]
        return candidates_of(
            [(self._scheduler.text(one), "length" if one.finish == "length" else "stop") for one in whole],
            lambda places: self._scheduler.information([whole[place] for place in places]),
        )

    def _fail_running(self, error: Exception) -> None:
        """A step failed: fail every request in it and keep none of their caches; later requests may succeed."""
        broken = list(self._requests.running)
        self._requests.running.clear()
        for request in broken:
            request.conversation = None
            request.sequences = [sequence for sequence in request.sequences if sequence in self._scheduler.sequences]
            self._release(request)
            request.fail(error)
