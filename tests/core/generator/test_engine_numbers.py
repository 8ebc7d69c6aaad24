"""The engine's numbers: logits against transformers and peft, int8 against its own definition, choices against sums."""

import math
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from core.adapters.validation import folder_fingerprint
from core.errors import ModelError
from core.generator import Adapter, Sampling
from core.generator.engine.checkpoint import opened, read_config
from core.generator.engine.kernels import build
from core.generator.engine.kernels.library import find_kernels
from core.generator.engine.kv_cache import KVCachePool
from core.generator.engine.linear import Dense, Int8, Rounded, quantize
from core.generator.engine.lora import Lora, read_lora
from core.generator.engine.model import Chunk, Model
from core.generator.engine.model_native import NativeModel
from core.generator.engine.model_torch import TorchModel
from core.generator.sampling import RowSampling, choose
from tests.models import tiny_adapter, tiny_base, tiny_model

CONTEXT = 192
SCALED = 1 / 127 / math.sqrt(12)
"""Deviation of a rounding to int8, in units of the largest number."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


NATIVE = ("avx512", "avxvnni", "avx2", "i8mm", "neon", "c")
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": {"num_hidden_layers": 3, "tie_word_embeddings": False},
    "qwen2": {"intermediate_size": 96},
    "qwen3": {"head_dim": 48, "num_attention_heads": 6, "num_key_value_heads": 2},
}
"""What the small models have beside `tiny_base`'s own: widths that fill no whole block, an untied head."""


@pytest.fixture(scope="module", params=SIZES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "gpt2":
        return tiny_model(folder, width=128, heads=2, positions=CONTEXT)
    sizes = {
        "hidden_size": 128,
        "head_dim": 32,
        "intermediate_size": 160,
        "initializer_range": 0.12,
        **SIZES[request.param],
    }
    return tiny_base(folder, request.param, positions=CONTEXT, **sizes)


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path | None]:
    root = tmp_path_factory.mktemp("voices")
    family = read_config(base).family
    options: list[dict[str, Any]] = [
        {"rank": 8, "seed": 1},
        {"rank": 3, "seed": 2, "use_rslora": True, "alpha_pattern": {family.linear[1]: 5}},
        {"rank": 4, "seed": 3, "targets": [family.targets[-1]], "lora_bias": True},
    ]
    if family.name == "gpt2":
        options[1]["bias"] = "all"
        options[2]["bias"] = "lora_only"
    return [None, *(tiny_adapter(root / str(index), base, **each) for index, each in enumerate(options))]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kernels are compiled to, once for all tests here."""
    return tmp_path_factory.mktemp("kernels")


def model(base: Path, kind: str, compiled: Path, threads: int = 1) -> Model:
    with opened(base, read_config(base)) as checkpoint:
        if kind in ("fp32", "int8"):
            return TorchModel(checkpoint, precision="fp32" if kind == "fp32" else "int8")
        try:
            found = find_kernels(kind, compiled)
        except ModelError as error:
            pytest.skip(str(error))
        assert found is not None
        return NativeModel(found, checkpoint, threads=threads)


def loras(base: Path, adapters: Sequence[Path | None]) -> list[Lora | None]:
    config = read_config(base)
    with opened(base, config) as checkpoint:
        return [
            read_lora(
                Adapter(id=path.name, path=path),
                config,
                folder_fingerprint(base),
                checkpoint.biases(),
                lambda site: checkpoint.weight(*site),
            )
            if path
            else None
            for path in adapters
        ]


def random_tokens(base: Path, *lengths: int) -> list[list[int]]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(0, read_config(base).vocabulary, (n,), generator=draw).tolist() for n in lengths]


def true_logits(base: Path, adapter: Path | None, tokens: list[int]) -> Tensor:
    """(T, V) float32 of transformers and peft, one sequence alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    model.eval()
    with torch.inference_mode():
        found: Tensor = model(torch.tensor([tokens])).logits[0]
    return found


def test_fp32_logits_equal_transformers_and_peft(base: Path, adapters: list[Path | None], compiled: Path) -> None:
    """The base and three adapters in one batch, at every length up to the context: within 1e-4."""
    made = model(base, "fp32", compiled)
    texts = random_tokens(base, CONTEXT, CONTEXT, 37, 5)
    chunks = [
        Chunk(cache=made.new_cache(CONTEXT), start=0, tokens=tokens, lora=lora, logits=len(tokens))
        for tokens, lora in zip(texts, loras(base, adapters), strict=True)
    ]
    found = made.forward(chunks).split([len(tokens) for tokens in texts])
    for mine, adapter, tokens in zip(found, adapters, texts, strict=True):
        torch.testing.assert_close(mine, true_logits(base, adapter, tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 64, 100, CONTEXT - 1])
