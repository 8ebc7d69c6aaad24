"""The one place where core, generator and shelf are constructed: every dependency is passed in from here.

Knows every layer and prints nothing. Heavy parts (torch, a platform's library) are imported by what needs them.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core import dialogue
from core.adapters import Shelf
from core.chat import Chat, ChatSettings
from core.commands import Commands
from core.errors import AdapterError, NumericalError, StorageError
from core.generator import Adapter, Generator, Sampling
from core.generator.defaults import SAMPLING, sampling_of
from core.memory import Memory, open_memory
from core.settings import Settings
from core.voices import Voices

log = logging.getLogger(__name__)

STARTER = Path(__file__).resolve().parent.parent / "models" / "starter"
"""The model that ships; in a wheel it lies beside this package as in a checkout."""

PURGE_EVERY = timedelta(hours=1)
"""How often messages past their retention are deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """Everything a bot needs, built and running."""

    settings: Settings
    memory: Memory
    shelf: Shelf
    generator: Generator
    chat: Chat
    commands: Commands


def now() -> datetime:
    return datetime.now(UTC)


def base_path(name: str) -> str:
    """What a loader understands: `starter` is a folder of ours, other names and folders stay as they are."""
    return str(STARTER) if name == "starter" else str(Path(name).expanduser()) if name.startswith("~") else name


def sampling(settings: Settings) -> Sampling:
    """How the model that BASE_MODEL or GENERATOR names is drawn from. Raises ModelError."""
    remote = settings.generator == "remote"  # another model than BASE_MODEL speaks then
    return settings.sampling(SAMPLING if remote else sampling_of(base_path(settings.base_model)))


def open_shelf(settings: Settings) -> Shelf:
    return Shelf(settings.shelf, bundled=STARTER / "adapters", clock=now)


def trial(settings: Settings) -> Callable[[Adapter], None]:
    """For `Shelf.use`: the generator that a bot would use loads the adapter and says a word with it.

    Raises AdapterError, ModelError, SettingsError and GeneratorError.
    """
    return lambda adapter: asyncio.run(_say_a_word(settings, adapter))


async def _say_a_word(settings: Settings, adapter: Adapter) -> None:
    generator = await open_generator(settings)
    try:
        await generator.load(adapter)
        one = Sampling(temperature=0.0, max_new_tokens=1)
        await generator.generate(
            dialogue.prompt([dialogue.Turn(dialogue.Speaker.PERSON1, "Hello.")]), sampling=one, adapter=adapter
        )
    except NumericalError as error:
        raise AdapterError(
            f"the adapter {adapter.id!r} overflows in its first word: its weights are damaged, so train it again"
        ) from error
    finally:
        await generator.close()


async def open_generator(settings: Settings) -> Generator:
    """The generator that GENERATOR names. Raises ModelError, SettingsError, Unavailable."""
    if settings.generator == "remote":
        settings.require("remote_url", "remote_model")
        from core.generator import remote

        return await remote.connect(
            settings.remote_url,
            model=settings.remote_model,
            api_key=settings.remote_api_key.get_secret_value() if settings.remote_api_key else "",
            in_flight=settings.queue_limit,
        )
    return await asyncio.to_thread(_load, settings)


def _load(settings: Settings) -> Generator:
    base = base_path(settings.base_model)
    if settings.generator == "transformers" or (settings.generator == "auto" and _has_gpu()):
        from core.generator import transformers

        return transformers.load(base, max_batch=settings.max_batch, queue_limit=settings.queue_limit)
    from core.generator import engine

    return engine.load(base, max_batch=settings.max_batch, queue_limit=settings.queue_limit)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@asynccontextmanager
async def open_house(settings: Settings, *, prefix: str = "/person2 ", seed: int | None = None) -> AsyncIterator[House]:
    """Build everything once, and take it down in order. Raises Person2Error with what is wrong."""
    memory = await asyncio.to_thread(open_memory, settings.database)
    async with AsyncExitStack() as stack:
        stack.callback(memory.close)
        shelf = open_shelf(settings)
        generator = await open_generator(settings)
        stack.push_async_callback(generator.close)

        voices = Voices(shelf, generator, base=settings.base_model, spec=settings.adapter)
        await voices.start()
        stack.push_async_callback(voices.stop)
        chat = Chat(
            memory=memory,
            generator=generator,
            voice=voices.voice_for,
            voice_failed=voices.failed,
            settings=ChatSettings(sampling=sampling(settings), rules=settings.rules, user_rate=settings.user_rate),
            clock=now,
            rng=random.Random(seed),  # noqa: S311 - ambient chance and sampling seeds, no secret
        )
        commands = Commands(
            chat=chat,
            clock=now,
            started_at=now(),
            voices=lambda: tuple(card.id for card in shelf.cards() if not card.withdrawn),
            forget=lambda platform, member: forget_member(settings, memory, shelf, platform, member),
            stored=lambda platform, member: stored_of_member(settings, memory, shelf, platform, member),
            prefix=prefix,
        )
        yield House(settings=settings, memory=memory, shelf=shelf, generator=generator, chat=chat, commands=commands)


def forget_member(settings: Settings, memory: Memory, shelf: Shelf, platform: str, member: str) -> str:
    """What `forget-me` does, on a thread: everything of a member goes; gives the receipt they read."""
    from training.forgetting import forget as forget_everywhere

    home = settings.person2_home
    return str(forget_everywhere(platform, member, memory=memory, shelf=shelf, home=home, base=settings.base_model))


def stored_of_member(settings: Settings, memory: Memory, shelf: Shelf, platform: str, member: str) -> dict[str, Any]:
    """What `my-data` hands over, on a thread."""
    from training.handing import stored_of

    return stored_of(platform, member, memory=memory, shelf=shelf, home=settings.person2_home)


async def keep_retention(memory: Memory, days: int | None) -> None:
    """Delete what is past its retention, now and every hour, until cancelled."""
    while True:
        try:
            await asyncio.to_thread(_purge, memory, days)
        except StorageError as error:
            log.warning("old messages could not be purged: %s", error)
        await asyncio.sleep(PURGE_EVERY.total_seconds())


def _purge(memory: Memory, days: int | None) -> None:
    if days is not None:
        memory.purge(before=now() - timedelta(days=days))
    memory.purge_channels(cutoff={own: now() - timedelta(days=own) for own in memory.retentions()})
