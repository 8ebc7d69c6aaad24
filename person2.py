"""The command line, and the one place that wires core, bots and training together.

Every dependency is constructed here and nowhere else. Heavy parts (torch, discord.py, slack-bolt) are imported by the
command that needs them, so that `person2 --help` and a wrong setting answer at once.
"""

import asyncio
import getpass
import json
import logging
import os
import random
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from core.adapters import Card, Shelf
from core.chat import Chat, ChatSettings
from core.commands import Commands
from core.errors import AdapterError, DialogueError, Person2Error, StorageError
from core.generator import Adapter, Generator
from core.memory import Memory, open_memory
from core.messages import Conversation
from core.settings import Settings, load_settings

log = logging.getLogger("person2")

ROOT = Path(__file__).resolve().parent
STARTER = ROOT / "models" / "starter"
"""The model that ships; in a wheel it lies beside this module as in a checkout."""

PURGE_EVERY = timedelta(hours=1)
"""How often messages past their retention are deleted."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="A chatbot for Discord and Slack that learns the voice of the channel it lives in. Try `person2 chat`.",
)
shelf_app = typer.Typer(no_args_is_help=True, help="The shelf of adapters: list, show, use, rollback, merge, push.")
app.add_typer(shelf_app, name="adapters")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the program: exit status 0 on success, 2 on wrong use, 1 on a failure said in one sentence."""
    try:
        app(prog_name="person2")
    except Person2Error as error:
        if os.environ.get("PERSON2_DEBUG"):
            raise
        sys.stderr.write(f"person2: {_sentence(error)}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output left (`| head`); Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _sentence(error: Person2Error) -> str:
    text = " ".join(str(error).split()) or error.__class__.__name__
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


# Wiring


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


def open_shelf(settings: Settings) -> Shelf:
    return Shelf(settings.shelf, bundled=STARTER / "adapters", clock=now)


def open_generator(settings: Settings) -> Generator:
    """The generator that GENERATOR names. Raises ModelError, SettingsError."""
    if settings.generator == "remote":
        settings.require("remote_url", "remote_model")
        from core.generator.remote import RemoteGenerator

        return RemoteGenerator(
            settings.remote_url,
            model=settings.remote_model,
            api_key=settings.remote_api_key.get_secret_value() if settings.remote_api_key else "",
            in_flight=settings.queue_limit,
        )
    base = base_path(settings.base_model)
    from core.generator import gpt2

    return gpt2.load(base, max_batch=settings.max_batch, queue_limit=settings.queue_limit)


@asynccontextmanager
async def open_house(settings: Settings, *, prefix: str = "/person2 ", seed: int | None = None) -> AsyncIterator[House]:
    """Build everything once, and take it down in order. Raises Person2Error with what is wrong."""
    memory = await asyncio.to_thread(open_memory, settings.database)
    async with AsyncExitStack() as stack:
        stack.callback(memory.close)
        shelf = open_shelf(settings)
        generator = await asyncio.to_thread(open_generator, settings)
        stack.push_async_callback(generator.close)

        async def voice_for(conversation: Conversation, chosen: str | None) -> Adapter | None:
            return await asyncio.to_thread(shelf.find, chosen or settings.adapter, base=settings.base_model)

        chat = Chat(
            memory=memory,
            generator=generator,
            voice=voice_for,
            settings=ChatSettings(sampling=settings.sampling, rules=settings.rules, user_rate=settings.user_rate),
            clock=now,
            dice=random.Random(seed),  # noqa: S311 - ambient chance and sampling seeds, no secret
        )
        commands = Commands(
            chat=chat,
            clock=now,
            started_at=now(),
            voices=lambda: tuple(card.id for card in shelf.cards() if not card.withdrawn),
            prefix=prefix,
        )
        yield House(settings=settings, memory=memory, shelf=shelf, generator=generator, chat=chat, commands=commands)


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


def set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    for chatty in ("httpx", "httpcore", "alembic", "urllib3", "slack_bolt", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


T = TypeVar("T")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a bot until it ends or is stopped; SIGTERM stops it as Ctrl-C does, in order."""
    import signal

    async def stoppable() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError:
        raise SystemExit(0) from None


# Talking


@app.command(epilog="Example: `person2 chat --once 'Have you seen any good films?'`")
def chat(
    once: Annotated[str | None, typer.Option(help="Answer this one line and leave.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same talk.")] = None,
    adapter: Annotated[str | None, typer.Option(help="An id from the shelf, a folder, or none.")] = None,
    base: Annotated[str | None, typer.Option(help="starter, a hub name or a folder.")] = None,
) -> None:
    """Talk with Person2 in the terminal; lines may come from a pipe."""
    from bots.terminal import Terminal

    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s", stream=sys.stderr)
    settings = load_settings(**_chosen(adapter=adapter, base_model=base))
    interactive = once is None and sys.stdin.isatty() and sys.stdout.isatty()
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        if interactive:
            err.print(f"Person2: loading {settings.base_model} …", style="dim")
        house = runner.run(stack.enter_async_context(open_house(settings, prefix="/", seed=seed)))
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
    settings = load_settings()
    settings.require("discord_token")
    _serve(settings, _discord)


slack_app = typer.Typer(
    invoke_without_command=True, help="Run the Slack bot; `person2 slack manifest` prints its app manifest."
)
app.add_typer(slack_app, name="slack")


@slack_app.callback(epilog="Example: `person2 slack --http`")
def slack(
    context: typer.Context,
    http: Annotated[
        bool, typer.Option("--http", help="Listen for signed HTTP requests instead of Socket Mode.")
    ] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    settings = load_settings()
    settings.require("slack_bot_token", "slack_signing_secret" if http else "slack_app_token")
    _serve(settings, lambda house: _slack(house, http=http))


@slack_app.command("manifest", epilog="Example: `person2 slack manifest --url https://bot.example.org/slack/events`")
def slack_manifest(
    url: Annotated[str | None, typer.Option(help="Public request URL, for HTTP instead of Socket Mode.")] = None,
) -> None:
    """Print the app manifest to paste at api.slack.com/apps."""
    from bots.slack import manifest

    sys.stdout.write(manifest(url))


@app.command(epilog="Example: `person2 run`")
def run() -> None:
    """Run the Discord and the Slack bot in one process, on one generator."""
    settings = load_settings()
    settings.require("discord_token", "slack_bot_token")
    http = settings.slack_app_token is None
    if http:
        settings.require("slack_signing_secret")
    _serve(settings, _discord, lambda house: _slack(house, http=http))


Bot = Callable[[House], Coroutine[Any, Any, None]]


def _serve(settings: Settings, *bots: Bot) -> None:
    set_up_logging()

    async def serve() -> None:
        async with open_house(settings) as house, asyncio.TaskGroup() as group:
            group.create_task(keep_retention(house.memory, settings.retention_days))
            for bot in bots:
                group.create_task(bot(house))

    try:
        _run(serve())
    except* Person2Error as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[Person2Error]) -> Person2Error:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Person2Error) else Person2Error(str(error))


async def _discord(house: House) -> None:
    from bots.discord import DiscordBot

    settings = house.settings
    assert settings.discord_token is not None  # noqa: S101 - required before anything was built
    await DiscordBot(
        house.chat,
        house.commands,
        token=settings.discord_token.get_secret_value(),
        api_base=settings.discord_api_base or None,
        gateway_url=settings.discord_gateway_url or None,
        proxy=settings.discord_proxy or None,
        buttons=settings.discord_buttons,
    ).run()


async def _slack(house: House, *, http: bool) -> None:
    from bots.slack import SlackBot

    settings = house.settings
    await SlackBot(
        house.chat,
        house.commands,
        bot_token=settings.slack_bot_token.get_secret_value() if settings.slack_bot_token else "",
        app_token=settings.slack_app_token.get_secret_value() if settings.slack_app_token else None,
        signing_secret=settings.slack_signing_secret.get_secret_value() if settings.slack_signing_secret else None,
        api_url=settings.slack_api_url or None,
        proxy=settings.slack_proxy or None,
        http=http,
        host=settings.slack_http_host,
        port=settings.slack_http_port,
        path=settings.slack_http_path,
        visible_commands=settings.slack_visible_commands,
    ).run()


# Training


@app.command(epilog="Example: `person2 train talk.txt --name our-voice && person2 chat --adapter our-voice`")
def train(
    files: Annotated[list[Path], typer.Argument(help="Files of Person1:/Person2: dialogues.", metavar="FILE…")],
    held_out: Annotated[list[Path] | None, typer.Option(help="Dialogues to measure on, never learned.")] = None,
    base: Annotated[str | None, typer.Option(help="starter, a hub name or a folder.")] = None,
    name: Annotated[str | None, typer.Option(help="The adapter's id; made from the date when left out.")] = None,
    epochs: Annotated[float, typer.Option(min=0.01, help="How often each dialogue is seen.")] = 3.0,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank: how much the adapter can hold.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Highest learning rate.")] = 1e-3,
    adapter: Annotated[str | None, typer.Option(help="Go on from this adapter.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, data and settings: same adapter.")] = 17,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    log_to: Annotated[str, typer.Option(help="tensorboard or wandb, where installed.")] = "none",
    as_json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
) -> None:
    """Fine-tune a LoRA adapter on dialogues; use only words whose writers agreed (see the README)."""
    from training import finetune as work
    from training.card import make_card

    settings = load_settings(**_chosen(base_model=base))
    shelf = open_shelf(settings)
    adapter_id = name or f"voice-{now():%Y%m%d-%H%M%S}"
    _check_new(shelf, adapter_id)
    before = shelf.find(adapter, base=settings.base_model) if adapter else None
    knobs = work.Settings(epochs=epochs, rank=rank, learning_rate=learning_rate, seed=seed)
    _check_files([*files, *(held_out or [])])
    with _bar("training") as bar:
        outcome = work.finetune(
            files,
            run=_run_folder(settings, adapter_id),
            base=base_path(settings.base_model),
            held_out=held_out or [],
            name=adapter_id,
            adapter=before.path if before else None,
            settings=knobs,
            resume=resume,
            log_to=log_to,  # type: ignore[arg-type]  # finetune says which are known
            on_progress=lambda progress: bar(progress.step, progress.steps, _state(progress)),
        )
    for fault in outcome.faults:
        err.print(f"[yellow]{fault}[/]", markup=True)
    card = make_card(outcome, created_at=now(), command=shlex.join(["person2", *sys.argv[1:]]))
    shelf.add(outcome.adapter, _as_typed(card, settings.base_model))
    if as_json:
        sys.stdout.write(json.dumps({**asdict(outcome), "adapter": adapter_id}, default=str) + "\n")
        return
    out.print(
        f"Held-out replies: {outcome.before:.3f} → {outcome.after:.3f} bits per byte, "
        f"perplexity {outcome.perplexity_before:.1f} → {outcome.perplexity_after:.1f} a token "
        f"({outcome.held_out_dialogues} dialogues not trained on)."
    )
    out.print(
        f"Learned from {outcome.train_dialogues} dialogues in {outcome.steps} steps and {outcome.seconds / 60:.1f} "
        f"minutes, {outcome.targets_per_second:.0f} of Person2's tokens a second."
    )
    out.print(f"On the shelf as {adapter_id}: `person2 chat --adapter {adapter_id}` speaks with it.")


def _state(progress: Any) -> str:
    held = f" · held-out {progress.held_out:.3f}" if progress.held_out is not None else ""
    return f"loss {progress.loss:.2f}{held}" if progress.loss is not None else "…"


def _as_typed(card: Card, base: str) -> Card:
    """The card names the base as the operator does (`starter`), not by the folder it happened to lie in."""
    from dataclasses import replace

    return replace(card, base=base)


def _check_new(shelf: Shelf, adapter_id: str) -> None:
    """Before hours of training, not after them."""
    if any(card.id == adapter_id for card in shelf.cards()):
        raise AdapterError(f"There is an adapter called {adapter_id} already; choose another --name.")


def _check_files(files: list[Path]) -> None:
    for file in files:
        if not file.is_file():
            raise DialogueError(f"There is no file {file}; check the path.")


def _run_folder(settings: Settings, name: str) -> Path:
    return settings.person2_home / "runs" / name


@app.command(epilog="Example: `person2 evaluate held-out.txt --adapter our-voice --json`")
def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Files of dialogues that were not trained on.", metavar="FILE…")],
    base: Annotated[str | None, typer.Option(help="starter, a hub name or a folder.")] = None,
    adapter: Annotated[str | None, typer.Option(help="An id from the shelf, a folder, or none.")] = None,
    training: Annotated[list[Path] | None, typer.Option(help="What it was trained on, for the copying scores.")] = None,
    contexts: Annotated[
        int, typer.Option(min=0, help="Replies ranked and made in each file; 0 for none, quick.")
    ] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="The scores as JSON.")] = False,
) -> None:
    """Score a model and adapter on held-out dialogues: bits per byte, next-reply ranking, variety, copying."""
    from training.evaluate import evaluate as score

    settings = load_settings(**_chosen(base_model=base, adapter=adapter))
    chosen = open_shelf(settings).find(settings.adapter, base=settings.base_model)
    _check_files([*files, *(training or [])])
    with _bar("evaluating") as bar:
        result = score(
            files,
            base=base_path(settings.base_model),
            adapter=chosen.path if chosen else None,
            training=training or [],
            contexts=contexts,
            sampling=settings.sampling,
            on_stage=lambda stage: bar(0, 1, stage),
        ).to_json()
    for fault in result["faults"]:
        err.print(fault, markup=False)
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    title = f"{settings.base_model}, adapter {chosen.id if chosen else 'none'}"
    files_ = result["files"]
    table = Table(
        "score", *(Path(name).name for name in files_), *(["together"] if len(files_) > 1 else []), title=title
    )
    columns = [*files_.values(), *([result] if len(files_) > 1 else [])]
    for label in (key for key, value in result.items() if isinstance(value, (int, float)) or key in SCORED):
        table.add_row(label, *(_shown(column.get(label), column.get("intervals", {}).get(label)) for column in columns))
    out.print(table)
    floors = {name: value for name, value in result["floors"].items() if value is not None}
    if floors:
        out.print("Floors: " + ", ".join(f"{name} {value:.2f}" for name, value in floors.items()))


SCORED = ("hits_at_1_of_20", "distinct_2", "empty", "copied", "longest_copy", "extracted")


def _shown(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


# The shelf


@shelf_app.command("list", epilog="Example: `person2 adapters list`")
def list_adapters(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """The adapters on the shelf; the current one is marked."""
    settings = load_settings()
    shelf = open_shelf(settings)
    current = shelf.current(base=settings.base_model)
    cards = shelf.cards()
    if as_json:
        rows = [{**json.loads(card.to_json()), "current": bool(current and current.id == card.id)} for card in cards]
        sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
        return
    if not cards:
        out.print("The shelf is empty: `person2 train FILE` makes an adapter.")
        return
    table = Table("", "id", "base", "made", "held-out bits per byte", "state")
    for card in cards:
        scores = card.scores.get("new", {})
        bits = scores.get("reply_bits_per_byte", scores.get("bits_per_byte"))
        state = f"withdrawn: {card.withdrawn}" if card.withdrawn else "ships" if shelf.is_bundled(card.id) else ""
        table.add_row(
            "→" if current and current.id == card.id else "",
            card.id,
            card.base,
            f"{card.created_at:%Y-%m-%d %H:%M}",
            f"{bits:.3f}" if isinstance(bits, float) else "–",
            state,
        )
    out.print(table)


@shelf_app.command("show", epilog="Example: `person2 adapters show our-voice`")
def show_adapter(adapter_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """An adapter's card, as JSON."""
    sys.stdout.write(open_shelf(load_settings()).card(adapter_id).to_json())


@shelf_app.command("use", epilog="Example: `person2 adapters use our-voice`")
def use_adapter(adapter_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Make an adapter the current voice (`none` for the bare base); a running bot takes it over within seconds."""
    open_shelf(load_settings()).use(adapter_id)
    out.print(f"Current voice: {adapter_id}.")


@shelf_app.command("rollback", epilog="Example: `person2 adapters rollback`")
def roll_back() -> None:
    """Go back to the voice before the current one."""
    found = open_shelf(load_settings()).rollback()
    out.print(f"Current voice: {found.id if found else 'none'}.")


# A person's data


@app.command(epilog="Example: `person2 export discord:80351110224678912 > their-data.json`")
def export(member: Annotated[str, typer.Argument(help="PLATFORM:ID, as in discord:8035…", metavar="MEMBER")]) -> None:
    """Hand over everything stored of a member, as JSON."""
    memory = open_memory(load_settings().database)
    stored = [memory.export(platform, who) for platform, who in _members(memory, member)]
    sys.stdout.write(json.dumps(stored, ensure_ascii=False, indent=2) + "\n")


@app.command(epilog="Example: `person2 forget slack:U012AB3CD`")
def forget(member: Annotated[str, typer.Argument(help="PLATFORM:ID, as in slack:U012…", metavar="MEMBER")]) -> None:
    """Remove a member's data from the database."""
    memory = open_memory(load_settings().database)
    for platform, who in _members(memory, member):
        removed = memory.forget(platform, who)
        out.print(
            f"{platform}:{who}: {removed.messages} messages, {removed.replies} answers to them "
            f"and {removed.feedback} votes deleted."
        )


def _members(memory: Memory, member: str) -> list[tuple[str, str]]:
    """`platform:id` as it is; a bare id or name on every platform that knows it."""
    found = memory.find_members(member)
    if not found:
        raise StorageError(
            f"Nothing is stored of {member!r}: name them as PLATFORM:ID, as in discord:80351110224678912."
        )
    return found


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in this container
        return "you"


def _chosen(**options: object) -> dict[str, object]:
    """The options that were given; the others are left to the settings."""
    return {name: value for name, value in options.items() if value is not None}


class _bar:  # noqa: N801 - used as a context manager
    """A progress bar on standard error, gone when it is no terminal."""

    def __init__(self, label: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._progress.add_task(label, total=1, state="preparing …")

    def __enter__(self) -> Callable[[float, float, str], None]:
        self._progress.start()
        return lambda done, total, state: self._progress.update(self._task, completed=done, total=total, state=state)

    def __exit__(self, *caught: object) -> None:
        self._progress.stop()


if __name__ == "__main__":
    main()
