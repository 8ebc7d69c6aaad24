"""Commands that train: an adapter from dialogue files or from the log, and a base from scratch."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.memory import open_memory
from core.settings import Settings
from person2.app import base_path, configured, now, open_registry, other_bases, sampling
from person2.cli.data import check_log_is_on, token_counter
from person2.console import ProgressBar, check_files, chosen, err, out, write_json

if TYPE_CHECKING:
    from training.finetune.outcome import Progress
    from training.finetune.pipeline import Learned
    from training.privacy.preferences import Preference

cli = typer.Typer()


@cli.command(epilog="Example: `person2 train talk.txt --name our-voice && person2 chat --adapter our-voice`")
def train(
    files: Annotated[list[Path], typer.Argument(help="Files of Person1:/Person2: dialogues.", metavar="FILE…")],
    held_out: Annotated[list[Path] | None, typer.Option(help="Dialogues to measure on, never learned.")] = None,
    base: Annotated[str | None, typer.Option(help="starter, a hub name or a folder.")] = None,
    name: Annotated[str | None, typer.Option(help="The adapter's id; made from the date when left out.")] = None,
    epochs: Annotated[float, typer.Option(min=0.01, help="How often each dialogue is seen.")] = 3.0,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank: how much the adapter can hold.")] = 16,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=0.0, help="Highest learning rate; 0.004 on the starter unless set, less on wider bases."),
    ] = None,
    patience: Annotated[
        int, typer.Option(min=1, help="Looks at the held-out loss without betterment before it stops; four an epoch.")
    ] = 4,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens in a step, over all devices.")] = 4_096,
    device_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens on a device at a time, a step's others are accumulated; by memory unless set."
        ),
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, for more time.")
    ] = False,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32; auto takes bf16 where it is native.")] = "auto",
    adapter: Annotated[str | None, typer.Option(help="Go on from this adapter.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, data and settings: same adapter.")] = 17,
    contexts: Annotated[
        int, typer.Option(min=0, help="Replies ranked and made to judge it; 0 leaves judging out.")
    ] = 200,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Also train on a quarter and a half: is there enough data?")
    ] = False,
    leave_out: Annotated[
        Path | None, typer.Option(help="Passages that are not learned, one a line, such as a run's memorized.txt.")
    ] = None,
    drop_memorized: Annotated[
        bool, typer.Option("--drop-memorized", help="Leave out what comes out by heart and train again.")
    ] = False,
    preferences: Annotated[
        bool, typer.Option("--preferences", help="Learn from 👍, 👎 and `again` in the bot's own log too.")
    ] = False,
    log_to: Annotated[str, typer.Option(help="tensorboard or wandb, where installed.")] = "none",
    as_json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
) -> None:
    """Fine-tune a LoRA adapter on dialogues and judge it; use only words whose writers agreed (see the README)."""
    check_files([*files, *(held_out or [])])
    from training.evaluation.memorization import LeftOut
    from training.finetune.base import broadcast
    from training.finetune.config import FinetuneConfig
    from training.finetune.pipeline import learn
    from training.finetune.run_folder import unfinished

    settings = configured(**chosen(base_model=base))
    registry = open_registry(settings)
    runs = settings.home / "runs"
    stopped = unfinished(runs, {card.id for card in registry.cards()}) if resume and not name else None
    adapter_id = name or (stopped.name if stopped else broadcast(f"voice-{now():%Y%m%d-%H%M%S}"))
    before = registry.find(adapter, base=settings.base_model) if adapter else None
    with _telling_how_to_go_on(adapter_id, runs / adapter_id), ProgressBar("training") as bar:
        learned = learn(
            files,
            registry=registry,
            run=runs / adapter_id,
            name=adapter_id,
            base=settings.base_model,
            base_folder=base_path(settings.base_model),
            command=_command(),
            clock=now,
            held_out=held_out or [],
            start_from=before,
            current=registry.current(base=settings.base_model),
            settings=FinetuneConfig(
                epochs=epochs,
                rank=rank,
                learning_rate=learning_rate,
                patience=patience,
                batch_tokens=batch_tokens,
                device_tokens=device_tokens,
                gradient_checkpointing=gradient_checkpointing,
                precision=precision,  # type: ignore[arg-type]  # the knobs say which are known
                seed=seed,
            ),
            resume=resume,
            with_curve=learning_curve,
            left_out=LeftOut.read(leave_out) if leave_out else LeftOut(),
            drop_memorized=drop_memorized,
            preferences=_preferences(settings) if preferences else (),
            contexts=contexts,
            sampling=sampling(settings),
            log_to=log_to,  # type: ignore[arg-type]  # finetune says which are known
            other_bases=other_bases(settings),
            on_progress=partial(_progress, bar),
            on_stage=lambda stage: bar(stage.done, 1, str(stage)),
            on_advice=lambda sentence: err.print(sentence, markup=False),
        )
    if learned is not None:
        _tell(learned, as_json=as_json)


class Stopped(KeyboardInterrupt):
    """The system or a closed terminal asks to stop, as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _stopping_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does; what `nohup` ignores stays ignored."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(number)

    watched = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {one: signal.getsignal(one) for one in watched if signal.getsignal(one) is not signal.SIG_IGN}
    for one in before:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def _telling_how_to_go_on(name: str, run: Path) -> Iterator[None]:
    """Whoever stops a run learns how it goes on."""
    from training.finetune.run_folder import begun

    try:
        with _stopping_in_order():
            yield
    except KeyboardInterrupt as stopped:
        told = "Stopped before the training began; nothing was written."
        if begun(run):
            told = f"Stopped. The same command with --name {name} --resume goes on from here."
        with suppress(OSError):  # the terminal may be gone
            err.print(told, markup=False)
        if isinstance(stopped, Stopped):
            sys.exit(128 + stopped.number)
        raise


