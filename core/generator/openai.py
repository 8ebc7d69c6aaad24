"""Any OpenAI-compatible server (vLLM, llama.cpp's, …), for operators who outgrow one machine.

Knows the openai client: completions, and chat completions for servers that have nothing else; neither tokenizers nor
torch. vLLM serves LoRA adapters as models of their own, so an adapter is a model name there. Retries, their waits and
Retry-After are up to the client; the total wait is bounded here.

What a server does not support is left out after its first error: fields beyond OpenAI's own (`top_k`,
`repetition_penalty`), and the oldest lines of a prompt that exceeds its context.
"""

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

import openai
from openai.types import CompletionUsage
from yarl import URL

from core.dialogue import turns_of
from core.errors import AdapterError, GeneratorError, ModelError, Overloaded, SettingsError, Unavailable
from core.generator import (
    END_OF_TEXT,
    STOPPED,
    Adapter,
    Candidate,
    Completion,
    GeneratorStatus,
    Sampling,
    overloaded,
    validate,
)
from core.generator.persona import messages, with_persona

log = logging.getLogger(__name__)

CONTEXT = 1024
"""Tokens; GPT-2's, for servers that do not report theirs (vLLM does, as `max_model_len`)."""
IN_FLIGHT = 64
"""Requests sent and not yet answered; the server batches them."""
RETRIES = 3
"""With the client's waits about three seconds, nearly as long as a person waits without wondering."""
CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 60.0
"""Seconds for an answer, retries included; a reply of 60 tokens takes a second on a GPU."""
BYTES_PER_TOKEN = 3
"""GPT-2's tokens have 4.2 to 4.5 bytes of English, and 2 to 3 of most other scripts and of emoji. Dividing by 3 needs
no network, is safe for English and nearly so elsewhere; a prompt that is still too long is cut when the server says so.
vLLM's `/tokenize` is exact but not part of OpenAI's API."""
NO_KEY = "EMPTY"
"""What vLLM's documentation tells clients to send where the server needs no key."""
_LONGEST_TOKEN = 16  # characters per token, on average: more than any real prompt has
BEYOND_OPENAI = {"top_k": 0, "repetition_penalty": 1}
"""Sampling settings that OpenAI's API does not have, with the values that switch them off."""
_RETRIED = frozenset({408, 409})
"""Statuses that the client retries before it raises an error, besides 429 and 500 or more."""
_UNFIT = frozenset({400, 413, 422})

T = TypeVar("T")


