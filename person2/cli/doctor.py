"""Commands that check the installation: `doctor` finds what is wrong and says how to fix it, `alive` is the health
check of a running bot."""

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.errors import Person2Error, PlatformError, Unavailable
from core.generator import Sampling
from core.generator.installed_bases import WELL_KNOWN, InstalledBase, installed_bases
from core.memory import open_memory
from core.settings import Settings
from person2.app import STARTER, configured, now, open_generator, open_registry
from person2.cli.adapters import trial_standing
from person2.console import err, out, write_json
from person2.healthcheck import heartbeats

cli = typer.Typer()

DISK_NEEDED = 1 << 30
"""Free bytes below which disk space counts as short: a training run keeps checkpoints of a few hundred megabytes."""

CLOCK_OFF = 60
"""Seconds; Slack's signatures are good for five minutes (https://docs.slack.dev/authentication/verifying-requests)."""

State = Literal["good", "look", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    what: str
    state: State
    says: str
    """What was found, and unless it is `good`, what to click or type."""


@cli.command(epilog="Example: `person2 doctor`")
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """Check settings, disk, database, model, adapter and both platforms; say how to fix each problem."""
    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            mark, colour = {"good": ("✓", "green"), "look": ("!", "yellow"), "bad": ("✗", "red")}[finding.state]
            out.print(f"[{colour}]{mark}[/] [bold]{finding.what}[/]  ", end="")
            out.print(finding.says, markup=False)

    asyncio.run(_examine(report))
    if as_json:
        write_json([asdict(finding) for finding in findings])
    if any(finding.state == "bad" for finding in findings):
        err.print("Some checks failed.")
        raise typer.Exit(1)


@cli.command(epilog="Example: `person2 alive && echo healthy`")
def alive(
    platform: Annotated[
        str | None, typer.Argument(help="Check only this bot: discord or slack.", metavar="[discord|slack]")
    ] = None,
) -> None:
    """For health checks: exit status 0 while every bot on this PERSON2_HOME is connected and its posts get through."""
    found = heartbeats(configured().home, platform)
    if not found:
        raise Unavailable(
            f"No {platform or 'bot'} is running here: start `person2 {platform or 'run'}`, or read its log."
        )
    faults = [fault for each in found if (fault := each.fault)]
    if faults:
        raise Unavailable(" ".join(faults))
    names = f" ({', '.join(each.name for each in found)})" if len(found) > 1 else ""
    out.print(f"OK, last heartbeat {max(each.age for each in found):.0f} s ago{names}.", markup=False)


async def _examine(report: Callable[[Finding], None]) -> None:
    try:
        settings = configured()
    except Person2Error as error:
        report(Finding(what="settings", state="bad", says=str(error)))
        return
    report(Finding(what="settings", state="good", says="all settings are valid"))
    report(_home(settings.home))
    report(_attempt("database", lambda: _database(settings)))
    report(await _model(settings))
    report(_attempt("base models", _bases))
    report(_attempt("adapter", lambda: _adapter(settings)))
    for look in (_clock, _discord, _slack):
        report(await look(settings))
    for beat in heartbeats(settings.home):
        report(
            Finding(
                what="running bot", state="bad" if beat.fault else "good", says=beat.fault or f"{beat.name} is healthy"
            )
        )


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
        return Finding(what="folder", state="look", says=f"{home} has {free >> 20} MB free; training needs about 1 GB.")
    return Finding(what="folder", state="good", says=f"{home}, {free >> 30} GB free")


def _database(settings: Settings) -> str:
    memory = open_memory(settings.database)
    try:
        memory.consented()
        return "can be opened; its tables are up to date"
    finally:
        memory.close()


async def _model(settings: Settings) -> Finding:
    began = time.monotonic()
    try:
        generator = await open_generator(settings)
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
    says = f"{settings.base_model} on {status.device}: loaded in {loaded:.1f} s, replied in {done.seconds:.1f} s"
    if status.advice:
        return Finding(what="model", state="look", says=f"{says}; {status.advice}.")
    return Finding(what="model", state="good", says=says)


def _bases() -> str:
    """The base models on this machine with the memory they need, and those that could be downloaded."""
    from core.generator.engine.memory import total_memory

    there = total_memory()
    installed = installed_bases(STARTER)
    known = {base.name for base in installed}
    others = [InstalledBase(name=name, parameters=count) for name, count in WELL_KNOWN.items() if name not in known]
    named = "; ".join(
        f"{one.name} takes {one.talking / 1e9:.1f} GB to talk, {one.learning / 1e9:.1f} GB to train"
        f"{'' if one.learning <= there else ', too much to train here'}"
        for one in installed
    )
    fitting = ", ".join(one.name for one in others if one.learning <= there) or "none"
    larger = ", ".join(one.name for one in others if one.talking <= there < one.learning)
    return (
        f"{there / 1e9:.1f} GB of memory here; {named}. Also available: {fitting}"
        f"{f'; for talking only: {larger}' if larger else ''}."
    )


def _adapter(settings: Settings) -> str:
    registry = open_registry(settings)
    found = registry.find(settings.adapter, base=settings.base_model)
    says = f"{found.id} is active" if found else "the base model is used without one; `person2 train` makes one"
    trial = registry.trials.read()
    return f"{says}; {trial_standing(settings, registry)}" if trial is not None and trial.running else says


async def _clock(settings: Settings) -> Finding:
    """This machine's clock against the platforms': Slack's signatures expire after five minutes."""
    import aiohttp

    asked = []
    if settings.discord_token is not None:
        asked.append(settings.discord_api_base or "https://discord.com/api/v10/gateway")
    if settings.slack_bot_token is not None or settings.slack_client_secret is not None:
        asked.append(settings.slack_api_url or "https://slack.com/api/api.test")
    for url in asked:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
                session.get(url, proxy=settings.discord_proxy or settings.slack_proxy or None) as answer,
            ):
                platform_time = parsedate_to_datetime(answer.headers["Date"])
        except (aiohttp.ClientError, TimeoutError, OSError, KeyError, ValueError):
            continue  # the platform's own check reports what is wrong
        off = abs((now() - platform_time).total_seconds())
        if off > CLOCK_OFF:
            says = f"is off by {off:.0f} s; turn on time synchronisation (timedatectl set-ntp true)."
            return Finding(what="clock", state="bad", says=says)
        return Finding(what="clock", state="good", says=f"within {CLOCK_OFF} s of the platform's")
    return Finding(what="clock", state="look", says="could not be compared: no platform is set up, or none was reached")


