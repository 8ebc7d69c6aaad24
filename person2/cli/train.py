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
    held_out: Annotated[list[Path] | None, typer.Option(help="Dialogues to evaluate on, never trained on.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model: starter, a hub name or a folder.")] = None,
    name: Annotated[str | None, typer.Option(help="The adapter's id; derived from the date if left out.")] = None,
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the dialogues.")] = 3.0,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank: the adapter's capacity.")] = 16,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=0.0, help="Peak learning rate; by default 0.004 on the starter, lower on wider bases."),
    ] = None,
    patience: Annotated[
        int, typer.Option(min=1, help="Evaluations without improvement before it stops early; four per epoch.")
    ] = 4,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens per step, over all devices.")] = 4_096,
    device_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens per device at a time, gradients are accumulated up to a step; by memory if left out."
        ),
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Use less memory, but more time.")
    ] = False,
    precision: Annotated[
        str, typer.Option(help="auto, bf16 or fp32; auto uses bf16 where the hardware supports it.")
    ] = "auto",
    adapter: Annotated[str | None, typer.Option(help="Continue from this adapter.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed, data and settings give the same adapter.")] = 17,
    contexts: Annotated[
        int, typer.Option(min=0, help="Replies to rank and to generate for the evaluation; 0 skips it.")
    ] = 200,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped.")] = False,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Also train on a quarter and a half of the data: would more help?")
    ] = False,
    leave_out: Annotated[
        Path | None, typer.Option(help="File of passages not to learn, one per line, such as a run's memorized.txt.")
    ] = None,
    drop_memorized: Annotated[
        bool, typer.Option("--drop-memorized", help="Leave out memorized passages and train again.")
    ] = False,
    preferences: Annotated[
        bool, typer.Option("--preferences", help="Learn from 👍, 👎 and `again` in the bot's own log too.")
    ] = False,
    log_to: Annotated[str, typer.Option(help="tensorboard or wandb, where installed.")] = "none",
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Fine-tune a LoRA adapter on dialogues and evaluate it; use only words of people who agreed (see the README)."""
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
    with _explaining_how_to_resume(adapter_id, runs / adapter_id), ProgressBar("training") as bar:
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
                precision=precision,  # type: ignore[arg-type]  # FinetuneConfig checks it
                seed=seed,
            ),
            resume=resume,
            with_curve=learning_curve,
            left_out=LeftOut.read(leave_out) if leave_out else LeftOut(),
            drop_memorized=drop_memorized,
            preferences=_preferences(settings) if preferences else (),
            contexts=contexts,
            sampling=sampling(settings),
            log_to=log_to,  # type: ignore[arg-type]  # finetune checks it
            other_bases=other_bases(settings),
            on_progress=partial(_progress, bar),
            on_stage=lambda stage: bar(stage.done, 1, str(stage)),
            on_advice=lambda sentence: err.print(sentence, markup=False),
        )
    if learned is not None:
        _print_result(learned, as_json=as_json)


class Stopped(KeyboardInterrupt):
    """A signal or a closed terminal stops the run, as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does; signals that `nohup` ignores stay ignored."""

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
def _explaining_how_to_resume(name: str, run: Path) -> Iterator[None]:
    """A run that is stopped says how to resume it."""
    from training.finetune.run_folder import begun

    try:
        with _interrupted_by_signals():
            yield
    except KeyboardInterrupt as stopped:
        message = "Stopped before the training began; nothing was written."
        if begun(run):
            message = f"Stopped. Run the same command with --name {name} --resume to continue."
        with suppress(OSError):  # the terminal may be gone
            err.print(message, markup=False)
        if isinstance(stopped, Stopped):
            sys.exit(128 + stopped.number)
        raise


@cli.command(
    epilog="Example: `person2 pretrain models/mine --train talk.txt --minutes 35`",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def pretrain(context: typer.Context) -> None:
    """Train a small GPT-2 from scratch, like the bundled model; `person2 pretrain --help` lists its options."""
    from training.pretrain.cli import run_command  # loads torch, so only when asked for

    run_command(context.args, name="person2 pretrain")


@cli.command(epilog="Example: `person2 retrain --dry-run`")
def retrain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be trained on.")] = False,
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the dialogues.")] = 3.0,
    contexts: Annotated[int, typer.Option(min=1, help="Replies to rank and to generate for the comparison.")] = 200,
    drop_memorized: Annotated[
        bool, typer.Option("--drop-memorized", help="Leave out memorized passages and train again.")
    ] = False,
    preferences: Annotated[
        bool, typer.Option("--preferences", help="Also train on members' 👍, 👎 and `again`.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Train on the logged messages of members who consented; promote the new adapter if it passes the gate."""
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
    _print_result(done.learned, as_json=as_json)
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
    """The command line, for the report and the card."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    program = ["person2"] if processes < 2 else shlex.split(f"accelerate launch --num_processes {processes} -m person2")
    return shlex.join([*program, *sys.argv[1:]])


def _print_result(learned: "Learned", *, as_json: bool) -> None:
    """The outcome of a run: scores, the gate's verdict, the report's path, what to type next."""
    outcome, comparison, name = learned.outcome, learned.comparison, learned.adapter.id
    for fault in outcome.faults:
        err.print(str(fault), markup=False)
    if as_json:
        verdict = {"passed": comparison.verdict.passed, "verdict": str(comparison.verdict)} if comparison else {}
        warning = {"warning": learned.warning} if learned.warning else {}
        write_json({**asdict(outcome), "adapter": name, "report": learned.report, **verdict, **warning})
        return
    out.print(
        f"Held-out replies: {outcome.before:.3f} → {outcome.after:.3f} bits per byte, "
        f"token perplexity {outcome.perplexity_before:.1f} → {outcome.perplexity_after:.1f} "
        f"({outcome.held_out_dialogues} dialogues not trained on)."
    )
    out.print(
        f"Trained on {outcome.train_dialogues} dialogues in {outcome.steps} steps and {outcome.seconds / 60:.1f} "
        f"minutes, at {outcome.targets_per_second:.0f} target tokens per second."
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
