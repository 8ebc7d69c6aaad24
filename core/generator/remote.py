"""Any OpenAI-compatible server (vLLM, llama.cpp's, …), for who outgrows one machine.

Knows HTTP and the completions API, and chat completions for servers that have nothing else; neither tokenizers nor
torch. vLLM serves LoRA adapters as models of their own, so an adapter is a model name there. The key travels in one
header and is masked wherever a server repeats it.

What a server may lack is left out after its first complaint: fields beyond OpenAI's own (`top_k`,
`repetition_penalty`), and the oldest lines of a prompt that is over its context.
"""

import asyncio
import email.utils
import json
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
from yarl import URL

from core.dialogue import turns_of
from core.errors import AdapterError, GeneratorError, ModelError, Overloaded, SettingsError, Unavailable
from core.generator import END_OF_TEXT, Adapter, Candidate, Completion, GeneratorStatus, Sampling
from core.generator.persona import messages, with_persona

log = logging.getLogger(__name__)

CONTEXT = 1024
"""Tokens; GPT-2's, for servers that do not tell (vLLM does, as `max_model_len`)."""
IN_FLIGHT = 64
"""Requests sent and not yet answered; the server batches them."""
ATTEMPTS = 4
"""One and three retries: about two seconds, as long as a person waits without wondering."""
FIRST_WAIT = 0.25
"""Seconds before the first retry; doubled each time, with full jitter (AWS Architecture Blog, "Exponential Backoff and
Jitter", 2015)."""
LONGEST_WAIT = 10.0
"""Seconds; a server that asks for more by Retry-After is called busy instead."""
CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 60.0
"""Seconds for a whole answer; a reply of 60 tokens takes a second on a GPU."""
BYTES_PER_TOKEN = 3
"""GPT-2's tokenizer makes 4.2 to 4.5 bytes of English a token, and 2 to 3 of most other scripts and of emoji. Dividing
by 3 asks for no network in a synchronous method, is safe for English and nearly so elsewhere; a prompt that is too long
all the same is cut when the server says so. vLLM's `/tokenize` is exact but not part of OpenAI's API."""
_LONGEST_TOKEN = 16  # characters; no prompt worth sending has longer ones on average
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    text: str
    retry_after: float | None

    def json(self) -> Any:
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class RemoteGenerator:
    """`core.generator.Generator` over HTTP. `connect` also asks the server what it serves.

    `adapters` maps adapter ids to the server's model names; an id that is not there goes by itself. `sleep`, `jitter`
    (a number from 0 to 1), `fresh_seed` and `clock` (seconds) are for tests. Raises SettingsError for an unfit URL.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        api_key: str | None = None,
        adapters: Mapping[str, str] | None = None,
        context_length: int = CONTEXT,
        in_flight: int = IN_FLIGHT,
        connect_timeout: float = CONNECT_TIMEOUT,
        answer_timeout: float = ANSWER_TIMEOUT,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        fresh_seed: Callable[[], int] = lambda: secrets.randbits(31),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        root = _api_root(url)
        self._url = root.with_user(None) if api_key else root  # one kind of credentials a request
        self._where = str(root.with_user(None).with_query(None))
        self._model = model
        self._key = api_key or ""
        self._names = dict(adapters or {})
        self._context = context_length
        self._limit = in_flight
        self._timeout = aiohttp.ClientTimeout(total=answer_timeout, connect=connect_timeout)
        self._sleep = sleep
        self._jitter = jitter
        self._fresh_seed = fresh_seed
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._completed = 0
        self._tokens = 0
        self._used: set[str] = set()
        self._chat = False
        """The server has chat completions only."""
        self._plain = False
        """The server complained of fields beyond OpenAI's own."""

    def __repr__(self) -> str:
        return f"RemoteGenerator({self._where!r}, model={self._model!r})"

    # the port

    @property
    def context_length(self) -> int:
        return self._context

    def count_tokens(self, text: str) -> int:
        """An estimate on the safe side, see BYTES_PER_TOKEN."""
        return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)

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
        if self._closing:
            raise Unavailable(_STOPPED)
        if self._running >= self._limit:
            raise Overloaded(f"{self._running} people are waiting for a reply already: please try again in a moment")
        self._running += 1
        self._idle.clear()
        try:
            seed = self._fresh_seed() if sampling.seed is None else sampling.seed
            answer = await self._complete(prompt, sampling, seed, adapter, persona)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
        text, finish, usage = answer
        text = text.lstrip("\r\n")  # some models begin with an empty line, at which the stop would leave nothing
        if sampling.stop and sampling.stop in text:  # some servers leave the stop text standing
            text, finish = text[: text.index(sampling.stop)], "stop"
        new_tokens = int(usage.get("completion_tokens") or self.count_tokens(text))
        self._completed += 1
        self._tokens += new_tokens
        if adapter is not None:
            self._used.add(adapter.id)
        return Completion(
            candidates=(Candidate(text=text, finish=finish),),
            prompt_tokens=int(usage.get("prompt_tokens") or self.count_tokens(prompt)),
            new_tokens=new_tokens,
            seconds=self._clock() - arrived,
            adapter=adapter.id if adapter else None,
            seed=seed,
        )

    async def load(self, adapter: Adapter) -> None:
        """See whether the server has the adapter; if not, ask vLLM to load it from the same path.

        vLLM does that when it runs with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and sees the folder. Raises AdapterError.
        """
        name = self._name(adapter)
        if name in await self._served():
            return
        body = {"lora_name": name, "lora_path": str(adapter.path.absolute())}
        answer = await self._send("POST", "load_lora_adapter", body)
        if answer.status != 200 and name not in await self._served():
            raise AdapterError(
                f"the server at {self._where} does not serve the adapter {adapter.id!r}: start vLLM with"
                f" --enable-lora --lora-modules {name}={body['lora_path']}, or merge the adapter and serve that"
            )
        self._used.add(adapter.id)

    async def unload(self, adapter_id: str) -> None:
        """The server keeps what it serves: other bots may use it."""
        self._used.discard(adapter_id)

    def status(self) -> GeneratorStatus:
        return GeneratorStatus(
            model=self._model,
            device=f"remote {self._where}",
            queued=0,
            running=self._running,
            completed=self._completed,
            tokens=self._tokens,
            adapters=tuple(sorted(self._used)),
        )

    async def close(self) -> None:
        self._closing = True
        await self._idle.wait()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # what is said to the server

    async def look(self) -> None:
        """Ask what the server serves, and take its context length. Raises ModelError when our model is not there,
        Unavailable when the server is not."""
        models = await self._served()
        if models and self._model not in models:
            raise ModelError(
                f"the server at {self._where} serves {', '.join(sorted(models))} but not {self._model}:"
                " set REMOTE_MODEL to one of those"
            )
        told = models.get(self._model)
        if isinstance(told, int) and told > 0:
            self._context = told

    def _name(self, adapter: Adapter | None) -> str:
        return self._names.get(adapter.id, adapter.id) if adapter is not None else self._model

    async def _served(self) -> dict[str, int | None]:
        """Model names with their context lengths, where the server tells; empty when it has no such list."""
        answer = await self._send("GET", "models")
        found = answer.json()
        entries = found.get("data") if isinstance(found, dict) else None
        if answer.status != 200 or not isinstance(entries, list):
            self._refused(answer)
            return {}
        return {str(e["id"]): e.get("max_model_len") for e in entries if isinstance(e, dict) and "id" in e}

    async def _complete(
        self, prompt: str, sampling: Sampling, seed: int, adapter: Adapter | None, persona: str
    ) -> tuple[str, Literal["stop", "length"], dict[str, Any]]:
        text = self._sent(prompt, sampling, persona)
        while True:
            path = "chat/completions" if self._chat else "completions"
            answer = await self._send("POST", path, self._body(text, sampling, seed, adapter, persona))
            if answer.status == 200:
                return self._read(answer)
            complaint = answer.text.lower()
            if answer.status in {404, 405} and not self._chat and "model" not in complaint and await self._chats():
                log.info("%s has no completions: it is asked for chat completions", self._where)
                self._chat = True
                text = self._sent(prompt, sampling, persona)
                continue
            if answer.status in {400, 413, 422}:
                if not self._plain and any(field in complaint for field in ("top_k", "repetition_penalty")):
                    log.info("%s takes neither top_k nor repetition_penalty: replies go without", self._where)
                    self._plain = True
                    continue
                if len(text) > 1 and "context" in complaint and _mentions_length(complaint):
                    text = _without_oldest(text)
                    continue
            if answer.status == 404 and adapter is not None:
                raise AdapterError(
                    f"the server at {self._where} does not serve the adapter {adapter.id!r} (as {self._name(adapter)}):"
                    " choose another, or start the server with it"
                )
            self._refused(answer)
            raise GeneratorError(
                f"the server at {self._where} refused the request ({answer.status}: {self._clean(answer.text)}):"
                " check REMOTE_URL, REMOTE_MODEL and the sampling settings"
            )

    def _sent(self, prompt: str, sampling: Sampling, persona: str) -> str:
        """The prompt without control tokens and what no context holds; with the persona's turns, unless messages carry
        it."""
        if persona and not self._chat:
            room = self._context - min(sampling.max_new_tokens, self._context - 1)
            prompt = with_persona(prompt, persona, budget=room, count=self.count_tokens)
        return prompt.replace(END_OF_TEXT, "< endoftext >")[-_LONGEST_TOKEN * self._context :] or END_OF_TEXT

    async def _chats(self) -> bool:
        """Whether the server knows chat completions: it complains of an empty request, and not of the address."""
        return (await self._send("POST", "chat/completions", {})).status not in {404, 405}

    def _body(self, text: str, sampling: Sampling, seed: int, adapter: Adapter | None, persona: str) -> dict[str, Any]:
        asked = {"messages": messages(turns_of(text), persona)} if self._chat else {"prompt": text}
        body: dict[str, Any] = {
            "model": self._name(adapter),
            **asked,
            "max_tokens": min(sampling.max_new_tokens, max(self._context - 1, 1)),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
        }
        if sampling.stop:
            body["stop"] = [sampling.stop]
        if not self._plain and sampling.top_k:
            body["top_k"] = sampling.top_k
        if not self._plain and sampling.repetition_penalty != 1:
            body["repetition_penalty"] = sampling.repetition_penalty
        return body

    def _read(self, answer: _Answer) -> tuple[str, Literal["stop", "length"], dict[str, Any]]:
        found = answer.json()
        try:
            choice = found["choices"][0]
            text = choice["message"]["content"] if self._chat else choice["text"]
            ended, usage = choice.get("finish_reason"), found.get("usage") or {}
        except (KeyError, IndexError, TypeError, AttributeError):
            text, ended, usage = None, None, {}
        if not isinstance(text, str) or not isinstance(usage, dict):
            raise GeneratorError(f"{self._where} answered, but not as a completions server does: check REMOTE_URL")
        return text, "length" if ended == "length" else "stop", usage

    def _refused(self, answer: _Answer) -> None:
        """Raises for answers that mean the same whatever was asked."""
        if answer.status in {401, 403}:
            raise Unavailable(f"the server at {self._where} does not accept the key: set REMOTE_API_KEY")
        if answer.status in {301, 302, 307, 308}:
            raise Unavailable(f"the server at {self._where} has moved: set REMOTE_URL to its new address")
        if answer.status == 404 and "model" in answer.text.lower():
            raise GeneratorError(f"the server at {self._where} has no model {self._model}: set REMOTE_MODEL")

    # one exchange, however many attempts

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> _Answer:
        """Raises Unavailable when the server is down or keeps failing, Overloaded when it is too busy."""
        fault: Overloaded | Unavailable = Unavailable(_STOPPED)
        for attempt in range(ATTEMPTS):
            wait = FIRST_WAIT * 2**attempt * self._jitter()
            try:
                answer = await self._once(method, path, body)
            except TimeoutError as error:
                if not isinstance(error, aiohttp.ConnectionTimeoutError):  # waiting once more would double the wait
                    raise Unavailable(
                        f"the server at {self._where} did not answer within {self._timeout.total:g} seconds:"
                        " try again in a while"
                    ) from None
                fault = self._down("the connection timed out")
            except aiohttp.ClientError as error:
                fault = self._down(self._clean(str(error)))
            else:
                if answer.status not in _RETRIED:
                    return answer
                fault = (
                    Overloaded(f"the server at {self._where} is busy: please try again in a moment")
                    if answer.status == 429
                    else self._down(f"it answers {answer.status}")
                )
                if answer.retry_after is not None:
                    if answer.retry_after > LONGEST_WAIT:
                        break
                    wait = max(wait, answer.retry_after)
            if attempt < ATTEMPTS - 1:
                await self._sleep(wait)
        raise fault

    async def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> _Answer:
        if self._session is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            self._session = aiohttp.ClientSession(headers=headers, timeout=self._timeout)
        async with self._session.request(method, self._url / path, json=body, allow_redirects=False) as response:
            return _Answer(
                status=response.status,
                text=await response.text(errors="replace"),
                retry_after=_seconds(response.headers.get("Retry-After", "")),
            )

    def _down(self, why: str) -> Unavailable:
        return Unavailable(f"the server at {self._where} cannot be reached ({why}): start it, or check REMOTE_URL")

    def _clean(self, text: str) -> str:
        """One short line, without the key should the server repeat it."""
        line = " ".join(text.split())
        return (line.replace(self._key, "…") if self._key else line)[:200]