def test_fp32_logits_behind_a_reused_prefix(base: Path, adapters: list[Path | None], cut: int, compiled: Path) -> None:
    """What was read in another step, by another batch, in a smaller cache: the rest comes out the same to 1e-4."""
    made = model(base, "fp32", compiled)
    texts = random_tokens(base, *[CONTEXT] * 4)
    spoken = loras(base, adapters)
    small = [made.new_cache(cut) for _ in texts]
    for cache, tokens, lora in zip(small, texts, spoken, strict=True):
        made.forward([Chunk(cache=cache, start=0, tokens=tokens[:cut], lora=lora, logits=0)])
    caches = [cache.resized(CONTEXT, keep=cut) for cache in small]
    found = made.forward(
        [
            Chunk(cache=cache, start=cut, tokens=tokens[cut:], lora=lora)
            for cache, tokens, lora in zip(caches, texts, spoken, strict=True)
        ]
    )
    for mine, adapter, tokens in zip(found, adapters, texts, strict=True):
        torch.testing.assert_close(mine, true_logits(base, adapter, tokens)[-1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["int8", *NATIVE])
def test_int8_stays_near_fp32(base: Path, adapters: list[Path | None], kind: str, compiled: Path) -> None:
    """Rounded weights, activations, keys and values move the logits by a few hundredths of their spread."""
    exact, made = model(base, "fp32", compiled), model(base, kind, compiled)
    texts = random_tokens(base, *[64] * 4)
    spoken = loras(base, adapters)

    def logits(of: Model) -> Tensor:
        caches = [of.new_cache(64) for _ in texts]
        return of.forward(
            [
                Chunk(cache=cache, start=0, tokens=tokens, lora=lora, logits=len(tokens))
                for cache, tokens, lora in zip(caches, texts, spoken, strict=True)
            ]
        )

    right = logits(exact)
    error = (logits(made) - right).square().mean().sqrt() / right.std()
    assert error < 0.15  # this model's weights are large and few, so that errors do not average out as in a real one


@pytest.mark.parametrize("kind", NATIVE)
def test_a_compiled_row_has_the_same_bits_in_any_company(
    base: Path, adapters: list[Path | None], kind: str, compiled: Path
) -> None:
    """Alone or in any batch, read at once or in chunks, by one thread or three: not a bit differs."""
    texts = random_tokens(base, 90, 33, 64, 70)
    spoken = loras(base, adapters)
    one, three = model(base, kind, compiled), model(base, kind, compiled, threads=3)
    alone = [
        one.forward([Chunk(cache=one.new_cache(90), start=0, tokens=tokens, lora=lora)])[0].clone()
        for tokens, lora in zip(texts, spoken, strict=True)
    ]
    caches = [three.new_cache(90) for _ in texts]
    three.forward(
        [
            Chunk(cache=cache, start=0, tokens=tokens[:20], lora=lora, logits=0)
            for cache, tokens, lora in zip(caches, texts, spoken, strict=True)
        ]
    )
    chunks = [
        chunk
        for cache, tokens, lora in zip(caches, texts, spoken, strict=True)
        for chunk in (
            Chunk(cache=cache, start=20, tokens=tokens[20:31], lora=lora, logits=0),
            Chunk(cache=cache, start=31, tokens=tokens[31:], lora=lora),
        )
    ]
    together = three.forward(chunks)
    assert [torch.equal(mine, theirs) for mine, theirs in zip(alone, together, strict=True)] == [True] * 4


@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="oneDNN's int8 product saturates without VNNI: not used")
def test_int8_products_are_exact_where_they_say_so() -> None:
    """oneDNN's kernel equals the same rounding done in float32, for rows of any scale, in any batch."""
    draw = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(48, 64, generator=draw), torch.randn(48, generator=draw)
    rows = torch.randn(20, 64, generator=draw) * torch.logspace(-3, 3, 20)[:, None]
    fast, plain = Int8(weight, bias), Rounded(weight, bias)
    torch.testing.assert_close(fast(rows), plain(rows), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(fast(rows)[i : i + 3], fast(rows[i : i + 3])) for i in range(17))
    whole, scale = quantize(weight)
    assert whole.abs().max() == 127
    assert ((whole * scale[:, None] - weight).abs() <= scale[:, None] / 2 + 1e-6).all()
    spread = (fast(rows) - Dense(weight, bias)(rows)).div(rows.abs().amax(1, keepdim=True)).std()
    assert spread < 8 * SCALED * (1 + float(weight.abs().max()))


def test_fp32_products_do_not_depend_on_the_number_of_rows() -> None:
    """What greedy replies being the same in any batch rests upon."""
    draw = torch.Generator().manual_seed(1)
    kernel = Dense(torch.randn(192, 64, generator=draw), None)
    rows = torch.randn(70, 64, generator=draw)
    whole = kernel(rows)
    assert all(torch.equal(kernel(rows[:n]), whole[:n]) for n in range(1, 70))


