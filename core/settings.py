"""Every setting, typed, from the environment and `.env`. One message names every bad or missing variable.

Nothing is read at import. `.env.example` lists the same names; a test holds the two together.
"""

import logging
import os
import re
from dataclasses import replace
from datetime import time, timedelta
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values
from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from core.errors import SettingsError, listed
from core.generator import MAX_BEST_OF, Sampling
from core.policy import Rules

log = logging.getLogger(__name__)

UNPREFIXED = frozenset(
    {
        "database_url",
        "base_model",
        "adapter",
        "generator",
        "remote_url",
        "remote_model",
        "remote_api_key",
        "temperature",
        "top_p",
        "repetition_penalty",
        "best_of",
        "max_new_tokens",
        "ambient_chance",
        "allowed_channels",
        "quiet_hours",
        "user_rate",
        "queue_limit",
        "max_batch",
        "log_for_training",
        "retention_days",
        "log_format",
    }
)
"""Settings that once had no prefix and are still read without it."""

ENV_FILE_ONLY = frozenset({"DATABASE_URL"})
"""Old names that are read from `.env` only: in the environment they may belong to another program, whose database must
not be migrated."""


class Settings(BaseSettings):
    """Every setting; `variable` says what a field is called outside."""

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *ignored: PydanticBaseSettingsSource,
        **more: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Variables(settings_cls)

    home: Path = Field(
        default_factory=lambda: user_data_path("person2", appauthor=False),
        description="Folder for the database, adapters and reports",
    )
    database_url: str = Field(default="", description="Any SQLAlchemy URL; SQLite in PERSON2_HOME when empty")
    base_model: str = Field(
        default="starter", description="starter, smollm2, a hub name such as gpt2, a folder or a .gguf file"
    )
    adapter: str = Field(default="current", description="current, an adapter's id, a folder, or none")
    persona: str = Field(
        default="",
        description="Who the bot is, a sentence or a file: the system message of a chat model, else turns in front "
        "of the prompt",
    )
    generator: Literal["auto", "engine", "transformers", "remote"] = Field(
        default="auto", description="auto, engine (CPU), transformers (GPU or reference) or remote"
    )
    remote_url: str = Field(
        default="", description="OpenAI-compatible server, completions or chat, such as http://host:8000/v1"
    )
    remote_model: str = Field(default="", description="Name of the model on that server")
    remote_api_key: SecretStr | None = Field(default=None, description="Key for that server, if it needs one")

    discord_token: SecretStr | None = Field(default=None, description="Bot token from Discord's developer portal")
    discord_api_base: str = Field(
        default="", description="Discord's own API when empty; for proxies and compatible servers"
    )
    discord_gateway_url: str = Field(default="", description="Gateway address; the one that the API gives when empty")
    discord_proxy: str = Field(default="", description="HTTP proxy for Discord")
    discord_buttons: bool = Field(default=False, description="Put 👍 👎 🔁 under replies on Discord")

    slack_bot_token: SecretStr | None = Field(default=None, description="xoxb-… token; both transports need it")
    slack_app_token: SecretStr | None = Field(default=None, description="xapp-… token; Socket Mode needs it")
    slack_signing_secret: SecretStr | None = Field(default=None, description="Signing secret; HTTP needs it")
    slack_client_id: str = Field(
        default="",
        description="With the secret: workspaces install the bot over OAuth (HTTP only), no bot token needed",
    )
    slack_client_secret: SecretStr | None = Field(default=None, description="Client secret; OAuth needs it")
    slack_redirect_url: str = Field(
        default="", description="Public address of /slack/oauth_redirect; the app's first redirect URL when empty"
    )
    slack_api_url: str = Field(
        default="", description="Slack's own API when empty; for GovSlack and compatible servers"
    )
    slack_proxy: str = Field(default="", description="HTTP proxy for Slack")
    slack_http_host: str = Field(default="127.0.0.1", description="Address that HTTP mode listens on")
    slack_http_port: int = Field(default=3000, ge=0, le=65535, description="Port that HTTP mode listens on")
    slack_http_path: str = Field(default="/slack/events", description="Path of the request URL")
    slack_visible_commands: bool = Field(default=True, description="Answers to /person2 ask are visible to the channel")
    slack_buttons: bool = Field(default=False, description="Put 👍 👎 under replies on Slack")

    temperature: float | None = Field(
        default=None, ge=0, le=2, description="0 is greedy, 1 as the model learned, 2 wild; the model's own when empty"
    )
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="Nucleus sampling; 1 switches it off; the model's own when empty"
    )
    repetition_penalty: float | None = Field(
        default=None, ge=1, le=2, description="1 switches it off; the model's own when empty"
    )
    best_of: int | None = Field(
        default=None,
        ge=1,
        le=MAX_BEST_OF,
        description="Candidates per reply, of which the best is posted; 1 is quickest; the model's own when empty",
    )
    max_new_tokens: int = Field(default=60, ge=1, le=512, description="Longest reply, in tokens")

    ambient_chance: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Chance of an ambient answer: one to a message that is not addressed to the bot",
    )
    allowed_channels: frozenset[str] = Field(
        default=frozenset(), description="Channel ids, comma-separated; all when empty"
    )
    names: frozenset[str] = Field(
        default=frozenset(),
        description="Other names of the bot, comma-separated; it answers to them where a channel sets so",
    )
    cool_down: float = Field(default=2.0, ge=0, description="Minutes between two ambient answers in a channel")
    recall: bool = Field(default=False, description="Put up to two related earlier exchanges in front of the prompt")
    direct_messages: bool = Field(default=True, description="Answer direct messages")
    ignored: frozenset[str] = Field(
        default=frozenset(),
        description="Ids of members to ignore, or @ and ids of Discord roles, comma-separated",
    )
    burst_seconds: float = Field(
        default=1.5,
        ge=0,
        le=8,
        description="Messages at most this many seconds apart are one turn; 0 switches this off",
    )
    blocked_words: Path | None = Field(
        default=None,
        description="A file of words it must not say, one per line; @en stands for the slurs of a language",
    )
    quiet_hours: str = Field(
        default="", description="No ambient answers in this period, such as 23:00-07:00 local time"
    )
    user_rate: int = Field(default=12, ge=0, description="Answers a member may ask for per minute; 0 for no limit")
    queue_limit: int = Field(default=64, ge=1, description="Requests that may wait for the model")
    max_batch: int = Field(default=16, ge=1, le=256, description="Replies generated in one batch")
    kernels: Literal["auto", "avx512", "avxvnni", "avx2", "neon", "c", "torch"] = Field(
        default="auto", description="Compiled kernels of the engine: auto, avx512, avxvnni, avx2, neon, c or torch"
    )
    cache_mb: int | None = Field(
        default=None, ge=1, description="Megabytes for keys and values; an eighth of memory at most when empty"
    )
    log_for_training: Literal["off", "consented"] = Field(
        default="off", description="off, or consented: train on members who consented"
    )
    retention_days: int | None = Field(
        default=None, ge=1, description="Older messages are purged; kept forever when empty"
    )

    log_format: Literal["text", "json"] = Field(
        default="text", description="text, or json: one object per line, for machines"
    )

    @field_validator("allowed_channels", "ignored", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return frozenset(filter(None, re.split(r"[\s,]+", value))) if isinstance(value, str) else value

    @field_validator("names", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return frozenset(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("blocked_words", mode="before")
    @classmethod
    def _no_file(cls, value: Any) -> Any:
        return value or None

    @field_validator("quiet_hours")
    @classmethod
    def _hours(cls, value: str) -> str:
        if value and parse_hours(value) is None:
            raise ValueError("two times of day such as 23:00-07:00")
        return value

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'person2.db'}"

    @property
    def adapters_folder(self) -> Path:
        """The folder of the adapters."""
        return self.home / "adapters"

    def sampling(self, defaults: Sampling) -> Sampling:
        """What is set, else the model's defaults (`core.generator.defaults`)."""
        chosen: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "repetition_penalty": self.repetition_penalty,
            "best_of": self.best_of,
            "max_new_tokens": self.max_new_tokens,
        }
        return replace(defaults, **{name: value for name, value in chosen.items() if value is not None})

    @property
    def rules(self) -> Rules:
        return Rules(
            allowed_channels=self.allowed_channels,
            direct_messages=self.direct_messages,
            ignored=self.ignored,
            names=self.names,
            cool_down=timedelta(minutes=self.cool_down),
            ambient_chance=self.ambient_chance,
            quiet_hours=parse_hours(self.quiet_hours) if self.quiet_hours else None,
        )

    def require(self, *names: str) -> None:
        """Raise SettingsError naming every one of these variables that is not set."""
        missing = [variable(name) for name in names if not getattr(self, name)]
        if missing:
            raise SettingsError(
                f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} not set: "
                "put each into the environment or into .env (see .env.example)."
            )


