"""An OpenAI-compatible completions server over a generator of ours: to `core.generator.openai` what vLLM is, but small.

Its models are the base, called BASE, and adapters by their names.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from core.errors import AdapterError, GeneratorError
from core.generator import Adapter, Generator, Sampling

BASE = "base"


@dataclass(kw_only=True)
class ModelServer:
    generator: Generator
    adapters: dict[str, Adapter] = field(default_factory=dict)

    async def completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, prompt = body["model"], body["prompt"]
        if name != BASE and name not in self.adapters:
            return _complaint(404, f"The model `{name}` does not exist.")
        asked = self.generator.count_tokens(prompt) + body["max_tokens"]
        if asked > self.generator.context_length:
            longest = self.generator.context_length
            return _complaint(400, f"This model's maximum context length is {longest} tokens; you asked for {asked}.")
        sampling = Sampling(
            temperature=body["temperature"],
            top_p=body["top_p"],
            top_k=body.get("top_k", 0),
            repetition_penalty=body.get("repetition_penalty", 1),
            max_new_tokens=body["max_tokens"],
            seed=body["seed"],
            stop=(body.get("stop") or [""])[0],
        )
        try:
            made = await self.generator.generate(prompt, sampling=sampling, adapter=self.adapters.get(name))
        except GeneratorError as error:
            return _complaint(500, str(error))
        return web.json_response(
            {
                "choices": [{"index": 0, "text": made.text, "finish_reason": made.finish}],
                "usage": {"prompt_tokens": made.prompt_tokens, "completion_tokens": made.new_tokens},
            }
        )

    async def models(self, _: web.Request) -> web.Response:
        longest = self.generator.context_length
        return web.json_response({"data": [{"id": name, "max_model_len": longest} for name in (BASE, *self.adapters)]})

    async def load_adapter(self, request: web.Request) -> web.Response:
        body = await request.json()
        adapter = Adapter(id=body["lora_name"], path=Path(body["lora_path"]))
        try:
            await self.generator.load(adapter)
        except AdapterError as error:
            return _complaint(400, str(error))
        self.adapters[adapter.id] = adapter
        return web.Response(text="Success")


def _complaint(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)


@asynccontextmanager
async def serving(server: ModelServer) -> AsyncIterator[str]:
    """The address of the server while it runs, on loopback."""
    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/completions", server.completions),
            web.get("/v1/models", server.models),
            web.post("/v1/load_lora_adapter", server.load_adapter),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