def plainly(logits: torch.Tensor, seen: list[int], sampling: Sampling, number: float) -> int:
    """The token of `number` in the whole sorted vocabulary, as transformers' own processors leave it."""
    ids, scores = torch.tensor([seen]), logits[None].double()
    scores = RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty))(ids, scores)
    if not sampling.temperature:
        return int(scores.argmax())
    scores = TemperatureLogitsWarper(float(sampling.temperature))(ids, scores)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(ids, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    likely, tokens = scores[0].softmax(0).sort(descending=True)
    return int(tokens[torch.searchsorted(likely.cumsum(0), number, right=True)])


@pytest.mark.parametrize(
    "settings",
    [
        Sampling(temperature=0, repetition_penalty=1.2),
        Sampling(temperature=0.7, top_p=0.9),
        Sampling(temperature=2, top_p=0.99, repetition_penalty=1),
        Sampling(temperature=1, top_p=1, top_k=0),
        Sampling(temperature=1, top_p=1, top_k=5),
        Sampling(temperature=1.5, top_p=0.8, top_k=300),
        Sampling(temperature=1, top_p=0.01),
    ],
)
@pytest.mark.parametrize("kind", ["fp32", *NATIVE])
def test_choices_are_those_of_the_reference(base: Path, settings: Sampling, kind: str, compiled: Path) -> None:
    """Peaked and flat rows, mixed settings: the token the whole sorted vocabulary would give for the same number."""
    search = model(base, kind, compiled).search
    draw = torch.Generator().manual_seed(3)
    for trial in range(20):
        logits = torch.randn(6, 6001, generator=draw) * torch.tensor([[0.1], [1.0], [3.0], [5.0], [8.0], [0.01]])
        seen = [torch.randint(0, 6001, (30,), generator=draw).tolist() for _ in range(6)]
        mixed = [settings, settings, replace(settings, top_p=0.5), settings, Sampling(temperature=0), settings]
        right = [
            plainly(row, ids, each, Random(trial + i).random())
            for i, (row, ids, each) in enumerate(zip(logits, seen, mixed, strict=True))
        ]
        rows = [
            RowSampling(sampling=each, rng=Random(trial + i), seen=np.array(ids, dtype=np.int64))
            for i, (each, ids) in enumerate(zip(mixed, seen, strict=True))
        ]
        assert choose(logits, rows, search) == right


def test_what_is_drawn_follows_the_distribution() -> None:
    """Ten thousand draws from three tokens, the least likely cut off by top-p."""
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2])).expand(10_000, 3).clone()
    settings = Sampling(temperature=1, top_p=0.75, repetition_penalty=1)
    rows = [RowSampling(sampling=settings, rng=Random(i), seen=np.array([0])) for i in range(10_000)]
    counts = np.bincount(np.array(choose(logits, rows), dtype=np.int64), minlength=3) / 10_000
    assert counts[2] == 0
    assert abs(counts[0] - 0.625) < 0.02


def test_caches_are_lent_kept_and_given_up(base: Path, compiled: Path) -> None:
    """A table of turns: what is held already, what is let go, and never more bytes than allowed."""
    made = model(base, "fp32", compiled)
    pool = KVCachePool(made, limit=3 * made.cache_bytes(64))
    steps: list[tuple[str | None, list[int], int, int | None]] = [
        ("a", [1, 2, 3], 10, 0),  # conversation, prompt, tokens wanted, prompt tokens held
        ("a", [1, 2, 3, 4], 10, 3),
        ("a", [1, 2, 3, 4], 64, 3),  # the last one is always computed: its logits are wanted
        ("a", [9], 10, 0),  # it begins otherwise
        ("b", [1], 10, 0),
        ("c", [1], 10, 0),
        ("d", [1], 10, 0),  # no space: a, the oldest, gives way
        ("a", [9, 9], 10, 0),  # and b for a
        ("c", [1, 5], 100, 1),  # grows: d gives way
        (None, [1], 150, 0),  # everybody gives way
        ("e", [1], 200, None),  # more than there is
    ]
    for conversation, prompt, tokens, held in steps:
        lent = pool.acquire(conversation, prompt, tokens=tokens, lora=None)
        assert (lent and lent[1]) == held, conversation
        assert pool.used <= 3 * made.cache_bytes(64)
        if lent is not None:
            assert lent[0].capacity >= tokens
            pool.release(lent[0], conversation=conversation, tokens=prompt, lora=None)
    pool.clear()
    assert pool.used == 0


def test_without_a_library_torch_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No compiler, a compiler that fails: `auto` goes on with torch and says what to do, a name is refused."""
    monkeypatch.setattr(build, "file_name", lambda machine, system: "nowhere.so")  # none was built beside the sources
    monkeypatch.setattr(build, "local_compiler", lambda: None)
    assert find_kernels("auto", tmp_path / "cache") is None
    assert "no C compiler" in caplog.text
    assert "install gcc, clang or the package ziglang" in caplog.text
    with pytest.raises(ModelError, match="the c kernels are not available"):
        find_kernels("c", tmp_path / "cache")
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(build, "local_compiler", lambda: [str(broken)])
    assert find_kernels("auto", tmp_path / "cache") is None
    assert "it is broken" in caplog.text
    assert list((tmp_path / "cache").iterdir()) == []


def test_kernels_of_another_processor_are_refused(compiled: Path) -> None:
    """A kind that this machine cannot run is a sentence, not a crash."""
    foreign = "neon" if "c" in build.kinds_of("x86_64") and platform.machine() == "x86_64" else "avx512"
    with pytest.raises(
        ModelError, match=f"this processor cannot run the {foreign} kernels: set PERSON2_KERNELS to auto"
    ):
        find_kernels(foreign, compiled)
