"""Commands that talk: the terminal, the two bots, and both bots in one process."""

import asyncio
import getpass
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from core.chat import Chat
from core.errors import Person2Error, SettingsError
from core.settings import Settings
from person2.healthcheck import Source, beat
from person2.logs import set_up_logging
from person2.screen import chosen, err
from person2.wiring import House, configured, keep_retention, now, open_house

app = typer.Typer()
slack_app = typer.Typer(
    invoke_without_command=True, help="Run the Slack bot; `person2 slack manifest` prints its app manifest."
)


log = logging.getLogger(__name__)

T = TypeVar("T")


GRACE_SECONDS = 8.0
"""How long replies on their way may take once the process is told to stop. Docker kills after ten seconds unless told
otherwise (https://docs.docker.com/reference/cli/docker/container/stop/), systemd after ninety."""


def _on_sigterm(stop: Callable[[], Any]) -> None:
    """Have SIGTERM call `stop` from the running loop; Windows knows no such signal, and Ctrl-C works there too."""
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a bot until it ends or is stopped; SIGTERM stops it as Ctrl-C does, in order."""

    async def stoppable() -> T:
        task = asyncio.ensure_future(work)
        _on_sigterm(task.cancel)
        return await task

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError:
        raise SystemExit(0) from None


@contextmanager
def _stopped_gently(chat: Chat) -> Iterator[None]:
    """SIGTERM lets what is being said be finished, then stops this task as Ctrl-C does, in order; a second one stops
    it at once."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - the event loop runs nothing but tasks
    stopping: set[asyncio.Task[None]] = set()

    async def drain() -> None:
        log.info("stopping: replies on their way have %d s", GRACE_SECONDS)
        if not await chat.drain(GRACE_SECONDS):
            log.warning("stopped before every reply was posted: the rest are answered after the next start")
        task.cancel()

    def stop() -> None:
        if stopping:
            task.cancel()
        else:
            stopping.add(asyncio.create_task(drain()))

    _on_sigterm(stop)
    try:
        yield
    finally:
        _on_sigterm(task.cancel)


@app.command(epilog="Example: `person2 chat --once 'Have you seen any good films?'`")
def chat(
    once: Annotated[str | None, typer.Option(help="Answer this one line and leave.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same talk: a conversation of its own, begun anew each time.")
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="An id from the shelf, a folder, or none.")] = None,
    base: Annotated[str | None, typer.Option(help="starter, a hub name or a folder.")] = None,
) -> None:
    """Talk with Person2 in the terminal; lines may come from a pipe."""
    from bots.terminal import HOME, Terminal, apart

    # no limit per minute: nobody else waits for the model here
    settings = configured(**chosen(adapter=adapter, base_model=base), user_rate=0)
    set_up_logging(settings, level=logging.ERROR)
    interactive = once is None and sys.stdin.isatty() and sys.stdout.isatty()
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        if interactive:
            err.print(f"Person2: loading {settings.base_model} …", style="dim")
        house = runner.run(stack.enter_async_context(open_house(settings, prefix="/", seed=seed, bursts=False)))
        try:
            terminal = Terminal(
                house.chat,
                house.commands,
                person=_login(),
                clock=now,
                source=sys.stdin,
                sink=sys.stdout,
                notes=sys.stderr,
                interactive=interactive,
                conversation=HOME if seed is None else apart(),
            )
            for line in terminal.lines() if once is None else [once]:
                runner.run(terminal.say(line))
        finally:
            runner.run(stack.aclose())
    if interactive:
        err.print()


@app.command(epilog="Example: `DISCORD_TOKEN=… person2 discord`")
def discord() -> None:
    """Run the Discord bot."""
    settings = configured()
    settings.require("discord_token")
    _serve(settings, _discord)


