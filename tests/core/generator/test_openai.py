"""The generator of an OpenAI-compatible server, against one on loopback that can misbehave in every usual way."""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest
from aiohttp import web

from core.errors import AdapterError, GeneratorError, ModelError, Overloaded, SettingsError, Unavailable
from core.generator import Adapter, Generator, Sampling
from core.generator.openai import RETRIES, OpenAIGenerator, connect
from core.settings import Settings
from person2.app import open_generator

KEY = "sk-very-secret"
SAMPLING = Sampling(seed=7, max_new_tokens=20)
SOON = {"Retry_After_Ms": "1"}
"""A header with which a failing server is asked again at once."""


@dataclass
class Server:
    """Answers `script` in turn, then politely for ever; remembers what it was asked."""

    script: list[Callable[[], web.StreamResponse]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    models: dict[str, int | None] = field(default_factory=lambda: {"talk": 512, "small-talk": 512})
    hang: asyncio.Event | None = None
    longest: int = 10_000
    """Characters a prompt may have."""
    fussy: bool = False
    """Refuses fields that OpenAI does not know."""
    can_load: bool = False
    only_chat: str = ""
    """Has no completions, as many hosted models: what it says of that."""
    chats: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    async def completions(self, request: web.Request) -> web.StreamResponse:
        if self.only_chat:
            return web.json_response({"error": {"message": self.only_chat}}, status=404)
        body = json.loads(await request.text())
        self.asked.append(body)
        self.keys.add(request.headers.get("Authorization"))
        if self.hang is not None:
            await self.hang.wait()
        if self.script:
            return self.script.pop(0)()
        if self.fussy and "repetition_penalty" in body:
            return web.json_response({"error": {"message": "Unrecognized argument: repetition_penalty"}}, status=400)
        if body["model"] not in self.models:
            return web.json_response({"error": {"message": f"The model `{body['model']}` does not exist."}}, status=404)
        if len(body["prompt"]) > self.longest:
            return web.json_response(
                {"message": "This model's maximum context length is 512 tokens. Please reduce the prompt."}, status=400
            )
        usage = {"prompt_tokens": 11, "completion_tokens": 3}
        choice = {"text": f" hello from {body['model']}\nPerson1: and", "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": usage})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text())
        if not self.only_chat:
            return web.Response(status=404)
        if not body:
            return web.json_response({"error": {"message": "messages is required"}}, status=400)
        self.chats.append(body)
        choice = {"message": {"role": "assistant", "content": "\nAye!\nAnd you?"}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})

    async def list_models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": n, "max_model_len": size} for n, size in self.models.items()]})

    async def load_lora(self, request: web.Request) -> web.StreamResponse:
        if not self.can_load:
            return web.Response(status=404)
        self.models[(await request.json())["lora_name"]] = 512
        return web.Response(text="Success")


