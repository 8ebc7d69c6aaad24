"""Each generator over a tiny base, with a gate in front of its model: what the tests of all generators share."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from core.generator import Adapter, Generator, Sampling, engine, transformers
from core.generator.openai import connect
from core.generator.transformers import TransformersGenerator
from core.generator.transformers.loader import load_base
from tests.model_server import BASE, ModelServer, serving
from tests.models import tiny_tokenizer

CONTEXT = 128
GREEDY = Sampling(temperature=0, max_new_tokens=12, stop="", repetition_penalty=1)
DRAWN = Sampling(seed=5, max_new_tokens=12, stop="", top_k=40)
PROMPTS = ("hi", "Person1: hello there\nPerson2:", "x" * 300, "é🎉 مرحبا", "")
VOICES: dict[str, dict[str, Any]] = {
    "plain": {"seed": 1},
    "rslora": {"seed": 2, "use_rslora": True, "rank": 8, "alpha_pattern": {"c_fc": 3}},
    "attention": {"seed": 3, "targets": ["c_attn"], "rank": 2},
    "biased": {"seed": 4, "bias": "lora_only", "rank_pattern": {"mlp.c_proj": 3}},
    "low-bias": {"seed": 5, "lora_bias": True},
}
ENGINES: dict[str, dict[str, Any]] = {
    "engine-fp32": {"precision": "fp32"},
    "engine-int8": {"precision": "int8", "kernels": "torch"},
    "engine-compiled": {"precision": "int8"},
}


LOCAL = (*ENGINES, "transformers")
EXACT = ("engine-fp32", "transformers")
"""Those that compute in float32."""
KINDS = (*LOCAL, "openai")
LOADS: dict[str, Callable[..., Any]] = {"engine": engine.load, "transformers": transformers.load}


class Gate:
    """Stands before the model: while it is shut, the thread that computes waits in the middle of a step; once it is
    broken, every step fails."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._reached = threading.Event()
        self.broken = False

    def __call__(self, *_: object) -> None:
        self._reached.set()
        assert self._open.wait(20), "nobody opened the gate"
        if self.broken:
            raise RuntimeError("the model is broken")

    def shut(self) -> None:
        self._open.clear()
        self._reached.clear()

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        """Until a step has begun since it was shut."""
        assert await asyncio.to_thread(self._reached.wait, 20)


@dataclass(kw_only=True)
class Running:
    generator: Generator
    gate: Gate
    thread: str
    """Name of the thread that computes for it."""


@asynccontextmanager
async def running(
    kind: str,
    base: Path,
    *,
    max_batch: int = 8,
    queue_limit: int = 100,
    max_adapters: int = 32,
    fresh_seed: Callable[[], int] = lambda: 1,
) -> AsyncIterator[Running]:
    """A generator: one of ENGINES, `transformers`, or `openai` and a server of its own over transformers."""
    gate = Gate()
    async with AsyncExitStack() as stack:
        made: Any
        if kind in ENGINES:
            made = engine.load(
                base,
                max_batch=max_batch,
                queue_limit=queue_limit,
                max_adapters=max_adapters,
                prefill_chunk=32,
                fresh_seed=fresh_seed,
                **ENGINES[kind],
            )
            before_step(made, gate)
        else:
            local = kind == "transformers"
            loaded = load_base(base, device="cpu")
            loaded.model.get_input_embeddings().register_forward_pre_hook(gate)
            made = TransformersGenerator(
                loaded,
                max_batch=max_batch,
                queue_limit=queue_limit if local else 1_000,
                max_adapters=max_adapters,
                fresh_seed=fresh_seed,
            )
        stack.push_async_callback(made.close)
        if kind == "openai":
            url = await stack.enter_async_context(serving(ModelServer(generator=made)))
            made = await connect(url, model=BASE, retries=0, in_flight=max_batch + queue_limit, fresh_seed=fresh_seed)
            stack.push_async_callback(made.close)
        stack.callback(gate.open)
        yield Running(generator=made, gate=gate, thread="engine" if kind in ENGINES else "transformers")


def before_step(made: engine.Engine, gate: Callable[[Any], None]) -> None:
    """Have the engine's model call `gate` with the chunks of each step."""
    model: Any = made.model
    forward = model.forward

    def gated(chunks: Any) -> Any:
        gate(chunks)
        return forward(chunks)

    model.forward = gated


def reference(base: Path, adapter: Adapter | None, prompt: str, tokens: int) -> str:
    """What transformers and peft write greedily by themselves, one request at a time."""
    tokenizer = tiny_tokenizer()
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter.path))
    model.eval()
    ids = tokenizer(prompt)["input_ids"][-(CONTEXT - tokens) :]
    with torch.inference_mode():
        made = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
    return str(tokenizer.decode(made[0, len(ids) :], skip_special_tokens=True)).rstrip("\ufffd")