@cli.command(
    epilog="Example: `person2 pretrain models/mine --train talk.txt --minutes 35`",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def pretrain(context: typer.Context) -> None:
    """Train a small GPT-2 from scratch, as the bundled model was made; `person2 pretrain --help` lists its options."""
    from training.pretrain.cli import run_command  # loads torch, so only when asked for

    run_command(context.args, name="person2 pretrain")


@cli.command(epilog="Example: `person2 retrain --dry-run`")
def retrain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be learned from.")] = False,
    epochs: Annotated[float, typer.Option(min=0.01, help="How often each dialogue is seen.")] = 3.0,
    contexts: Annotated[int, typer.Option(min=1, help="Replies ranked and made for the comparison.")] = 200,
    drop_memorized: Annotated[
        bool, typer.Option("--drop-memorized", help="Leave out what comes out by heart and train again.")
    ] = False,
    preferences: Annotated[bool, typer.Option("--preferences", help="Learn from 👍, 👎 and `again` too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
) -> None:
    """Learn from the logged talk of members who said yes, and promote the new voice if it passes the gate."""
    settings = configured()
    check_log_is_on(settings)
    from training.data.stats import render_table
    from training.finetune.config import FinetuneConfig
    from training.finetune.retrain import retrain as learn_from_log

    with ProgressBar("retraining") as bar:
        done = learn_from_log(
            memory=open_memory(settings.database),
            registry=open_registry(settings),
            home=settings.home,
            base=settings.base_model,
            base_folder=base_path(settings.base_model),
            count_tokens=token_counter(base_path(settings.base_model)),
            command=_command(),
            clock=now,
            dry_run=dry_run,
            settings=FinetuneConfig(epochs=epochs),
            sampling=sampling(settings),
            contexts=contexts,
            drop_memorized=drop_memorized,
            with_preferences=preferences,
            on_progress=partial(_progress, bar),
            on_stage=lambda stage: bar(stage.done, 1, str(stage)),
        )
    if done.learned is None:
        if as_json:
            write_json(done.stats.to_json())
        else:
            out.print(render_table(done.stats))
            out.print("Nothing was trained: this was a dry run.")
        return
    _tell(done.learned, as_json=as_json)
    if not as_json:
        out.print("It is now active." if done.promoted else "The current adapter stays active.")


def _preferences(settings: Settings) -> "list[Preference]":
    """Pairs of answers in the bot's own log. Raises TrainingError where learning from it is off."""
    from training.privacy.consent import PeopleKey
    from training.privacy.preferences import preferences

    check_log_is_on(settings)
    memory = open_memory(settings.database)
    try:
        return preferences(memory, PeopleKey.at(settings.home))
    finally:
        memory.close()


def _command() -> str:
    """What was typed, as the report and the card repeat it."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    program = ["person2"] if processes < 2 else shlex.split(f"accelerate launch --num_processes {processes} -m person2")
    return shlex.join([*program, *sys.argv[1:]])


def _tell(learned: "Learned", *, as_json: bool) -> None:
    """The outcome of a run: figures, the gate's verdict, where the report lies, what to type next."""
    outcome, comparison, name = learned.outcome, learned.comparison, learned.adapter.id
    for fault in outcome.faults:
        err.print(str(fault), markup=False)
    if as_json:
        verdict = {"passed": comparison.verdict.passed, "verdict": str(comparison.verdict)} if comparison else {}
        told = {"warning": learned.warning} if learned.warning else {}
        write_json({**asdict(outcome), "adapter": name, "report": learned.report, **verdict, **told})
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
    if learned.advice:
        out.print(learned.advice, markup=False)
    if comparison is not None:
        out.print(str(comparison.verdict), markup=False)
    else:
        for sentence in filter(None, (str(outcome.preferred or ""), learned.warning)):
            out.print(sentence, markup=False)
    if comparison is not None:
        out.print(f"Report: {learned.report}", markup=False)
    out.print(f"Registered as {name}: `person2 chat --adapter {name}` uses it.", markup=False)


def _progress(bar: Callable[[float, float, str], None], progress: "Progress") -> None:
    bar(progress.step, progress.steps, _state(progress))
    if progress.forecast is not None:
        err.print(str(progress.forecast), markup=False)


def _state(progress: "Progress") -> str:
    held = f" · held-out {progress.held_out:.3f}" if progress.held_out is not None else ""
    return f"loss {progress.loss:.2f}{held}" if progress.loss is not None else "…"
