"""The port: a queue, the thread that owns the batch, and adapters that come and go meanwhile.

Requests are answered through futures; the thread alone touches caches, the batch and the counters it writes. Adapters
are read on other threads and handed over whole. Computes nothing itself.
"""

import asyncio
import logging
import secrets
import threading
import time
from collections import OrderedDict, abc, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from torch import Tensor

from core.errors import GeneratorError, NumericalError, Overloaded, Unavailable
from core.generator import SEED_STEP, Adapter, Candidate, Completion, GeneratorStatus, Sampling, validate
from core.generator.chat_template import ChatTemplate
from core.generator.engine.kv_cache import KVCachePool
from core.generator.engine.lora import Lora, Site, read_lora
from core.generator.engine.memory import give_back
from core.generator.engine.model import Model
from core.generator.engine.scheduler import Scheduler, Sequence, room_for
from core.generator.engine.tokenizer import Tokenizer
from core.generator.persona import with_persona

log = logging.getLogger(__name__)

LONG_PROMPT = 4_000
"""Characters from which a prompt is split into tokens beside the event loop, to keep it free."""
_STOPPED = "the generator is stopped: start the program again"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    max_batch: int
    """Requests that speak at once."""
    queue_limit: int
    """Requests that may wait behind them."""
    max_adapters: int
    """Adapters in memory at once; the least recently used gives way and is read again when it is wanted."""
    prefill_chunk: int
    """Tokens of a prompt read in one step while others speak."""
    idle_seconds: float
    """How long keys and values are kept for a conversation that says nothing."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Request:
    prompt: list[int]
    sampling: Sampling
    seed: int
    lora: Lora | None
    conversation: str | None
    arrived: float
    future: "Future[Completion]" = field(default_factory=Future)
    sequences: list[Sequence] = field(default_factory=list)
    """Those who speak for it once it runs: one, or `Sampling.best_of` of them."""


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
        self._changed = threading.Condition()
        self._queue: deque[_Request] = deque()
        self._running: list[_Request] = []
        self._loras: OrderedDict[str, Lora] = OrderedDict()
        self._gone: deque[Lora] = deque()
        self._reading = threading.Lock()
        self._closing = False
        self._completed = self._spoken = self._cached = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # the port

    @property
    def model(self) -> Model:
        """For benchmarks and tests that look at logits while nothing runs."""
        return self._model

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
        self._admissible()
        lora = None
        if adapter is not None:
            lora = self._known(adapter) or await asyncio.to_thread(self._read, adapter)
        limit = self.context_length - room_for(sampling, self.context_length)

        def encode() -> list[int]:
            if lora is None and self._template is not None:
                return self._template.encode(prompt, persona, limit)
            framed = with_persona(prompt, persona, budget=limit, count=self.count_tokens) if persona else prompt
            return self._tokenizer.prompt(framed, limit)

        ids = encode() if len(prompt) <= LONG_PROMPT else await asyncio.to_thread(encode)
        request = _Request(
            prompt=ids,
            sampling=sampling,
            seed=self._fresh_seed() if sampling.seed is None else sampling.seed,
            lora=lora,
            conversation=conversation,
            arrived=arrived,
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
        if self._known(adapter) is None:
            await asyncio.to_thread(self._read, adapter)

    async def unload(self, adapter_id: str) -> None:
        with self._changed:
            lora = self._loras.pop(adapter_id, None)
            if lora is not None:
                self._gone.append(lora)
                self._changed.notify()

    def status(self) -> GeneratorStatus:
        with self._changed:
            adapters = tuple(sorted(self._loras))
        return GeneratorStatus(
            model=self._name,
            device=self._device,
            queued=len(self._queue),
            running=len(self._running),
            completed=self._completed,
            tokens=self._spoken,
            cached_tokens=self._cached,
            adapters=adapters,
            advice=self._advice,
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
        if len(self._queue) >= self._limits.queue_limit:
            raise Overloaded(f"{len(self._queue)} people are waiting for a reply already: please try again in a moment")

    def _withdraw(self, request: _Request) -> None:
        """Free the place of a request whose asker is gone; a running one leaves after the current token."""
        request.future.cancel()
        with self._changed:
            if request in self._queue:
                self._queue.remove(request)

    def _known(self, adapter: Adapter) -> Lora | None:
        with self._changed:
            lora = self._loras.get(adapter.id)
            if lora is None or lora.path != adapter.path:
                return None
            self._loras.move_to_end(adapter.id)
            return lora

    def _read(self, adapter: Adapter) -> Lora:
        with self._reading:  # two requests that want the same new adapter read it once
            lora = self._known(adapter)
            if lora is not None:
                return lora
            lora = read_lora(adapter, self._model.config, self._fingerprint, self._biases, self._weights)
            with self._changed:
                old = self._loras.pop(adapter.id, None)
                self._loras[adapter.id] = lora
                if old is None and len(self._loras) > self._limits.max_adapters:
                    _, old = self._loras.popitem(last=False)
                if old is not None:
                    self._gone.append(old)
            return lora

    # on the engine's thread

    def _run(self) -> None:
        while self._await_work():
            try:
                self._answer_finished()
                self._admit()
                self._spoken += self._scheduler.step()
                self._answer_finished()
            except Exception as error:
                log.exception("generation failed; %d requests fail with it", len(self._running))
                self._fail_running(error)
        self._pool.clear()

    def _await_work(self) -> bool:
        """Sleep until there is something to do; False when it is time to go."""
        with self._changed:
            while not (self._queue or self._running):
                self._tidy()
                if self._closing:
                    return False
                if not self._changed.wait(self._limits.idle_seconds / 2):
                    self._expire()
            self._tidy()
            return True

    def _expire(self) -> None:
        """Give back what nobody has used for long."""
        if self._pool.expire(self._limits.idle_seconds):
            if not len(self._pool):
                self._model.release()
            give_back()

    def _tidy(self) -> None:
        while self._gone:
            self._pool.drop(self._gone.popleft())

    def _admit(self) -> None:
        """Take as many waiting requests as there is memory for into the batch, in order."""
        while len(self._running) < self._limits.max_batch:
            with self._changed:
                request = self._queue[0] if self._queue else None
            if request is None:
                return
            try:
                if not self._join(request):
                    return  # until one who speaks is done
            except Exception as error:
                log.exception("a request could not be started; it fails, the others continue")
                self._release(request)
                _fail(request.future, _failed(error))
            else:
                self._running.append(request)
            with self._changed:
                if request in self._queue:
                    self._queue.remove(request)

    def _join(self, request: _Request) -> bool:
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
        for number in range(1, request.sampling.best_of):
            candidate = self._scheduler.candidate(leader, seed=request.seed + number * SEED_STEP)
            if candidate is None and self._running:
                self._release(request)
                return False  # how many are drawn is not a matter of who else is here
            if candidate is None:
                break  # alone, and still too little memory for all
            request.sequences.append(candidate)
        return True

    def _release(self, request: _Request) -> None:
        """End a request's sequences; the first one's keys and values are kept for the conversation's next turn."""
        for sequence in request.sequences:
            sequence.conversation = request.conversation if sequence is request.sequences[0] else None
            self._scheduler.leave(sequence)
        request.sequences.clear()

    def _answer_finished(self) -> None:
        """Answer who is done, forget who was cancelled."""
        for request in list(self._running):
            sequences = request.sequences
            if not request.future.cancelled() and any(sequence.finish is None for sequence in sequences):
                continue
            if request.future.cancelled():
                self._running.remove(request)
                self._release(request)
                continue
            first, candidates = sequences[0], self._candidates(sequences)
            reply = Completion(
                candidates=candidates,
                prompt_tokens=first.prompt_tokens,
                new_tokens=len(first.new_tokens),
                seconds=self._clock() - request.arrived,
                adapter=first.lora.id if first.lora else None,
                seed=request.seed,
            )
            self._running.remove(request)
            self._release(request)
            if not candidates:
                _fail(
                    request.future,
                    NumericalError("the model's numbers are not finite: its weights or the adapter's are damaged"),
                )
                continue
            self._completed += 1
            self._cached += first.reused
            _resolve(request.future, reply)

    def _candidates(self, sequences: abc.Sequence[Sequence]) -> tuple[Candidate, ...]:
        """What was drawn, less what came of damaged numbers; scored where there is something to choose among."""
        whole = [one for one in sequences if one.finish != "damaged"]
        speaking = [one for one in whole if self._scheduler.text(one).strip()]
        scores: dict[int, float] = {}
        if len(speaking) > 1:
            found = self._scheduler.information(speaking)
            scores = {id(one): nats for one, nats in zip(speaking, found, strict=True)}
        return tuple(
            Candidate(
                text=self._scheduler.text(one),
                finish="length" if one.finish == "length" else "stop",
                information=scores.get(id(one)),
            )
            for one in whole
        )

    def _fail_running(self, error: Exception) -> None:
        """A step failed: nothing half computed is kept, everybody in it hears a sentence, the next ones may do."""
        broken = list(self._running)
        self._running.clear()
        for request in broken:
            request.conversation = None
            request.sequences = [sequence for sequence in request.sequences if sequence in self._scheduler.sequences]
            self._release(request)
            _fail(request.future, _failed(error))


def _failed(error: Exception) -> GeneratorError:
    sentence = GeneratorError("a reply could not be generated: try again, and see the log if it happens often")
    sentence.__cause__ = error
    return sentence


def _fail(future: "Future[Completion]", error: Exception) -> None:
    with suppress(InvalidStateError):  # the asker is gone
        future.set_exception(error)


def _resolve(future: "Future[Completion]", completion: Completion) -> None:
    with suppress(InvalidStateError):  # the asker is gone
        future.set_result(completion)
