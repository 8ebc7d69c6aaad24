"""What members click and type: the `/person2` group, context menus and buttons, built from the table of commands.

Knows discord.py's command tree; runs nothing itself: every use is passed to a `CommandTarget`.
"""

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import discord
from discord import app_commands

from core.commands import COMMANDS, Command

GROUP = "person2"
ADMIN_PREFIX = "person2-"
"""Discord has permissions for whole commands only, not for subcommands: each admin command is also one of its own
(`/person2-settings`), hidden from members who may not manage channels; the subcommand checks when it is run."""

LONGEST_QUESTION = 4000
MAX_CHOICES = 25
"""Choices of one option (https://discord.com/developers/docs/interactions/application-commands)."""

ANOTHER = "Person2: another answer"
WHY = "Person2: why?"


class Button(StrEnum):
    """Custom ids of buttons: they contain all that is needed, so that buttons work after a restart."""

    LIKE = "person2:like"
    DISLIKE = "person2:dislike"
    AGAIN = "person2:again"
    FORGET = "person2:forget"


_INSTALLS = app_commands.AppInstallationType(guild=True, user=True)
_CONTEXTS = app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True)
_DESCRIPTIONS = {
    "question": "What you want to say",
    "name": "Which one",
    "value": "The new value; “default” restores the operator's setting",
    "choice": "Your choice",
}

Interaction = discord.Interaction[Any]


class CommandTarget(Protocol):
    """What runs the commands."""

    async def command(self, interaction: Interaction, name: str, argument: str) -> None: ...

    async def another(self, interaction: Interaction, post: str) -> None: ...

    async def why(self, interaction: Interaction, post: str) -> None: ...

    async def feedback(self, interaction: Interaction, liked: bool) -> None: ...

    async def suggest(self, interaction: Interaction, command: str, option: str, typed: str) -> list[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    name: str
    required: bool
    choices: tuple[str, ...] = ()


def options(command: Command) -> tuple[Option, ...]:
    """Options of a command from the argument its help shows: `QUESTION`, `[NAME]`, `[yes|no]`, `[NAME VALUE]`."""
    required = not command.argument.startswith("[")
    found = []
    for number, word in enumerate(command.argument.strip("[]").split()):
        if word.isupper():
            choices = command.choices if number == 0 else ()
            found.append(Option(name=word.lower(), required=required, choices=choices))
        else:
            found.append(Option(name="choice", required=required, choices=command.choices or tuple(word.split("|"))))
    return tuple(found)


def build(tree: "app_commands.CommandTree[Any]", target: CommandTarget) -> None:
    """Fill the tree: the group, the admin commands on their own, the context menus."""
    group = app_commands.Group(
        name=GROUP, description="Talk with Person2", allowed_installs=_INSTALLS, allowed_contexts=_CONTEXTS
    )
    for command in COMMANDS:
        group.add_command(_slash(command, target))
        if command.admin:
            alone = _slash(command, target, name=f"{ADMIN_PREFIX}{command.name}")
            alone.default_permissions = discord.Permissions(manage_channels=True)
            alone.allowed_contexts = app_commands.AppCommandContext(guild=True)
            alone.allowed_installs = app_commands.AppInstallationType(guild=True)
            tree.add_command(alone)
    tree.add_command(group)

    async def another(interaction: Interaction, message: discord.Message) -> None:
        await target.another(interaction, str(message.id))

    async def why(interaction: Interaction, message: discord.Message) -> None:
        await target.why(interaction, str(message.id))

    for name, callback in ((ANOTHER, another), (WHY, why)):
        tree.add_command(
            app_commands.ContextMenu(
                name=name, callback=callback, allowed_installs=_INSTALLS, allowed_contexts=_CONTEXTS
            )
        )


def _slash(
    command: Command, target: CommandTarget, *, name: str | None = None
) -> "app_commands.Command[Any, ..., None]":
    """discord.py reads a command's options from its callback's signature; this one is made from the table."""
    wanted = options(command)

    async def use(interaction: Interaction, **given: str) -> None:
        words = (given.get(option.name, "") for option in wanted)
        await target.command(interaction, command.name, " ".join(word for word in words if word))

    use.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # functions have it, though typeshed does not
        [
            inspect.Parameter("interaction", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Interaction),
            *(
                inspect.Parameter(
                    option.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    annotation=app_commands.Range[str, 1, LONGEST_QUESTION] if option.required else str,
                    default=inspect.Parameter.empty if option.required else "",
                )
                for option in wanted
            ),
        ]
    )
    callback: Callable[..., Any] = use
    if wanted:
        callback = app_commands.describe(**{option.name: _DESCRIPTIONS[option.name] for option in wanted})(callback)
    for option in wanted:
        if option.choices:
            choices = [app_commands.Choice(name=choice, value=choice) for choice in option.choices]
            callback = app_commands.choices(**{option.name: choices})(callback)
        elif not option.required:
            callback = app_commands.autocomplete(**{option.name: _suggest(command, option, target)})(callback)
    return app_commands.Command(name=name or command.name, description=command.summary, callback=callback)


def _suggest(
    command: Command, option: Option, target: CommandTarget
) -> Callable[[Interaction, str], Coroutine[Any, Any, list[app_commands.Choice[str]]]]:
    async def suggest(interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
        words = await target.suggest(interaction, command.name, option.name, current)
        fitting = [word for word in words if current.casefold() in word.casefold() and len(word) <= 100]
        return [app_commands.Choice(name=word, value=word) for word in fitting[:MAX_CHOICES]]

    return suggest


def buttons() -> discord.ui.View:
    """👍 👎 🔁 under an answer."""
    return _row((Button.LIKE, "👍", None), (Button.DISLIKE, "👎", None), (Button.AGAIN, "🔁", None))


def confirm() -> discord.ui.View:
    """The button under the question whether to forget a member."""
    return _row((Button.FORGET, None, "Delete everything"), style=discord.ButtonStyle.danger)


def _row(
    *made: tuple[str, str | None, str | None], style: discord.ButtonStyle = discord.ButtonStyle.secondary
) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for custom_id, emoji, label in made:
        view.add_item(discord.ui.Button(custom_id=custom_id, emoji=emoji, label=label, style=style))
    return view


async def pressed(interaction: Interaction, target: CommandTarget) -> None:
    """Handle a click on one of our buttons, by its id; ignore others."""
    post = str(interaction.message.id) if interaction.message is not None else ""
    data: Mapping[str, Any] = interaction.data or {}
    match data.get("custom_id"):
        case Button.LIKE:
            await target.feedback(interaction, True)
        case Button.DISLIKE:
            await target.feedback(interaction, False)
        case Button.AGAIN:
            await target.another(interaction, post)
        case Button.FORGET:
            await target.command(interaction, "forget-me", "yes")