@asynccontextmanager
async def serve(server: Server) -> AsyncIterator[Server]:
    app = web.Application(client_max_size=10**7)
    app.add_routes(
        [
            web.post("/v1/completions", server.completions),
            web.post("/v1/chat/completions", server.chat),
            web.get("/v1/models", server.list_models),
            web.post("/v1/load_lora_adapter", server.load_lora),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve(Server()) as running:
        yield running


@asynccontextmanager
async def talking(server: Server, **options: Any) -> AsyncIterator[OpenAIGenerator]:
    generator = OpenAIGenerator(server.url, model="talk", api_key=KEY, **options)
    try:
        yield generator
    finally:
        if server.hang is not None:
            server.hang.set()
        await generator.close()


def fails(status: int, **headers: str) -> Callable[[], web.StreamResponse]:
    return lambda: web.Response(status=status, headers={name.replace("_", "-"): v for name, v in headers.items()})


def says(text: str) -> Callable[[], web.StreamResponse]:
    return lambda: web.Response(text=text, content_type="application/json")


async def test_a_reply_comes_back(server: Server) -> None:
    """Everything the sampling says is sent; the text ends at the stop; the figures are the server's."""
    async with talking(server) as remote:
        port: Generator = remote
        made = await port.generate("Person1: hi\nPerson2:", sampling=Sampling(seed=7, top_k=5, max_new_tokens=20))
    assert server.asked == [
        {
            "model": "talk",
            "prompt": "Person1: hi\nPerson2:",
            "max_tokens": 20,
            "temperature": 0.7,
            "top_p": 0.9,
            "seed": 7,
            "stop": ["\n"],
            "top_k": 5,
            "repetition_penalty": 1.1,
        }
    ]
    assert (made.text, made.finish, made.seed, made.adapter) == (" hello from talk", "stop", 7, None)
    assert (made.prompt_tokens, made.new_tokens) == (11, 3)
    assert server.keys == {f"Bearer {KEY}"}
    assert (remote.status().completed, remote.status().tokens, remote.status().running) == (1, 3, 0)


async def test_a_reply_may_begin_with_an_empty_line(server: Server) -> None:
    """The stop is the end of the first line that says something."""
    server.script = [says(json.dumps({"choices": [{"text": "\n\n hello\nPerson1: and", "finish_reason": "stop"}]}))]
    async with talking(server) as remote:
        made = await remote.generate("Person1: hi\nPerson2:", sampling=Sampling())
    assert made.text == " hello"


@pytest.mark.parametrize("complaint", ["Not Found", "This is a chat model. Did you mean v1/chat/completions?"])
async def test_a_server_that_only_chats(server: Server, complaint: str) -> None:
    """It gets messages, the persona as the system's, and is not asked for completions again."""
    server.only_chat = complaint
    async with talking(server) as remote:
        for _ in range(2):
            made = await remote.generate(
                "Person1: hi\nPerson2: hello\nPerson1: who are you?\nPerson2:",
                sampling=SAMPLING,
                persona="You are Nemo.",
            )
    assert (made.text, made.prompt_tokens, made.new_tokens) == ("Aye!", 9, 2)
    assert len(server.chats) == 2
    assert "prompt" not in server.chats[0]
    assert [(m["role"], m["content"]) for m in server.chats[0]["messages"]] == [
        ("system", "You are Nemo."),
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "who are you?"),
    ]


async def test_a_persona_stands_in_front_of_a_completion(server: Server) -> None:
    """As turns, since a completions server knows no system message."""
    async with talking(server) as remote:
        await remote.generate("Person1: hi\nPerson2:", sampling=SAMPLING, persona="I am Nemo.")
    assert server.asked[0]["prompt"] == ("Person1: Tell me about yourself.\nPerson2: I am Nemo.\nPerson1: hi\nPerson2:")


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/", "/v1/completions", "/v1/chat/completions"])
async def test_the_url_as_people_write_it(server: Server, tail: str) -> None:
    """With or without /v1, a slash or the whole path."""
    server.url = server.url.removesuffix("/v1") + tail
    async with talking(server) as remote:
        assert (await remote.generate("hi", sampling=SAMPLING)).text == " hello from talk"


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host/v1", "http://", "http://[", "not a url"])
def test_an_unfit_url(url: str) -> None:
    """A sentence with the right form, and no generator."""
    with pytest.raises(SettingsError, match="PERSON2_REMOTE_URL should look like"):
        OpenAIGenerator(url, model="talk")


async def test_connecting_learns_what_is_served(server: Server) -> None:
    """The context length comes from the server; a model it lacks is named with those it has."""
    remote = await connect(server.url, model="talk")
    assert remote.context_length == 512
    await remote.close()
    with pytest.raises(ModelError, match="serves small-talk, talk but not chat"):
        await connect(server.url, model="chat")


async def test_connecting_to_a_server_that_is_not_up_yet(caplog: pytest.LogCaptureFixture) -> None:
    """One line in the log, and a generator that will work once the server does."""
    remote = await connect("http://127.0.0.1:9/v1", model="talk", retries=0)
    assert remote.context_length == 1024
    assert "cannot be reached" in caplog.text
    await remote.close()


async def test_failures_are_tried_again(server: Server) -> None:
    """Three 5xx and then an answer: the person notices only the time."""
    server.script = [fails(500, **SOON), fails(502, **SOON), fails(503, **SOON)]
    async with talking(server) as remote:
        assert (await remote.generate("hi", sampling=SAMPLING)).text == " hello from talk"
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (500, Unavailable, "cannot be reached (it answers 500)"),
        (503, Unavailable, "cannot be reached (it answers 503)"),
        (429, Overloaded, "is busy: please try again in a moment"),
    ],
)
async def test_a_server_that_keeps_failing(server: Server, status: int, error: type[Exception], sentence: str) -> None:
    """After the last attempt a person reads one sentence."""
    server.script = [fails(status, **SOON)] * (RETRIES + 1)
    async with talking(server) as remote:
        with pytest.raises(error) as caught:
            await remote.generate("hi", sampling=SAMPLING)
    assert sentence in str(caught.value)
    assert len(server.asked) == RETRIES + 1


