"""The fast voice: many conversations, many adapters, one batch, on a CPU.

`load` builds an `Engine`, which is a `core.generator.Generator`. The files, from the outside in: `engine` (queue,
thread, port), `batch` (who computes what next), `keeping` (keys and values of conversations, bounded), `sampling`,
`tokens`, `lora` and `checkpoint` (what lies on disk), `network` (what is asked of a model) with its two answers,
`eager` (torch; kernels in `linear`) and `native` (one compiled call a step). Only the wiring imports this package.
"""

import ctypes
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from platformdirs import user_cache_path

from core.adapterfiles import folder_fingerprint
from core.errors import ModelError
from core.generator.engine.checkpoint import Shape, Take, find, opened, read_shape
from core.generator.engine.compiler import library
from core.generator.engine.eager import Eager, Precision
from core.generator.engine.engine import Engine, Limits
from core.generator.engine.keeping import Keeping
from core.generator.engine.lora import MODULES, Site
from core.generator.engine.native import Native, serves
from core.generator.engine.network import Network
from core.generator.engine.tokens import read_tokens

__all__ = ["Engine", "load"]

MAX_BATCH = 32
QUEUE_LIMIT = 64
"""Requests that may wait: at 30 replies a second for GPT-2 small in full batches, the last waits a few seconds."""
CACHE_MB = 640
"""Holds 32 conversations of 512 tokens of GPT-2 small in bfloat16 (604 MB)."""
MAX_THREADS = 16
"""For the compiled network: a step is bound by memory, and more threads meet more slowly than they compute."""
MAX_ADAPTERS = 32
"""In memory at once; at rank 8 one costs GPT-2 small 5 MB."""
PREFILL_CHUNK = 128
"""About as long as two steps of a full batch."""


def load(
    base: str | Path,
    *,
    precision: Precision = "int8",
    threads: int | None = None,
    max_batch: int = MAX_BATCH,
    queue_limit: int = QUEUE_LIMIT,
    max_adapters: int = MAX_ADAPTERS,
    cache_mb: int = CACHE_MB,
    prefill_chunk: int = PREFILL_CHUNK,
    compiled: bool = True,
    compiled_cache: Path | None = None,
    fresh_seed: Callable[[], int] = lambda: secrets.randbits(48),
    clock: Callable[[], float] = time.monotonic,
) -> Engine:
    """A generator ready to use. Blocks while it reads the model. Raises ModelError.

    `base` is a folder or a hub name; the network is touched only for a name that is not in the local cache.
    `precision` is int8 weights, or fp32 to equal transformers. `threads` is all processors unless given, and is set
    for torch as a whole. `cache_mb` bounds the keys and values of all conversations together. `compiled=False` keeps
    to torch's kernels; `compiled_cache` is where compiled ones are kept, the user's cache folder unless given.
    """
    for name, value in (
        ("threads", threads if threads is not None else 1),
        ("MAX_BATCH", max_batch),
        ("QUEUE_LIMIT", queue_limit),
        ("max_adapters", max_adapters),
        ("prefill_chunk", prefill_chunk),
    ):
        if value < 1:
            raise ModelError(f"{name} is {value}, and it should be 1 or more")
    if threads is not None:
        torch.set_num_threads(threads)
    folder = find(base)
    shape = read_shape(folder)
    tokens = read_tokens(folder)
    with opened(folder) as take:
        network = _network(shape, take, precision, (compiled_cache or _cache()) if compiled else None)
        biases = {name: take(name) for name in _biases(shape)}
    _give_back()
    keeping = Keeping(network, limit=cache_mb * 1_000_000)
    if network.room_bytes(shape.context) > cache_mb * 1_000_000:
        least = -(-network.room_bytes(shape.context) // 1_000_000)
        raise ModelError(
            f"cache_mb is {cache_mb}, and one whole conversation of this model takes {least}: allow that much"
        )

    def weights(site: Site) -> torch.Tensor:
        with opened(folder) as take:
            return take(f"h.{site[0]}.{site[1]}.weight").t()

    return Engine(
        network,
        tokens,
        keeping,
        name=str(base),
        device=f"cpu {precision} {type(network).__name__.lower()}, {torch.get_num_threads()} threads",
        fingerprint=folder_fingerprint(folder),
        biases=biases,
        weights=weights,
        limits=Limits(
            max_batch=max_batch, queue_limit=queue_limit, max_adapters=max_adapters, prefill_chunk=prefill_chunk
        ),
        fresh_seed=fresh_seed,
        clock=clock,
    )


def _give_back() -> None:
    """Return what packing the weights left behind to the system: 170 MB for GPT-2 small, where the C library can."""
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _cache() -> Path:
    return user_cache_path("person2", appauthor=False)


def _network(shape: Shape, take: Take, precision: Precision, cache: Path | None) -> Network:
    found = library(cache) if cache is not None and precision == "int8" and serves(shape) else None
    if found is not None:
        return Native(found, shape, take, threads=min(torch.get_num_threads(), MAX_THREADS))
    return Eager(shape, take, precision=precision)


def _biases(shape: Shape) -> list[str]:
    places = [f"h.{layer}.{name}" for layer in range(shape.layers) for name in (*MODULES, "ln_1", "ln_2")]
    return [f"{place}.bias" for place in (*places, "ln_f")]
