"""Commands that talk: the terminal, the two bots, and both bots in one process."""

import asyncio
import getpass
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import typer

from core.chat import Chat
from core.errors import Person2Error, StorageError
from core.memory import Memory
from core.settings import Settings
from person2.app import App, RunnableBot, configured, discord_bot, now, open_app, slack_bot, slack_needs
from person2.console import chosen, err
from person2.healthcheck import beat
from person2.logging import set_up_logging

cli = typer.Typer()
slack_cli = typer.Typer(
    invoke_without_command=True, help="Run the Slack bot; `person2 slack manifest` prints its app manifest."
)

log = logging.getLogger(__name__)

T = TypeVar("T")

GRACE_SECONDS = 8.0
"""How long replies in progress may take once the process is told to stop. Docker kills after ten seconds unless told
otherwise (https://docs.docker.com/reference/cli/docker/container/stop/), systemd after ninety."""

PURGE_EVERY = timedelta(hours=1)
"""How often messages past their retention are deleted."""


def _on_sigterm(stop: Callable[[], Any]) -> None:
    """Have SIGTERM call `stop` from the running loop; Windows knows no such signal, and Ctrl-C works there too."""
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)


def run_until_stopped(work: Coroutine[Any, Any, T]) -> T:
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
    """On SIGTERM, wait for replies in progress, then stop this task in order, as Ctrl-C does; a second SIGTERM stops it
    at once."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - the event loop runs nothing but tasks
    stopping: set[asyncio.Task[None]] = set()

    async def drain() -> None:
        log.info("stopping: waiting up to %d s for replies in progress", GRACE_SECONDS)
        if not await chat.drain(GRACE_SECONDS):
            log.warning("stopped before every reply was posted: the rest is answered after the next start")
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


@cli.command(epilog="Example: `person2 chat --once 'Have you seen any good films?'`")
def chat(
    once: Annotated[str | None, typer.Option(help="Answer this one line and exit.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="For reproducible replies: starts a new, separate conversation each time.")
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="An adapter's id, a folder, or none.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model: starter, a hub name or a folder.")] = None,
) -> None:
    """Talk with Person2 in the terminal; lines may come from a pipe."""
    from bots.terminal import DEFAULT_CONVERSATION, Terminal, new_conversation

    # No limit per minute, and no closed direct messages: whoever types here is the operator, alone.
    settings = configured(**chosen(adapter=adapter, base_model=base), user_rate=0, direct_messages=True)
    set_up_logging(settings, level=logging.ERROR)
    interactive = once is None and sys.stdin.isatty() and sys.stdout.isatty()
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        if interactive:
            err.print(f"Person2: loading {settings.base_model} …", style="dim")
        app = runner.run(stack.enter_async_context(open_app(settings, prefix="/", seed=seed, bursts=False)))
        try:
            terminal = Terminal(
                app.chat,
                app.commands,
                person=_login(),
                clock=now,
                source=sys.stdin,
                sink=sys.stdout,
                notes=sys.stderr,
                interactive=interactive,
                conversation=DEFAULT_CONVERSATION if seed is None else new_conversation(),
            )
            for line in terminal.lines() if once is None else [once]:
                runner.run(terminal.say(line))
        finally:
            runner.run(stack.aclose())
    if interactive:
        err.print()


@cli.command(epilog="Example: `DISCORD_TOKEN=… person2 discord`")
def discord() -> None:
    """Run the Discord bot."""
    settings = configured()
    settings.require("discord_token")
    _serve(settings, discord_bot)


@slack_cli.callback(epilog="Example: `person2 slack --http`")
def slack(
    context: typer.Context,
    http: Annotated[
        bool, typer.Option("--http", help="Listen for signed HTTP requests instead of Socket Mode.")
    ] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    settings = configured()
    settings.require(*slack_needs(settings, http=http))
    _serve(settings, lambda app: slack_bot(app, http=http))


@slack_cli.command("manifest", epilog="Example: `person2 slack manifest --url https://bot.example.org/slack/events`")
def slack_manifest(
    url: Annotated[str | None, typer.Option(help="Public request URL, for HTTP instead of Socket Mode.")] = None,
) -> None:
    """Print the app manifest to paste at api.slack.com/apps."""
    from bots.slack import manifest

    try:
        sys.stdout.write(manifest(url))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from error


@cli.command(epilog="Example: `person2 run`")
def run() -> None:
    """Run the Discord and the Slack bot in one process, on one generator."""
    settings = configured()
    http = settings.slack_app_token is None
    settings.require("discord_token", *slack_needs(settings, http=http))
    _serve(settings, discord_bot, lambda app: slack_bot(app, http=http))


def _serve(settings: Settings, *builders: Callable[[App], RunnableBot]) -> None:
    set_up_logging(settings)

    async def serve() -> None:
        async with open_app(settings) as app:
            with _stopped_gently(app.chat):
                await _run_together(app, [build(app) for build in builders])

    try:
        run_until_stopped(serve())
    except* Person2Error as group:
        raise _first(group) from group


async def _run_together(app: App, bots: Sequence[RunnableBot]) -> None:
    """Run bots until one fails or all are cancelled."""
    settings = app.settings
    async with asyncio.TaskGroup() as group:
        group.create_task(_keep_retention(app.memory, settings.retention_days))
        group.create_task(beat(settings.home, [each.health for each in bots], notify=os.environ.get("NOTIFY_SOCKET")))
        for each in bots:
            group.create_task(each.run())


def _first(group: BaseExceptionGroup[Person2Error]) -> Person2Error:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Person2Error) else Person2Error(str(error))


async def _keep_retention(memory: Memory, days: int | None) -> None:
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


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in this container
        return "you"