@pytest.mark.parametrize("moment", [lambda: "1", lambda: formatdate(time() + 2, usegmt=True)])
async def test_retry_after_is_honoured(server: Server, moment: Callable[[], str]) -> None:
    """Seconds or a date: it does not come back before."""
    server.script = [fails(429, Retry_After=moment())]
    async with talking(server) as remote:
        made = await remote.generate("hi", sampling=SAMPLING)
    assert made.text == " hello from talk"
    assert made.seconds >= 0.9  # a date has no fractions; without the header it would be half a second at most


async def test_a_server_that_is_busy_for_long(server: Server) -> None:
    """An hour is not waited for, and a minute only as long as people have patience."""
    async with talking(server, answer_timeout=0.2) as remote:
        server.script = [fails(429, Retry_After="3600")]
        with pytest.raises(Overloaded, match="busy"):
            await remote.generate("hi", sampling=SAMPLING)
        server.script = [fails(429, Retry_After="60")]
        with pytest.raises(Unavailable, match="did not answer within"):
            await remote.generate("hi", sampling=SAMPLING)


async def test_a_server_that_is_down() -> None:
    """Nobody listens: one sentence that names the address and what to do."""
    remote = OpenAIGenerator("http://127.0.0.1:9/v1", model="talk", api_key=KEY, retries=1)
    with pytest.raises(
        Unavailable, match=r"^the server at http://127\.0\.0\.1:9/v1 cannot be reached .*PERSON2_REMOTE_URL$"
    ):
        await remote.generate("hi", sampling=SAMPLING)
    await remote.close()


async def test_a_server_that_hangs(server: Server) -> None:
    """It is given up after the timeout, once."""
    server.hang = asyncio.Event()
    async with talking(server, answer_timeout=0.2) as remote:
        with pytest.raises(Unavailable, match=r"did not answer within 0\.2 seconds"):
            await remote.generate("hi", sampling=SAMPLING)
    assert len(server.asked) == 1


@pytest.mark.parametrize("text", ["", "<html>", "[]", "null", "{}", '{"choices": []}', '{"choices": [{"text": 3}]}'])
async def test_answers_that_are_none(server: Server, text: str) -> None:
    """Whatever stands behind the URL, a person reads one sentence."""
    server.script = [says(text)]
    async with talking(server) as remote:
        with pytest.raises(GeneratorError, match="not like a completions server: check PERSON2_REMOTE_URL"):
            await remote.generate("hi", sampling=SAMPLING)


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (401, Unavailable, "does not accept the key: set PERSON2_REMOTE_API_KEY"),
        (403, Unavailable, "does not accept the key"),
        (302, Unavailable, "has moved: set PERSON2_REMOTE_URL"),
        (400, GeneratorError, "refused the request"),
        (404, GeneratorError, "refused the request"),
    ],
)
async def test_refusals_are_not_retried(server: Server, status: int, error: type[Exception], sentence: str) -> None:
    """Asking again would not help: one attempt, one sentence."""
    server.script = [fails(status, Location="http://elsewhere.invalid/")]
    async with talking(server) as remote:
        with pytest.raises(error, match=sentence):
            await remote.generate("hi", sampling=SAMPLING)
    assert len(server.asked) == 1


async def test_an_unknown_model(server: Server) -> None:
    """The base's name is wrong: set PERSON2_REMOTE_MODEL."""
    async with talking(server) as remote:
        server.models = {"other": None}
        with pytest.raises(GeneratorError, match="has no model talk: set PERSON2_REMOTE_MODEL"):
            await remote.generate("hi", sampling=SAMPLING)


