"""Commands that learn: exports into dialogues, dialogues into an adapter, scores."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import ExportError, TrainingError
from core.memory import open_memory
from core.settings import Settings
from person2.screen import Bar, check_files, chosen, err, out, write_json
from person2.wiring import base_path, configured, now, open_shelf, sampling

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.finetune.pipeline import Learned

app = typer.Typer()


@app.command(
    "import", epilog="Example: `person2 import export.zip --out talk.txt --attest 'our own server, everybody agreed'`"
)
def import_(
    sources: Annotated[
        list[str],
        typer.Argument(help="Export files, folders or zips; `log` for the bot's own memory.", metavar="SOURCE…"),
    ],
    target: Annotated[Path, typer.Option("--out", help="The dialogue file to write.")],
    attest: Annotated[str | None, typer.Option(help="Why you may use this talk.")] = None,
    people: Annotated[Path | None, typer.Option(help="The people who said yes, a name or id a line.")] = None,
    as_name: Annotated[str | None, typer.Option("--as", help="Only this person is Person2.")] = None,
    held_out: Annotated[Path | None, typer.Option(help="The newest dialogues go here instead.")] = None,
    gap: Annotated[float, typer.Option(min=1.0, help="Minutes of silence that end a conversation.")] = 720.0,
    keep_names: Annotated[bool, typer.Option("--keep-names", help="Leave people's names in what was said.")] = False,
    country: Annotated[
        list[str] | None,
        typer.Option(help="Mask this country's national telephone numbers too (ISO code); may be repeated."),
    ] = None,
    block_list: Annotated[Path | None, typer.Option(help="Words, one a line; messages with one are left out.")] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Keep this language only (ISO code); may be repeated.")
    ] = None,
    code: Annotated[str, typer.Option(help="Code blocks: short, keep or drop.")] = "short",
    columns: Annotated[
        str, typer.Option(help="Of CSV files: author=…,time=…,text=… and, where there are some, channel=…,id=….")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="The counts as JSON.")] = False,
) -> None:
    """Turn chat exports into Person1:/Person2: dialogues, and show what was kept, what was dropped and why."""
    from training.data.import_job import Options, import_talk
    from training.data.stats import render_table
    from training.data.workers import stoppable
    from training.privacy.own_log import learnable
    from training.privacy.run_registry import importing, remember_import

    settings = configured()
    files = [Path(source) for source in sources if source != "log"]
    from_log = len(files) < len(sources)
    if from_log:
        _check_log_is_on(settings)
    memory = open_memory(settings.database) if from_log else None
    options = Options(
        as_name=as_name,
        gap=timedelta(minutes=gap),
        keep_names=keep_names,
        countries=tuple(code.upper() for code in country or ()),
        block_list=_lines(block_list),
        languages=tuple(language or ()),
        code=_code_blocks(code),
        columns=columns,
    )
    remember_import(settings.home, target, *([held_out] if held_out else []))
    with stoppable(), importing(settings.home), Bar("importing") as bar:
        stats = import_talk(
            files,
            out=target,
            home=settings.home,
            attest=attest,
            people=people,
            held_out=held_out,
            log=learnable(memory) if memory else None,
            consented=memory.consented() if memory else (),
            liked=memory.judged()[0] if memory else (),
            options=options,
            count_tokens=_token_counter(base_path(settings.base_model)),
            progress=lambda stage, share: bar(share, 1, stage),
        )
    for line in stats.faults.lines():
        err.print(line, markup=False)
    for name in stats.unknown_people:
        err.print(
            f"Nobody in these exports, or more than one person, is called {name!r}; give their id, or platform:name.",
            markup=False,
        )
    if as_json:
        write_json(stats.to_json())
    else:
        out.print(render_table(stats))
    if stats.out is None:
        raise ExportError("No dialogue was left, so nothing was written; the counts above say why.")


def _token_counter(base: str) -> "Callable[[str], int] | None":
    """Counts tokens as the base model does, where its tokenizer is at hand: in its folder, or in the hub's cache.

    An import must not wait for a download, and without a count the table says that it is an estimate. Loads no torch.
    """
    from tokenizers import Tokenizer

    file: Path | str | None = Path(base) / "tokenizer.json"
    if not Path(base).is_dir():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            found = try_to_load_from_cache(base, "tokenizer.json")
        except HFValidationError:
            return None
        file = found if isinstance(found, str) else None
    if file is None or not Path(file).is_file():
        return None
    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _lines(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    try:
        return tuple(filter(None, (line.strip() for line in file.read_text(encoding="utf-8").splitlines())))
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{file} cannot be read ({error}); give a UTF-8 text file.") from error


def _code_blocks(word: str) -> Any:
    from training.data.formats.markup import CodeBlocks

    try:
        return CodeBlocks(word)
    except ValueError:
        raise ExportError(f"--code is {', '.join(CodeBlocks)}, not {word!r}.") from None


@app.command(epilog="Example: `person2 train talk.txt --name our-voice && person2 chat --adapter our-voice`")
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
    shelf = open_shelf(settings)
    runs = settings.home / "runs"
    stopped = unfinished(runs, {card.id for card in shelf.cards()}) if resume and not name else None
    adapter_id = name or (stopped.name if stopped else broadcast(f"voice-{now():%Y%m%d-%H%M%S}"))
    before = shelf.find(adapter, base=settings.base_model) if adapter else None
    with _telling_how_to_go_on(adapter_id, runs / adapter_id), Bar("training") as bar:
        learned = learn(
            files,
            shelf=shelf,
            run=runs / adapter_id,
            name=adapter_id,
            base=settings.base_model,
            base_folder=base_path(settings.base_model),
            command=_command(),
            clock=now,
            held_out=held_out or [],
            start_from=before,
            current=shelf.current(base=settings.base_model),
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
            contexts=contexts,
            sampling=sampling(settings),
            log_to=log_to,  # type: ignore[arg-type]  # finetune says which are known
            on_progress=lambda progress: bar(progress.step, progress.steps, _state(progress)),
            on_stage=lambda stage: bar(stage.done, 1, str(stage)),
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


@app.command(
    epilog="Example: `person2 pretrain models/mine --train talk.txt --minutes 35`",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def pretrain(context: typer.Context) -> None:
    """Train a small GPT-2 from scratch, as the bundled model was made; `person2 pretrain --help` lists its options."""
    from training.pretrain.cli import run_command  # loads torch, so only when asked for

    run_command(context.args, name="person2 pretrain")


@app.command(epilog="Example: `person2 retrain --dry-run`")
def retrain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be learned from.")] = False,
    epochs: Annotated[float, typer.Option(min=0.01, help="How often each dialogue is seen.")] = 3.0,
    contexts: Annotated[int, typer.Option(min=1, help="Replies ranked and made for the comparison.")] = 200,
    drop_memorized: Annotated[
        bool, typer.Option("--drop-memorized", help="Leave out what comes out by heart and train again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
) -> None:
    """Learn from the logged talk of members who said yes, and promote the new voice if it passes the gate."""
    settings = configured()
    _check_log_is_on(settings)
    from training.data.stats import render_table
    from training.finetune.config import FinetuneConfig
    from training.finetune.retrain import retrain as learn_from_log

    with Bar("retraining") as bar:
        done = learn_from_log(
            memory=open_memory(settings.database),
            shelf=open_shelf(settings),
            home=settings.home,
            base=settings.base_model,
            base_folder=base_path(settings.base_model),
            count_tokens=_token_counter(base_path(settings.base_model)),
            command=_command(),
            clock=now,
            dry_run=dry_run,
            settings=FinetuneConfig(epochs=epochs),
            sampling=sampling(settings),
            contexts=contexts,
            drop_memorized=drop_memorized,
            on_progress=lambda progress: bar(progress.step, progress.steps, _state(progress)),
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


def _check_log_is_on(settings: Settings) -> None:
    if settings.log_for_training != "consented":
        raise TrainingError(
            "Learning from the log is off; set PERSON2_LOG_FOR_TRAINING=consented once your members know of it."
        )


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
    elif learned.warning:
        out.print(learned.warning, markup=False)
    if comparison is not None:
        out.print(f"Report: {learned.report}", markup=False)
    out.print(f"Registered as {name}: `person2 chat --adapter {name}` uses it.", markup=False)


def _state(progress: Any) -> str:
    held = f" · held-out {progress.held_out:.3f}" if progress.held_out is not None else ""
    return f"loss {progress.loss:.2f}{held}" if progress.loss is not None else "…"