_STOPPED = "the generator is stopped: start the program again"


async def connect(url: str, *, model: str, api_key: str | None = None, **options: Any) -> RemoteGenerator:
    """A generator for the model `model` of the server at `url`; a server that is down may come up later.

    `options` are RemoteGenerator's. Raises SettingsError for an unfit URL, ModelError when the server lacks the model.
    """
    generator = RemoteGenerator(url, model=model, api_key=api_key, **options)
    try:
        await generator.look()
    except Unavailable as error:
        log.warning("%s", error)
    except BaseException:
        await generator.close()
        raise
    return generator


def _api_root(url: str) -> URL:
    """`http://host:8000`, with or without `/v1` or `/v1/completions`, as people copy it from anywhere."""
    try:
        root = URL(url.strip())
    except ValueError:
        root = URL()
    if root.scheme not in {"http", "https"} or not root.host:
        raise SettingsError("REMOTE_URL should look like http://host:8000/v1: correct it")
    path = root.path.rstrip("/").removesuffix("/completions")
    return root.with_path(path or "/v1")


def _mentions_length(complaint: str) -> bool:
    return any(word in complaint for word in ("length", "exceed", "too long", "window", "size"))


def _without_oldest(text: str) -> str:
    """The newer two thirds, from the start of a line where there is one."""
    rest = text[-(-len(text) // 3) :]
    _, newline, lines = rest.partition("\n")
    return lines if newline and lines else rest


def _seconds(header: str) -> float | None:
    """Retry-After: seconds, or a date (RFC 9110, section 10.2.3)."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