class OpenAIGenerator:
    """`core.generator.Generator` over HTTP. `connect` also asks the server what it serves.

    An adapter's id is its model name there. `retries` and `fresh_seed` are for tests. Raises SettingsError for an
    invalid URL.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        api_key: str | None = None,
        in_flight: int = IN_FLIGHT,
        retries: int = RETRIES,
        answer_timeout: float = ANSWER_TIMEOUT,
        fresh_seed: Callable[[], int] = lambda: secrets.randbits(31),
    ) -> None:
        root = _api_root(url)
        self._where = str(root.with_user(None))
        self._server = f"the server at {self._where}"
        self._model = model
        self._key = api_key or ""
        self._context = CONTEXT
        self._limit = in_flight
        self._timeout = answer_timeout
        self._fresh_seed = fresh_seed
        self._client = openai.AsyncOpenAI(
            base_url=self._where,
            api_key=self._key or NO_KEY,  # never None: another program's OPENAI_API_KEY is not for this server
            max_retries=retries,
            http_client=openai.DefaultAsyncHttpxClient(
                auth=(root.user or "", root.password or "") if root.user and not self._key else None,
                follow_redirects=False,  # the key would not follow to another host, and nobody would learn of the move
                timeout=openai.Timeout(None, connect=CONNECT_TIMEOUT),
                trust_env=False,
                verify=ssl.create_default_context(),
            ),
        )
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
        """The server rejected fields beyond OpenAI's own."""

    def __repr__(self) -> str:
        return f"OpenAIGenerator({self._where!r}, model={self._model!r})"

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
        arrived = time.monotonic()
        validate(sampling)
        if self._closing:
            raise Unavailable(STOPPED)
        if self._running >= self._limit:
            raise overloaded(self._running)
        self._running += 1
        self._idle.clear()
        try:
            seed = self._fresh_seed() if sampling.seed is None else sampling.seed
            text, finish, usage = await self._complete(prompt, sampling, seed, adapter, persona)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
        text = text.lstrip("\r\n")  # some models begin with an empty line, at which the stop would leave nothing
        if sampling.stop and sampling.stop in text:  # some servers leave the stop text in
            text, finish = text[: text.index(sampling.stop)], "stop"
        new_tokens = (usage.completion_tokens if usage else 0) or self.count_tokens(text)
        self._completed += 1
        self._tokens += new_tokens
        if adapter is not None:
            self._used.add(adapter.id)
        return Completion(
            candidates=(Candidate(text=text, finish=finish),),
            prompt_tokens=(usage.prompt_tokens if usage else 0) or self.count_tokens(prompt),
            new_tokens=new_tokens,
            seconds=time.monotonic() - arrived,
            adapter=adapter.id if adapter else None,
            seed=seed,
        )

    async def load(self, adapter: Adapter) -> None:
        """Check whether the server has the adapter; if not, ask vLLM to load it from the same path.

        vLLM does that when it runs with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and sees the folder. Raises AdapterError.
        """
        if self._closing:
            raise Unavailable(STOPPED)
        if adapter.id in await self._served():
            return
        body = {"lora_name": adapter.id, "lora_path": str(adapter.path.absolute())}
        answer = await self._reach(self._client.post("/load_lora_adapter", cast_to=object, body=body))
        if isinstance(answer, openai.APIStatusError) and adapter.id not in await self._served():
            raise AdapterError(
                f"{self._server} does not serve the adapter {adapter.id!r}: start vLLM with --enable-lora"
                f" --lora-modules {adapter.id}={body['lora_path']}, or merge the adapter and serve that"
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
        await self._client.close()

    # requests to the server

    async def look(self) -> None:
        """Ask what the server serves, and take its context length. Raises ModelError when our model is not there,
        Unavailable when the server is not."""
        models = await self._served()
        if models and self._model not in models:
            raise ModelError(
                f"{self._server} serves {', '.join(sorted(models))} but not {self._model}:"
                " set PERSON2_REMOTE_MODEL to one of those"
            )
        told = models.get(self._model)
        if isinstance(told, int) and told > 0:
            self._context = told

    async def _served(self) -> dict[str, int | None]:
        """Model names with their context lengths, None where the server does not report it; empty when it has no
        list."""
        page = await self._reach(self._client.models.list())
        entries = getattr(page, "data", None) or []
        return {str(entry.id): getattr(entry, "max_model_len", None) for entry in entries if hasattr(entry, "id")}

    async def _complete(
        self, prompt: str, sampling: Sampling, seed: int, adapter: Adapter | None, persona: str
    ) -> tuple[str, Literal["stop", "length"], CompletionUsage | None]:
        text = self._sent(prompt, sampling, persona)
        while True:
            answer = await self._reach(self._create(text, sampling, seed, adapter, persona))
            if not isinstance(answer, openai.APIStatusError):
                return self._read(answer)
            status, complaint = answer.status_code, answer.response.text.lower()
            if status in {404, 405} and not self._chat and await self._has_chat(complaint):
                log.info("%s has no completions: it is asked for chat completions", self._where)
                self._chat = True
                text = self._sent(prompt, sampling, persona)
            elif status in _UNFIT and not self._plain and any(field in complaint for field in BEYOND_OPENAI):
                log.info("%s takes no %s: replies go without", self._where, " or ".join(BEYOND_OPENAI))
                self._plain = True
            elif status in _UNFIT and len(text) > 1 and _is_about_length(complaint):
                text = _without_oldest(text)
            else:
                raise self._refusal(answer, adapter)

    def _refusal(self, answer: openai.APIStatusError, adapter: Adapter | None) -> GeneratorError | AdapterError:
        if answer.status_code == 404 and adapter is not None:
            return AdapterError(f"{self._server} does not serve the adapter {adapter.id!r}: choose another one")
        if answer.status_code == 404 and "model" in answer.response.text.lower():
            return GeneratorError(f"{self._server} has no model {self._model}: set PERSON2_REMOTE_MODEL")
        return GeneratorError(
            f"{self._server} refused the request"
            f" ({answer.status_code}: {self._clean(answer.response.text)}):"
            " check PERSON2_REMOTE_URL, PERSON2_REMOTE_MODEL and the sampling settings"
        )

    def _sent(self, prompt: str, sampling: Sampling, persona: str) -> str:
        """The prompt without control tokens and cut to what a context may hold; with the persona's turns, unless it is
        sent as a message."""
        if persona and not self._chat:
            room = self._context - min(sampling.max_new_tokens, self._context - 1)
            prompt = with_persona(prompt, persona, budget=room, count=self.count_tokens)
        return prompt.replace(END_OF_TEXT, "< endoftext >")[-_LONGEST_TOKEN * self._context :] or END_OF_TEXT

    async def _has_chat(self, complaint: str) -> bool:
        """Whether the server has chat completions instead: its error says so, or it rejects an empty request rather
        than the address."""
        if "model" in complaint:
            return "chat/completions" in complaint
        answer = await self._reach(self._client.post("/chat/completions", cast_to=object, body={}))
        return not (isinstance(answer, openai.APIStatusError) and answer.status_code in {404, 405})

    def _create(
        self, text: str, sampling: Sampling, seed: int, adapter: Adapter | None, persona: str
    ) -> Awaitable[Any]:
        beyond = {
            name: getattr(sampling, name) for name, off in BEYOND_OPENAI.items() if getattr(sampling, name) != off
        }
        common: dict[str, Any] = {
            "model": adapter.id if adapter else self._model,
            "max_tokens": min(sampling.max_new_tokens, max(self._context - 1, 1)),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            "stop": [sampling.stop] if sampling.stop else openai.omit,
            "extra_body": {} if self._plain else beyond,
        }
        if self._chat:
            said: Any = messages(turns_of(text), persona)  # the client has a type for each role
            return self._client.chat.completions.create(messages=said, **common)
        return self._client.completions.create(prompt=text, **common)

    def _read(self, answer: Any) -> tuple[str, Literal["stop", "length"], CompletionUsage | None]:
        """Text, finish and usage of an answer, which the client has not checked."""
        try:
            choice = answer.choices[0]
            text = choice.message.content if self._chat else choice.text
        except (AttributeError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise self._no_completion()
        usage = getattr(answer, "usage", None)
        finish: Literal["stop", "length"] = "length" if getattr(choice, "finish_reason", "") == "length" else "stop"
        return text, finish, usage if isinstance(usage, CompletionUsage) else None

    async def _reach(self, asked: Awaitable[T]) -> T | openai.APIStatusError:
        """The server's answer, or its error about the request. Raises Unavailable when it is down, keeps failing or
        rejects the key, Overloaded when it is too busy."""
        fault: GeneratorError  # raised outside of the handlers, since the client's errors repeat what the server said
        try:
            async with asyncio.timeout(self._timeout):
                return await asked
        except TimeoutError:
            fault = Unavailable(f"{self._server} did not answer within {self._timeout:g} seconds: try again in a while")
        except openai.APITimeoutError:
            fault = self._down("the connection timed out")
        except openai.APIConnectionError as error:
            fault = self._down(self._clean(str(error.__cause__ or error)))
        except openai.APIStatusError as error:
            status = error.status_code
            if status in {401, 403}:
                fault = Unavailable(f"{self._server} does not accept the key: set PERSON2_REMOTE_API_KEY")
            elif status < 400:
                fault = Unavailable(f"{self._server} has moved: set PERSON2_REMOTE_URL to its new address")
            elif status == 429:
                fault = Overloaded(f"{self._server} is busy: please try again in a moment")
            elif status in _RETRIED or status >= 500:
                fault = self._down(f"it answers {status}")
            else:
                return error
        except (openai.OpenAIError, ValueError):
            fault = self._no_completion()
        raise fault

    def _no_completion(self) -> GeneratorError:
        return GeneratorError(f"{self._where} answered, but not like a completions server: check PERSON2_REMOTE_URL")

    def _down(self, why: str) -> Unavailable:
        return Unavailable(f"{self._server} cannot be reached ({why}): start it, or check PERSON2_REMOTE_URL")

    def _clean(self, text: str) -> str:
        """One short line, without the key in case the server repeats it."""
        line = " ".join(text.split())
        return (line.replace(self._key, "…") if self._key else line)[:200]


async def connect(url: str, *, model: str, api_key: str | None = None, **options: Any) -> OpenAIGenerator:
    """A generator for the model `model` of the server at `url`; a server that is down may come up later.

    `options` are OpenAIGenerator's. Raises SettingsError for an invalid URL, ModelError when the server lacks the
    model.
    """
    generator = OpenAIGenerator(url, model=model, api_key=api_key, **options)
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
        raise SettingsError("PERSON2_REMOTE_URL should look like http://host:8000/v1: correct it")
    path = root.path.rstrip("/").removesuffix("/completions").removesuffix("/chat")
    return root.with_path(path or "/v1")


def _is_about_length(complaint: str) -> bool:
    words = ("length", "exceed", "too long", "window", "size")
    return "context" in complaint and any(word in complaint for word in words)


def _without_oldest(text: str) -> str:
    """The newer two thirds, from the start of a line where there is one."""
    rest = text[-(-len(text) // 3) :]
    _, newline, lines = rest.partition("\n")
    return lines if newline and lines else rest