def variable(field: str) -> str:
    """What a setting is called in the environment and in `.env`: ours have a prefix, the platforms' own have none."""
    name = field.upper()
    return name if field.startswith(("discord_", "slack_")) else f"PERSON2_{name}"


class _Variables(PydanticBaseSettingsSource):
    """The environment first, then `.env` of the working folder, then the names from before the prefix; an empty value
    is none."""

    def __call__(self) -> dict[str, Any]:
        environment, file = _environment(), _file()
        found: dict[str, str] = {}
        for field in self.settings_cls.model_fields:
            sources = [environment.get(variable(field)), file.get(variable(field))]
            if field in UNPREFIXED:
                old = field.upper()
                sources += [None if old in ENV_FILE_ONLY else environment.get(old), file.get(old)]
            value = next(filter(None, sources), None)
            if value is not None:
                found[field] = value
        return found

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not asked: `__call__` gives all fields at once."""
        return None, field_name, False


def _environment() -> dict[str, str]:
    return {name.upper(): value for name, value in os.environ.items()}


def _file() -> dict[str, str]:
    return {name.upper(): value for name, value in dotenv_values(".env", encoding="utf-8").items() if value}


def _warn_of_old_names() -> None:
    environment, file = _environment(), _file()
    old = {
        field.upper(): variable(field)
        for field in UNPREFIXED
        if not (environment.get(variable(field)) or file.get(variable(field)))
        and (environment.get(field.upper()) or file.get(field.upper()))
    }
    unread = [name for name in old if name in ENV_FILE_ONLY and not file.get(name)]
    for name in unread:
        log.info("%s in the environment is not read: it may be another program's; ours is %s", name, old.pop(name))
    if old:
        renamed = ", ".join(f"{name} is now {new}" for name, new in old.items())
        log.warning("Some settings have old names, which will stop working: %s.", renamed)


def parse_hours(text: str) -> tuple[time, time] | None:
    """`23:00-07:00` as two times of day; None if it is not that."""
    found = re.fullmatch(r"\s*(\d{1,2})(?::(\d{2}))?\s*-\s*(\d{1,2})(?::(\d{2}))?\s*", text)
    try:
        return (time(int(found[1]), int(found[2] or 0)), time(int(found[3]), int(found[4] or 0))) if found else None
    except ValueError:
        return None


def load_settings(**overrides: Any) -> Settings:
    """Read the environment and `.env` of the working folder; overrides win.

    Raises SettingsError, one for all faults. Values are not repeated in the message: they may be secrets.
    """
    try:
        settings = Settings(**overrides)
        _warn_of_old_names()
    except ValidationError as error:
        faults = [
            f"{variable(str(fault['loc'][0]))}: {_plain(fault['msg'])}"
            for fault in error.errors(include_input=False, include_url=False, include_context=False)
        ]
        raise SettingsError(f"Invalid settings ({len(faults)}): {'; '.join(faults)}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The file .env cannot be read ({error}).") from error
    return settings


def _plain(message: str) -> str:
    """pydantic's words, without its prefixes and final stop."""
    text = message.removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return text[:1].lower() + text[1:]
