"""What transformers alone does: its number formats, its devices, and no network for a folder."""

import asyncio
from pathlib import Path

import pytest
import torch

from core.adapters.validation import CONFIG, WEIGHTS
from core.errors import ModelError
from core.generator import Adapter
from core.generator.transformers import TransformersGenerator, load
from core.generator.transformers.loader import load_base
from tests.generators import DRAWN, GREEDY
from tests.models import tiny_model
from training.finetune.base import wants_bf16


async def test_half_precision_files_become_float32(tmp_path: Path) -> None:
    """On a CPU the sums are float32, whatever the disk holds."""
    generator = load(tiny_model(tmp_path, dtype=torch.float16), device="cpu")
    assert generator.status().device == "cpu float32"
    assert (await generator.generate("hi", sampling=GREEDY)).new_tokens == 12
    await generator.close()


async def test_bfloat16_speaks_too(base: Path, voices: dict[str, Adapter]) -> None:
    """As on a GPU: base and adapters in bfloat16, alone and mixed in one batch, the same again each way.

    In company only where bfloat16 is native: elsewhere torch emulates it with kernels that round by the size of the
    batch, and who shares a batch is up to time.
    """
    loaded = load_base(base, device="cpu", dtype=torch.bfloat16)
    generator = TransformersGenerator(loaded, max_batch=4)
    assert generator.status().device == "cpu bfloat16"
    jobs = [None, *voices.values()]
    alone = [[(await generator.generate("hi", sampling=DRAWN, adapter=a)).text for a in jobs] for _ in range(2)]
    assert alone[0] == alone[1]
    first, second = [
        [one.text for one in await asyncio.gather(*(generator.generate("hi", sampling=DRAWN, adapter=a) for a in jobs))]
        for _ in range(2)
    ]
    assert first == second or not wants_bf16("auto")
    assert [len(set(texts)) for texts in (first, second)] == [len(jobs)] * 2
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}
    await generator.close()


def test_a_device_that_is_not_there(base: Path) -> None:
    """The sentence names it and those to choose among."""
    with pytest.raises(ModelError, match="no device 'abacus' on this machine: use auto, cpu or cuda"):
        load(base, device="abacus")


def test_a_folder_never_asks_the_network(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a local folder opens no socket at all."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    async def once() -> None:
        generator = load(base, device="cpu")
        with monkeypatch.context() as patch:
            patch.setattr("socket.socket.connect", refuse)
            await generator.generate("hi", sampling=GREEDY)
        await generator.close()

    with monkeypatch.context() as patch:
        patch.setattr("socket.socket.connect", refuse)
        patch.setattr("socket.getaddrinfo", refuse)
        load_check = load(base, device="cpu")
    asyncio.run(load_check.close())
    asyncio.run(once())


def test_the_fixture_adapters_are_what_peft_writes(voices: dict[str, Adapter]) -> None:
    """The tests' own adapters carry peft's two files."""
    assert all((adapter.path / name).is_file() for adapter in voices.values() for name in (CONFIG, WEIGHTS))
