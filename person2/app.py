"""The one place where memory, generator, registry and bots are constructed: every dependency is passed in from here.

Knows every layer and prints nothing. Heavy parts (torch, a platform's library) are imported by what needs them.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from core import dialogue
from core.adapters import AdapterRegistry
from core.adapters.judge import TrialJudge
from core.adapters.selection import AdapterSelection
from core.atomic_io import make_private
from core.blocked_words import read as read_blocked_words
from core.chat import Chat, ChatSettings
from core.commands import Commands
from core.errors import AdapterError, NumericalError, SettingsError
from core.generator import Adapter, Generator, Sampling
from core.generator.bases import locate
from core.generator.defaults import SAMPLING, sampling_of
from core.generator.installed_bases import installed_bases
from core.generator.persona import read_persona
from core.memory import Memory, open_memory
from core.settings import Settings, load_settings
from person2.healthcheck import HealthSource

log = logging.getLogger(__name__)

MODELS = Path(__file__).resolve().parent.parent / "models"
STARTER = MODELS / "starter"
"""The model that ships; in a wheel it lies beside this package as in a checkout."""

OWN_FILES = ("person2.db*", "people.key", "adapters", "runs", "retrain*", "import*", "heartbeats")
"""What this program keeps in its home, which may be a folder that contains other things too."""

MAX_OTHER_BASES = 2
"""Other bases that `train` compares with; each takes up to half a minute."""

PROMPT_ROOM = 32
"""Tokens that must remain for a prompt: one short question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Everything a bot needs, built and running."""

    settings: Settings
    memory: Memory
    registry: AdapterRegistry
    generator: Generator
    chat: Chat
    commands: Commands


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnableBot:
    """A constructed bot: what to run, and what the health check asks."""

    run: Callable[[], Coroutine[Any, Any, None]]
    health: HealthSource


def configured(**overrides: Any) -> Settings:
    """The settings; a home that exists is made readable by its owner only."""
    settings = load_settings(**overrides)
    home = settings.home
    with suppress(OSError):  # another user's; writing there fails with a sentence of its own
        if home.is_dir():
            home.chmod(0o700)
    for pattern in OWN_FILES:
        for path in home.glob(pattern):
            make_private(path)
    return settings


def now() -> datetime:
    return datetime.now(UTC)


def base_path(name: str) -> str:
    """What a loader understands: a folder, or the hub's name of a model. Raises ModelError (`core.generator.bases`)."""
    return locate(name, starter=STARTER)


def other_bases(settings: Settings) -> dict[str, str]:
    """Other bases on this machine that training could use: name → folder or hub name.

    The largest few that fit into memory, largest first.
    """
    from core.generator.engine.memory import total_memory

    fitting = [base.name for base in installed_bases(STARTER) if base.learning <= total_memory()]
    others = [name for name in reversed(fitting) if name != settings.base_model][:MAX_OTHER_BASES]
    return {name: base_path(name) for name in others}


def sampling(settings: Settings) -> Sampling:
    """Sampling settings for the model that PERSON2_BASE_MODEL or PERSON2_GENERATOR names. Raises ModelError."""
    remote = settings.generator == "remote"  # replies then come from another model than PERSON2_BASE_MODEL
    return settings.sampling(SAMPLING if remote else sampling_of(base_path(settings.base_model)))


def open_registry(settings: Settings) -> AdapterRegistry:
    return AdapterRegistry(
        settings.adapters_folder,
        bundled={base: MODELS / base / "adapters" for base in ("starter", "smollm2")},
        clock=now,
    )


def speech_test(settings: Settings) -> Callable[[Adapter], None]:
    """For `AdapterRegistry`'s `test`: the generator that a bot would use loads the adapter and generates one token.

    Raises AdapterError, ModelError, SettingsError and GeneratorError.
    """
    return lambda adapter: asyncio.run(_try_adapter(settings, adapter))


async def _try_adapter(settings: Settings, adapter: Adapter) -> None:
    generator = await open_generator(settings)
    try:
        await generator.load(adapter)
        one = Sampling(temperature=0.0, max_new_tokens=1)
        await generator.generate(
            dialogue.prompt([dialogue.Turn(dialogue.Speaker.PERSON1, "Hello.")]), sampling=one, adapter=adapter
        )
    except NumericalError as error:
        raise AdapterError(
            f"the adapter {adapter.id!r} produces numbers that overflow: its weights are damaged, so train it again"
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
            f"PERSON2_MAX_NEW_TOKENS={settings.max_new_tokens} leaves no room for a prompt: {settings.base_model} has "
            f"a context of {generator.context_length} tokens, for prompt and reply together; set it to "
            f"{max(1, generator.context_length - PROMPT_ROOM)} or less."
        )
    return generator