async def test_the_key_is_never_shown(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a representation, nor in an error that repeats it, nor in the log."""
    caplog.set_level(logging.DEBUG)
    server.script = [
        lambda: web.Response(status=400, text=f"Incorrect API key: {KEY}"),
        says("<html>"),
    ]
    server.url = server.url.replace("http://", "http://user:pass-word@")
    async with talking(server) as remote:
        seen = repr(remote) + str(remote.status())
        for _ in range(2):
            with pytest.raises(GeneratorError) as caught:
                await remote.generate("hi", sampling=SAMPLING)
            error: BaseException | None = caught.value
            while error is not None:
                seen += repr(error) + str(error)
                error = error.__cause__ or error.__context__
    assert "Incorrect API key: …" in seen
    for secret in (KEY, "pass-word"):
        assert secret not in seen + caplog.text


async def test_a_prompt_over_the_context_loses_its_oldest_lines(server: Server) -> None:
    """The newest whole turns are kept, the rest goes until the server is content."""
    server.longest = 100
    prompt = "".join(f"Person{1 + n % 2}: line {n}\n" for n in range(40)) + "Person2:"
    async with talking(server) as remote:
        await remote.generate(prompt, sampling=SAMPLING)
        await remote.generate("x" * 100_000, sampling=SAMPLING)
    kept = server.asked[-1]["prompt"]
    assert set(kept) == {"x"}
    sent = next(body["prompt"] for body in server.asked if len(body["prompt"]) <= 100)
    assert prompt.endswith(sent)
    assert sent.startswith("Person")


async def test_a_server_of_few_words(server: Server) -> None:
    """One that knows OpenAI's fields alone is asked without the others from then on."""
    server.fussy = True
    async with talking(server) as remote:
        for _ in range(2):
            await remote.generate("hi", sampling=SAMPLING)
    assert ["repetition_penalty" in body for body in server.asked] == [True, False, False]


async def test_adapters_are_model_names(server: Server) -> None:
    """By their id; one that is not served is an adapter's fault, not the server's."""
    known = Adapter(id="small-talk", path=Path("x"))
    async with talking(server) as remote:
        await remote.load(known)
        made = await remote.generate("hi", sampling=SAMPLING, adapter=known)
        assert (made.text, made.adapter) == (" hello from small-talk", "small-talk")
        stranger = Adapter(id="stranger", path=Path("folder"))
        with pytest.raises(AdapterError, match=r"start vLLM with --enable-lora --lora-modules stranger=/.*folder"):
            await remote.load(stranger)
        with pytest.raises(AdapterError, match="does not serve the adapter 'stranger'"):
            await remote.generate("hi", sampling=SAMPLING, adapter=stranger)
        server.can_load = True
        await remote.load(stranger)
        assert (await remote.generate("hi", sampling=SAMPLING, adapter=stranger)).text == " hello from stranger"


def test_the_estimate_is_on_the_safe_side() -> None:
    """Never fewer as text grows, and one more for a started token."""
    remote = OpenAIGenerator("http://127.0.0.1:9", model="talk")
    counts = [remote.count_tokens(text) for text in ("", "a", "hey", "hello", "hello there", "🎉🎉🎉")]
    assert counts == [0, 1, 1, 2, 4, 4]


async def test_another_program_s_key_stays_where_it_is(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_API_KEY is not sent to the operator's server; credentials in its address are."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    remote = OpenAIGenerator(server.url, model="talk")
    await remote.generate("hi", sampling=SAMPLING)
    await remote.close()
    remote = OpenAIGenerator(server.url.replace("http://", "http://user:word@"), model="talk")
    await remote.generate("hi", sampling=SAMPLING)
    await remote.close()
    assert server.keys == {"Bearer EMPTY", "Basic dXNlcjp3b3Jk"}


async def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """PERSON2_GENERATOR=remote says what to install."""
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "core.generator.openai")
    with pytest.raises(SettingsError, match=r"needs the package openai.*`pip install openai`"):
        await open_generator(Settings(generator="remote", remote_url="http://127.0.0.1:9", remote_model="talk"))