@slack_app.callback(epilog="Example: `person2 slack --http`")
def slack(
    context: typer.Context,
    http: Annotated[
        bool, typer.Option("--http", help="Listen for signed HTTP requests instead of Socket Mode.")
    ] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    settings = configured()
    settings.require(*_needed_by_slack(settings, http=http))
    _serve(settings, lambda house: _slack(house, http=http))


@slack_app.command("manifest", epilog="Example: `person2 slack manifest --url https://bot.example.org/slack/events`")
def slack_manifest(
    url: Annotated[str | None, typer.Option(help="Public request URL, for HTTP instead of Socket Mode.")] = None,
) -> None:
    """Print the app manifest to paste at api.slack.com/apps."""
    from bots.slack import manifest

    try:
        sys.stdout.write(manifest(url))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from error


@app.command(epilog="Example: `person2 run`")
def run() -> None:
    """Run the Discord and the Slack bot in one process, on one generator."""
    settings = configured()
    http = settings.slack_app_token is None
    settings.require("discord_token", *_needed_by_slack(settings, http=http))
    _serve(settings, _discord, lambda house: _slack(house, http=http))


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A bot that was built: what to run, and whom the health check asks."""

    run: Callable[[], Coroutine[Any, Any, None]]
    health: Source


Bot = Callable[[House], Running]


def _serve(settings: Settings, *bots: Bot) -> None:
    set_up_logging(settings)

    async def serve() -> None:
        async with open_house(settings) as house:
            with _stopped_gently(house.chat):
                await _together(house, [bot(house) for bot in bots])

    try:
        _run(serve())
    except* Person2Error as group:
        raise _first(group) from group


async def _together(house: House, bots: Sequence[Running]) -> None:
    """Run bots until one fails or all are cancelled."""
    settings = house.settings
    async with asyncio.TaskGroup() as group:
        group.create_task(keep_retention(house.memory, settings.retention_days))
        group.create_task(beat(settings.home, [each.health for each in bots], notify=os.environ.get("NOTIFY_SOCKET")))
        for each in bots:
            group.create_task(each.run())


def _first(group: BaseExceptionGroup[Person2Error]) -> Person2Error:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Person2Error) else Person2Error(str(error))


def _discord(house: House) -> Running:
    from bots.discord import DiscordBot

    settings = house.settings
    assert settings.discord_token is not None  # noqa: S101 - required before anything was built
    bot = DiscordBot(
        house.chat,
        house.commands,
        token=settings.discord_token.get_secret_value(),
        api_base=settings.discord_api_base or None,
        gateway_url=settings.discord_gateway_url or None,
        proxy=settings.discord_proxy or None,
        buttons=settings.discord_buttons,
    )
    return Running(run=bot.run, health=Source(name="discord", ready=lambda: bot.ready, trouble=bot.post_health.trouble))


def _by_oauth(settings: Settings) -> bool:
    """Whether workspaces install the bot themselves; one of the two variables alone is a mistake to be named."""
    return bool(settings.slack_client_id or settings.slack_client_secret)


def _needed_by_slack(settings: Settings, *, http: bool) -> tuple[str, ...]:
    if http and _by_oauth(settings):
        if settings.slack_bot_token is not None:
            from bots.slack import BOTH_WAYS

            raise SettingsError(BOTH_WAYS)
        return "slack_client_id", "slack_client_secret", "slack_signing_secret"
    return "slack_bot_token", "slack_signing_secret" if http else "slack_app_token"


def _slack(house: House, *, http: bool) -> Running:
    from bots.slack import OAuth, SlackBot

    settings = house.settings
    oauth = None
    if http and settings.slack_client_secret is not None:
        oauth = OAuth(
            client_id=settings.slack_client_id,
            client_secret=settings.slack_client_secret.get_secret_value(),
            redirect_url=settings.slack_redirect_url or None,
        )
    bot = SlackBot(
        house.chat,
        house.commands,
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
    return Running(run=bot.run, health=Source(name="slack", ready=bot.ready.is_set, trouble=bot.trouble))


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in this container
        return "you"
