"""Commands that look after the installation: `doctor` finds what is wrong and says how to mend it, `bench` measures."""

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.errors import Person2Error, PlatformError
from core.generator import Sampling
from core.memory import open_memory
from core.settings import Settings, load_settings
from person2.screen import err, out, write_json
from person2.wiring import open_generator, open_shelf

app = typer.Typer()

DISK_NEEDED = 1 << 30
"""Bytes free before disk space is called short: a training run keeps checkpoints of a few hundred megabytes."""

State = Literal["good", "look", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    what: str
    state: State
    says: str
    """What was found, and for anything but `good` what to click or type."""


@app.command(epilog="Example: `person2 doctor`")
def doctor(as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False) -> None:
    """Check settings, folder, disk, database, model, voice and both platforms; say how to mend each fault."""
    findings: list[Finding] = []

    def told(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            mark, colour = {"good": ("✓", "green"), "look": ("!", "yellow"), "bad": ("✗", "red")}[finding.state]
            out.print(f"[{colour}]{mark}[/] [bold]{finding.what}[/]  ", end="")
            out.print(finding.says, markup=False)

    asyncio.run(_examine(told))
    if as_json:
        write_json([asdict(finding) for finding in findings])
    if any(finding.state == "bad" for finding in findings):
        err.print("Something needs mending.")
        raise typer.Exit(1)


async def _examine(told: Callable[[Finding], None]) -> None:
    try:
        settings = load_settings()
    except Person2Error as error:
        told(Finding(what="settings", state="bad", says=str(error)))
        return
    told(Finding(what="settings", state="good", says="every variable can be read"))
    told(_home(settings.person2_home))
    told(_attempt("database", lambda: _database(settings)))
    told(await _model(settings))
    told(_attempt("voice", lambda: _voice(settings)))
    for finding in (await _discord(settings), await _slack(settings)):
        told(finding)


def _attempt(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what=what, state="good", says=look())
    except Person2Error as error:
        return Finding(what=what, state="bad", says=str(error))


def _home(home: Path) -> Finding:
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / ".doctor"
        probe.write_text("")
        probe.unlink()
        free = shutil.disk_usage(home).free
    except OSError as error:
        return Finding(
            what="folder", state="bad", says=f"{home} cannot be written ({error.strerror}); set PERSON2_HOME."
        )
    if free < DISK_NEEDED:
        return Finding(
            what="folder", state="look", says=f"{home} has {free >> 20} MB left; training wants 1 GB, free some."
        )
    return Finding(what="folder", state="good", says=f"{home}, {free >> 30} GB free")


def _database(settings: Settings) -> str:
    memory = open_memory(settings.database)
    try:
        memory.consented()
        return "opens, and its tables are up to date"
    finally:
        memory.close()


async def _model(settings: Settings) -> Finding:
    began = time.monotonic()
    try:
        generator = await asyncio.to_thread(open_generator, settings)
    except Person2Error as error:
        return Finding(what="model", state="bad", says=str(error))
    loaded = time.monotonic() - began
    try:
        done = await generator.generate(
            "Person1: Hello!\nPerson2:", sampling=Sampling(max_new_tokens=8, temperature=0, seed=0)
        )
    except Person2Error as error:
        return Finding(what="model", state="bad", says=str(error))
    finally:
        status = generator.status()
        await generator.close()
    return Finding(
        what="model",
        state="good",
        says=f"{settings.base_model} on {status.device}: loaded in {loaded:.1f} s, spoke in {done.seconds:.1f} s",
    )


def _voice(settings: Settings) -> str:
    found = open_shelf(settings).find(settings.adapter, base=settings.base_model)
    return f"{found.id} speaks" if found else "the bare base model speaks; `person2 train` makes a voice"


async def _discord(settings: Settings) -> Finding:
    if settings.discord_token is None:
        return Finding(
            what="Discord", state="look", says="DISCORD_TOKEN is not set; nothing to do if you do not use it."
        )
    from bots.discord import examine

    try:
        found = await examine(
            settings.discord_token.get_secret_value(),
            api_base=settings.discord_api_base or None,
            proxy=settings.discord_proxy or None,
        )
    except PlatformError as error:
        return Finding(what="Discord", state="bad", says=str(error))
    if not found.message_content:
        return Finding(
            what="Discord",
            state="look",
            says=f"{found.name} hears only mentions, replies and direct messages: switch on “Message Content "
            f"Intent” at https://discord.com/developers/applications → your application → Bot. Invite: {found.invite}",
        )
    return Finding(what="Discord", state="good", says=f"logged in as {found.name}. Invite: {found.invite}")


async def _slack(settings: Settings) -> Finding:
    if settings.slack_bot_token is None:
        return Finding(
            what="Slack", state="look", says="SLACK_BOT_TOKEN is not set; nothing to do if you do not use it."
        )
    from bots.slack import examine

    try:
        found = await examine(
            settings.slack_bot_token.get_secret_value(),
            app_token=settings.slack_app_token.get_secret_value() if settings.slack_app_token else None,
            api_url=settings.slack_api_url or None,
            proxy=settings.slack_proxy or None,
        )
    except PlatformError as error:
        return Finding(what="Slack", state="bad", says=str(error))
    if not (settings.slack_app_token or settings.slack_signing_secret):
        says = "set SLACK_APP_TOKEN for Socket Mode, or SLACK_SIGNING_SECRET for `person2 slack --http`."
        return Finding(what="Slack", state="bad", says=says)
    if found.missing:
        lacks = "; ".join(f"{scope} (to {why})" for scope, why in found.missing.items())
        says = f"{found.name} in {found.workspace} lacks scopes: {lacks}. Add them and install the app again."
        return Finding(what="Slack", state="look", says=says)
    return Finding(what="Slack", state="good", says=f"{found.name} in {found.workspace}, every scope is there")