async def _open(settings: Settings) -> Generator:
    if settings.generator == "remote":
        settings.require("remote_url", "remote_model")
        try:
            from core.generator.openai import connect
        except ModuleNotFoundError as missing:
            raise SettingsError(
                "PERSON2_GENERATOR=remote needs the package openai, which is not installed: run `pip install openai` in"
                " the environment of person2."
            ) from missing
        return await connect(
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
async def open_app(
    settings: Settings, *, prefix: str = "/person2 ", seed: int | None = None, bursts: bool = True
) -> AsyncIterator[App]:
    """Construct everything, and close it in order; without `bursts` each line is answered at once. Raises
    Person2Error."""
    memory = await asyncio.to_thread(open_memory, settings.database)
    async with AsyncExitStack() as stack:
        stack.callback(memory.close)
        registry = open_registry(settings)
        generator = await open_generator(settings)
        stack.push_async_callback(generator.close)

        selection = AdapterSelection(registry, generator, base=settings.base_model, spec=settings.adapter)
        await selection.start()
        stack.push_async_callback(selection.stop)
        judge = TrialJudge(registry, memory.judgements, clock=now)
        stack.push_async_callback(_cancel, asyncio.create_task(judge.keep_judging(), name="trial"))
        chat = Chat(
            memory=memory,
            generator=generator,
            select_adapter=selection.adapter_for,
            adapter_failed=selection.failed,
            settings=ChatSettings(
                sampling=_fit_to_context(sampling(settings), generator),
                rules=settings.rules,
                blocked=read_blocked_words(settings.blocked_words) if settings.blocked_words else None,
                recall=settings.recall,
                people_hash=_people_hash(settings.home),
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
            adapters=lambda: tuple(card.id for card in registry.cards() if not card.withdrawn),
            forget=lambda platform, member: forget_member(settings, memory, registry, platform, member),
            stored=lambda platform, member: stored_of_member(settings, memory, registry, platform, member),
            trial=judge.standing,
            learned_from=lambda adapter: _people_learned_from(registry, adapter),
            prefix=prefix,
        )
        yield App(
            settings=settings, memory=memory, registry=registry, generator=generator, chat=chat, commands=commands
        )


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _people_learned_from(registry: AdapterRegistry, adapter: str) -> int | None:
    """How many people's words an adapter learned from; None where its card names none."""
    return next((len(card.people) or None for card in registry.cards() if card.id == adapter), None)


def _fit_to_context(drawn: Sampling, generator: Generator) -> Sampling:
    """Limit the reply length to what a very small context allows, where the settings leave it open."""
    return replace(drawn, max_new_tokens=max(1, min(drawn.max_new_tokens, generator.context_length - PROMPT_ROOM)))


def forget_member(settings: Settings, memory: Memory, registry: AdapterRegistry, platform: str, member: str) -> str:
    """What `forget-me` does, on a thread: deletes everything about a member and returns the receipt for them."""
    from training.privacy.forget import forget as forget_everywhere

    home = settings.home
    return str(
        forget_everywhere(platform, member, memory=memory, registry=registry, home=home, base=settings.base_model)
    )


def _people_hash(home: Path) -> Callable[[str], str]:
    """The keyed hash of this installation; the key is read, or created, on first use."""

    @cache
    def key() -> Any:
        from training.privacy.consent import PeopleKey

        return PeopleKey.at(home)

    return lambda person: str(key().of(person))


def stored_of_member(
    settings: Settings, memory: Memory, registry: AdapterRegistry, platform: str, member: str
) -> dict[str, Any]:
    """What `my-data` returns, on a thread."""
    from training.privacy.member_export import stored_of

    return stored_of(platform, member, memory=memory, registry=registry, home=settings.home)


def discord_bot(app: App) -> RunnableBot:
    """The Discord bot; `discord_token` is set."""
    from bots.discord import DiscordBot

    settings = app.settings
    assert settings.discord_token is not None  # noqa: S101 - required before anything was built
    bot = DiscordBot(
        app.chat,
        app.commands,
        token=settings.discord_token.get_secret_value(),
        api_base=settings.discord_api_base or None,
        gateway_url=settings.discord_gateway_url or None,
        proxy=settings.discord_proxy or None,
        buttons=settings.discord_buttons,
    )
    return RunnableBot(
        run=bot.run, health=HealthSource(name="discord", ready=lambda: bot.ready, trouble=bot.post_health.trouble)
    )


def slack_needs(settings: Settings, *, http: bool) -> tuple[str, ...]:
    """The settings that the Slack bot needs. Raises SettingsError where a bot token and OAuth are both configured."""
    # If only one of the two is set, `require` reports the other as missing.
    if http and (settings.slack_client_id or settings.slack_client_secret):
        if settings.slack_bot_token is not None:
            from bots.slack import BOTH_WAYS

            raise SettingsError(BOTH_WAYS)
        return "slack_client_id", "slack_client_secret", "slack_signing_secret"
    return "slack_bot_token", "slack_signing_secret" if http else "slack_app_token"


def slack_bot(app: App, *, http: bool) -> RunnableBot:
    """The Slack bot; what `slack_needs` names is set."""
    from bots.slack import OAuth, SlackBot

    settings = app.settings
    oauth = None
    if not http and (settings.slack_client_id or settings.slack_client_secret):
        log.warning("SLACK_CLIENT_ID and SLACK_CLIENT_SECRET are used over HTTP alone: Socket Mode ignores them")
    if http and settings.slack_client_secret is not None:
        oauth = OAuth(
            client_id=settings.slack_client_id,
            client_secret=settings.slack_client_secret.get_secret_value(),
            redirect_url=settings.slack_redirect_url or None,
        )
    bot = SlackBot(
        app.chat,
        app.commands,
        bot_token=settings.slack_bot_token.get_secret_value() if settings.slack_bot_token else "",
        app_token=settings.slack_app_token.get_secret_value() if settings.slack_app_token else None,
        signing_secret=settings.slack_signing_secret.get_secret_value() if settings.slack_signing_secret else None,
        oauth=oauth,
        api_url=settings.slack_api_url or None,
        proxy=settings.slack_proxy or None,
        http=http,
        host=settings.slack_http_host,
        port=settings.slack_http_port,
        path=settings.slack_http_path,
        visible_commands=settings.slack_visible_commands,
        buttons=settings.slack_buttons,
    )
    return RunnableBot(run=bot.run, health=HealthSource(name="slack", ready=bot.ready.is_set, trouble=bot.trouble))
