"""A tiny base and adapters for it, made once, and the generators over it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from core.generator import Adapter, Generator
from tests.generators import CONTEXT, KINDS, LOCAL, VOICES, Running, running
from tests.models import tiny_adapter, tiny_model


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"), width=64, positions=CONTEXT)


@pytest.fixture(scope="session")
def voices(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapter]:
    root = tmp_path_factory.mktemp("voices")
    return {name: Adapter(id=name, path=tiny_adapter(root / name, base, **options)) for name, options in VOICES.items()}


@pytest.fixture(params=KINDS)
async def made(request: pytest.FixtureRequest, base: Path) -> AsyncIterator[Running]:
    async with running(request.param, base) as ready:
        yield ready


@pytest.fixture(params=LOCAL)
async def local(request: pytest.FixtureRequest, base: Path) -> AsyncIterator[Generator]:
    async with running(request.param, base) as ready:
        yield ready.generator
