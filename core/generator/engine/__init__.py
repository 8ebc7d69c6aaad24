"""The CPU engine: many conversations, many adapters, one batch.

`load` builds an `Engine`, which is a `core.generator.Generator`. The files, from the outside in: `engine` (thread and
port), `scheduler` (continuous batching), `kv_cache` (keys and values of conversations, bounded), `tokenizer`, `lora`
and `checkpoint` (reading files), `model` (the interface of a model) with two implementations, `model_torch` (torch; its
matrix products in `linear`) and `model_native` (one compiled call per step, from `kernels`). The queue in front and the
choice of a token are `request_queue` and `sampling`, one folder up. Only `person2/app.py` imports this package.
"""

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import torch
from platformdirs import user_cache_path

from core.adapters.validation import folder_fingerprint
from core.errors import ModelError
from core.generator.bases import fetch
from core.generator.chat_template import read_chat_template
from core.generator.engine.checkpoint import Checkpoint, opened, read_config, read_json
from core.generator.engine.engine import Engine, EngineLimits
from core.generator.engine.kernels.library import ADVICE, find_kernels
from core.generator.engine.kv_cache import KVCachePool
from core.generator.engine.lora import Site
from core.generator.engine.memory import default_cache_mb, return_free_memory, return_large_blocks
from core.generator.engine.model import Model
from core.generator.engine.model_native import NativeModel, serves
from core.generator.engine.model_torch import Precision, TorchModel
from core.generator.engine.tokenizer import read_tokenizer

__all__ = ["Engine", "load"]

MAX_BATCH = 32
QUEUE_LIMIT = 64
"""Requests that may wait: at 30 replies a second for GPT-2 small in full batches, the last waits a few seconds."""
CACHE_TOKENS = 14_336
"""Tokens whose keys and values are cached by default: 56 conversations of 256 tokens, which take 95 MB with the bundled
model and 280 MB with GPT-2 small. More would only save computing again what was said long ago."""
IDLE_SECONDS = 600.0
"""How long the cache of a silent conversation is kept: people who are still talking answer within ten minutes, and
computing a prompt again takes a fraction of a second."""
MAX_THREADS = 16
"""For the compiled model: a step is bound by memory, and synchronising more threads costs more than they gain."""
MAX_ADAPTERS = 32
"""In memory at once; at rank 8 one costs GPT-2 small 5 MB."""
PREFILL_CHUNK = 128
"""Tokens of a prompt per step; they take about as long as two steps of a full batch."""


def load(
    base: str | Path,
    *,
    precision: Precision = "int8",
    threads: int | None = None,
    max_batch: int = MAX_BATCH,
    queue_limit: int = QUEUE_LIMIT,
    max_adapters: int = MAX_ADAPTERS,
    cache_mb: int | None = None,
    idle_seconds: float = IDLE_SECONDS,
    prefill_chunk: int = PREFILL_CHUNK,
    kernels: str = "auto",
    kernels_cache: Path | None = None,
    templated: bool = True,
    fresh_seed: Callable[[], int] = lambda: secrets.randbits(48),
    clock: Callable[[], float] = time.monotonic,
) -> Engine:
    """A generator ready to use. Blocks while it reads the model. Raises ModelError.

    `base` is a folder or a hub name; the network is used only for a name that is not in the local cache.
    `precision` is int8 weights, or fp32 to equal transformers. `threads` is all processors unless given, and is set
    for torch as a whole. `cache_mb` bounds the keys and values of all conversations together (an eighth of memory or
    CACHE_TOKENS unless given, whichever is less), and `idle_seconds` how long they are kept for a silent one.
    `kernels` names those for int8 (`auto`, `avx512`, `avxvnni`, `avx2`, `neon`, `c`), or `torch` for torch's;
    `kernels_cache` is where they are kept if they have to be compiled, the user's cache folder unless given. Without
    `templated` a base with a chat template is prompted as if it had none.
    """
    for name, value in (
        ("threads", threads if threads is not None else 1),
        ("PERSON2_MAX_BATCH", max_batch),
        ("PERSON2_QUEUE_LIMIT", queue_limit),
        ("max_adapters", max_adapters),
        ("prefill_chunk", prefill_chunk),
    ):
        if value < 1:
            raise ModelError(f"{name} is {value}; it must be 1 or more")
    if threads is not None:
        torch.set_num_threads(threads)
    return_large_blocks()
    folder = fetch(base)
    config = read_config(folder)
    tokenizer = read_tokenizer(folder, read_json(folder / "config.json"))
    with opened(folder, config) as checkpoint:
        model = _model(checkpoint, precision, kernels, kernels_cache or _cache())
        biases = checkpoint.biases()
    return_free_memory()
    least = -(-model.cache_bytes(config.context) // 1_000_000)
    if cache_mb is None:
        default = -(-model.cache_bytes(CACHE_TOKENS) // 1_000_000)
        cache_mb = max(min(default_cache_mb(), default), least)
    elif cache_mb < least:
        raise ModelError(
            f"PERSON2_CACHE_MB is {cache_mb}, but one conversation with this model takes {least}: set it to that"
        )
    pool = KVCachePool(model, limit=cache_mb * 1_000_000, clock=clock)

    def weights(site: Site) -> torch.Tensor:
        with opened(folder, config) as checkpoint:
            return checkpoint.weight(*site)

    return Engine(
        model,
        tokenizer,
        pool,
        name=str(base),
        device=f"cpu {precision}, {model.kernels} kernels, {torch.get_num_threads()} threads",
        fingerprint=folder_fingerprint(folder),
        biases=biases,
        template=read_chat_template(folder, tokenizer.library) if templated else None,
        weights=weights,
        limits=EngineLimits(
            max_batch=max_batch,
            queue_limit=queue_limit,
            max_adapters=max_adapters,
            prefill_chunk=prefill_chunk,
            idle_seconds=idle_seconds,
        ),
        fresh_seed=fresh_seed,
        clock=clock,
        advice=ADVICE if precision == "int8" and kernels == "auto" and isinstance(model, TorchModel) else "",
    )


def _cache() -> Path:
    return user_cache_path("person2", appauthor=False)


def _model(checkpoint: Checkpoint, precision: Precision, kernels: str, cache: Path) -> Model:
    if precision == "fp32" or kernels == "torch":
        return TorchModel(checkpoint, precision=precision)
    found = find_kernels(kernels, cache) if serves(checkpoint.config) else None
    if found is None:
        return TorchModel(checkpoint, precision=precision)
    return NativeModel(found, checkpoint, threads=min(torch.get_num_threads(), MAX_THREADS))
