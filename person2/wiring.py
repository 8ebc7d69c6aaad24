"""The one place where core, generator and shelf are constructed: every dependency is passed in from here.

Knows every layer and prints nothing. Heavy parts (torch, a platform's library) are imported by what needs them.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core import dialogue
from core.adapters import AdapterRegistry
from core.adapters.selection import AdapterSelection
from core.atomic_io import make_private
from core.blocked_words import read as read_blocked_words
from core.chat import Chat, ChatSettings
from core.commands import Commands
from core.errors import AdapterError, NumericalError, SettingsError, StorageError
from core.generator import Adapter, Generator, Sampling
from core.generator.bases import locate
from core.generator.defaults import SAMPLING, sampling_of
from core.generator.persona import read_persona
from core.memory import Memory, open_memory
from core.settings import Settings, load_settings

log = logging.getLogger(__name__)

MODELS = Path(__file__).resolve().parent.parent / "models"
STARTER = MODELS / "starter"
"""The model that ships; in a wheel it lies beside this package as in a checkout."""

OURS = ("person2.db*", "people.key", "adapters", "runs", "retrain*", "import*", "heartbeats")
"""What this program keeps in its home; somebody may have made a folder the home that holds other things too."""

PROMPT_ROOM = 32
"""Tokens that must be left for a prompt: one short question."""

PURGE_EVERY = timedelta(hours=1)
"""How often messages past their retention are deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """Everything a bot needs, built and running."""

    settings: Settings
    memory: Memory
    shelf: AdapterRegistry
    generator: Generator
    chat: Chat
    commands: Commands


def configured(**overrides: Any) -> Settings:
    """The settings; where they name a home that is there, nobody but its owner can look into it from now on."""
    settings = load_settings(**overrides)
    home = settings.home
    with suppress(OSError):  # another user's: who writes there says so
        if home.is_dir():
            home.chmod(0o700)
    for pattern in OURS:
        for path in home.glob(pattern):
            make_private(path)
    return settings


def now() -> datetime:
    return datetime.now(UTC)


def base_path(name: str) -> str:
    """What a loader understands: a folder, or the hub's name of a model. Raises ModelError (`core.generator.bases`)."""
    return locate(name, starter=STARTER)


def sampling(settings: Settings) -> Sampling:
    """How the model that PERSON2_BASE_MODEL or PERSON2_GENERATOR names is drawn from. Raises ModelError."""
    remote = settings.generator == "remote"  # another model than PERSON2_BASE_MODEL speaks then
    return settings.sampling(SAMPLING if remote else sampling_of(base_path(settings.base_model)))


def open_shelf(settings: Settings) -> AdapterRegistry:
    return AdapterRegistry(
        settings.shelf, bundled={base: MODELS / base / "adapters" for base in ("starter", "smollm2")}, clock=now
    )


def trial(settings: Settings) -> Callable[[Adapter], None]:
    """For `AdapterRegistry.use`: the generator that a bot would use loads the adapter and says a word with it.

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
    """The generator that PERSON2_GENERATOR names. Raises ModelError, SettingsError, Unavailable."""
    generator = await _open(settings)
    room = generator.context_length - settings.max_new_tokens
    if "max_new_tokens" in settings.model_fields_set and room < PROMPT_ROOM:
        await generator.close()
        raise SettingsError(
            f"PERSON2_MAX_NEW_TOKENS={settings.max_new_tokens} leaves no room for a prompt: {settings.base_model} takes"
            f" {generator.context_length} tokens, prompt and reply together; set it to "
            f"{max(1, generator.context_length - PROMPT_ROOM)} or less."
        )
    return generator


async def _open(settings: Settings) -> Generator:
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

    return engine.load(
        base,
        max_batch=settings.max_batch,
        queue_limit=settings.queue_limit,
        kernels=settings.kernels,
        cache_mb=settings.cache_mb,
    )


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@asynccontextmanager
async def open_house(
    settings: Settings, *, prefix: str = "/person2 ", seed: int | None = None, bursts: bool = True
) -> AsyncIterator[House]:
    """Build everything once, and take it down in order; without `bursts` each line is answered at once. Raises
    Person2Error with what is wrong."""
    memory = await asyncio.to_thread(open_memory, settings.database)
    async with AsyncExitStack() as stack:
        stack.callback(memory.close)
        shelf = open_shelf(settings)
        generator = await open_generator(settings)
        stack.push_async_callback(generator.close)

        voices = AdapterSelection(shelf, generator, base=settings.base_model, spec=settings.adapter)
        await voices.start()
        stack.push_async_callback(voices.stop)
        chat = Chat(
            memory=memory,
            generator=generator,
            voice=voices.voice_for,
            voice_failed=voices.failed,
            settings=ChatSettings(
                sampling=_fitting(sampling(settings), generator),
                rules=settings.rules,
                blocked=read_blocked_words(settings.blocked_words) if settings.blocked_words else None,
                user_rate=settings.user_rate,
                retention_days=settings.retention_days,
                burst=settings.burst_seconds if bursts else 0.0,
                persona=read_persona(settings.persona),
            ),
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
            learned_from=lambda adapter: _people_behind(shelf, adapter),
            prefix=prefix,
        )
        yield House(settings=settings, memory=memory, shelf=shelf, generator=generator, chat=chat, commands=commands)


def _people_behind(shelf: AdapterRegistry, adapter: str) -> int | None:
    """How many people's words an adapter learned from; None where its card names none."""
    return next((len(card.people) or None for card in shelf.cards() if card.id == adapter), None)


def _fitting(drawn: Sampling, generator: Generator) -> Sampling:
    """Replies short enough for a very small model, where their length was left to us."""
    return replace(drawn, max_new_tokens=max(1, min(drawn.max_new_tokens, generator.context_length - PROMPT_ROOM)))


def forget_member(settings: Settings, memory: Memory, shelf: AdapterRegistry, platform: str, member: str) -> str:
    """What `forget-me` does, on a thread: everything of a member goes; gives the receipt they read."""
    from training.privacy.forget import forget as forget_everywhere

    home = settings.home
    return str(forget_everywhere(platform, member, memory=memory, shelf=shelf, home=home, base=settings.base_model))


def stored_of_member(
    settings: Settings, memory: Memory, shelf: AdapterRegistry, platform: str, member: str
) -> dict[str, Any]:
    """What `my-data` hands over, on a thread."""
    from training.privacy.member_export import stored_of

    return stored_of(platform, member, memory=memory, shelf=shelf, home=settings.home)


async def keep_retention(memory: Memory, days: int | None) -> None:
    """Delete what is past its retention and give the space back, now and every hour, until cancelled."""
    while True:
        try:
            await asyncio.to_thread(_purge, memory, days)
            await asyncio.to_thread(memory.compact)
        except StorageError as error:
            log.warning("old messages could not be purged: %s", error)
        await asyncio.sleep(PURGE_EVERY.total_seconds())


def _purge(memory: Memory, days: int | None) -> None:
    if days is not None:
        memory.purge(before=now() - timedelta(days=days))
    memory.purge_channels(cutoff={own: now() - timedelta(days=own) for own in memory.retentions()})