async def _discord(settings: Settings) -> Finding:
    if settings.discord_token is None:
        return Finding(
            what="Discord", state="look", says="DISCORD_TOKEN is not set; ignore this if you do not use Discord."
        )
    from bots.discord import check_credentials

    try:
        found = await check_credentials(
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
            says=f"{found.name} sees only mentions, replies and direct messages: turn on “Message Content "
            f"Intent” at https://discord.com/developers/applications → your application → Bot. Invite: {found.invite}",
        )
    return Finding(what="Discord", state="good", says=f"logged in as {found.name}. Invite: {found.invite}")


async def _slack(settings: Settings) -> Finding:
    by_oauth = bool(settings.slack_client_id and settings.slack_client_secret)
    if by_oauth and settings.slack_bot_token is not None and settings.slack_app_token is None:
        from bots.slack import BOTH_WAYS

        return Finding(what="Slack", state="bad", says=BOTH_WAYS)
    if by_oauth and settings.slack_bot_token is None:
        if not settings.slack_signing_secret:
            return Finding(
                what="Slack", state="bad", says="set SLACK_SIGNING_SECRET: OAuth works over signed HTTP requests."
            )
        says = "workspaces install it at /slack/install while `person2 slack --http` runs"
        return Finding(what="Slack", state="good", says=says)
    if settings.slack_bot_token is None:
        return Finding(
            what="Slack", state="look", says="SLACK_BOT_TOKEN is not set; ignore this if you do not use Slack."
        )
    from bots.slack import check_credentials

    try:
        found = await check_credentials(
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
    return Finding(what="Slack", state="good", says=f"{found.name} in {found.workspace}, with every scope")
