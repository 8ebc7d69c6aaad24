"""The command: options into a recipe, files into a mixture, a finished folder out.

Connects the other modules of this package. `run_command` offers the command to other programs.
"""

import hashlib
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer

from core.errors import Person2Error, TrainingError
from training.pretrain import card, corpora, data, loop
from training.pretrain import network as net
from training.pretrain.contrast import ContrastiveTask
from training.pretrain.devices import Device, Precision, device_of, dtype_of
from training.pretrain.schedule import Budget, Schedule, ScheduleKind

COMMANDS = "commands.txt"
"""The command line of each session of a run, kept beside its checkpoint."""


def pretrain(
    context_of_call: typer.Context,
    out: Annotated[Path, typer.Argument(help="Folder for the finished model.")],
    train: Annotated[list[str] | None, typer.Option(help="Dialogues to train on, FILE or FILE=WEIGHT.")] = None,
    prose: Annotated[list[str] | None, typer.Option(help="Plain text to train on, FILE or FILE=WEIGHT.")] = None,
    cool: Annotated[
        list[str] | None,
        typer.Option(help="Files for the cool-down phase, FILE=WEIGHT; the training files if left out."),
    ] = None,
    contrast: Annotated[
        list[str] | None,
        typer.Option(help="Files for the contrastive task (telling true replies from others), FILE=WEIGHT."),
    ] = None,
    contrast_every: Annotated[int, typer.Option(min=1, help="Every n-th step is a contrastive one.")] = 2,
    contrast_weight: Annotated[
        float, typer.Option(min=0, help="Weight of the contrastive loss against the token loss.")
    ] = 0.25,
    contrast_temperature: Annotated[float, typer.Option(min=0.1, help="Temperature of the contrastive softmax.")] = 2.5,
    held_out: Annotated[list[Path] | None, typer.Option(help="Dialogues to evaluate on, never trained on.")] = None,
    hold_out: Annotated[
        list[Path] | None, typer.Option(help="A --train file of which every tenth dialogue is held out instead.")
    ] = None,
    run: Annotated[Path, typer.Option(help="Folder for checkpoints and the log.")] = Path("runs/pretrain"),
    about: Annotated[Path | None, typer.Option(help="TOML with title, licences, decoding, notes.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Reuse this folder's tokenizer.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Start from this finished folder's weights and tokenizer, not from random ones.")
    ] = None,
    start_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of --start's weights mixed into the export; 0.5 is midway.")
    ] = 0.0,
    vocabulary: Annotated[int, typer.Option(min=1, max=65_535, help="Entries of a new tokenizer.")] = 8_192,
    width: Annotated[int, typer.Option(min=64, help="Width of the network, a multiple of 64.")] = 256,
    layers: Annotated[
        int,
        typer.Option(min=1, help="Its layers; those beyond the layers of --start begin as identities."),
    ] = 6,
    context: Annotated[int, typer.Option(min=8, help="Context length in tokens.")] = 512,
    dropout: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Dropout; leave at 0 unless files are read many times."),
    ] = 0.0,
    row: Annotated[int, typer.Option(min=8, help="Tokens per row.")] = 256,
    cool_row: Annotated[int, typer.Option(min=8, help="Tokens per row during the cool-down.")] = 512,
    batch: Annotated[int, typer.Option(min=8, help="Tokens per step.")] = 4_096,
    minutes: Annotated[float | None, typer.Option(min=0, help="Total minutes of training.")] = None,
    until: Annotated[str | None, typer.Option(help="Train until this time of day, HH:MM.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Total tokens of training.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Total steps of training.")] = None,
    schedule: Annotated[ScheduleKind, typer.Option(help="Learning-rate schedule.")] = ScheduleKind.TRAPEZOID,
    warmup: Annotated[int, typer.Option(min=0, help="Steps of warm-up.")] = 100,
    cool_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the budget that is the cool-down.")
    ] = 0.3,
    muon_rate: Annotated[float, typer.Option(min=0, help="Muon's peak rate; 0: AdamW for everything.")] = 0.01,
    adam_rate: Annotated[float, typer.Option(min=0, help="AdamW's peak rate.")] = 0.003,
    weight_decay: Annotated[float, typer.Option(min=0, help="Weight decay.")] = 0.05,
    average: Annotated[float, typer.Option(min=0, max=1, help="Decay of the weights' moving average.")] = 0.995,
    use_average: Annotated[bool, typer.Option(help="Export the averaged weights.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and shuffling.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0: torch's own choice.")] = 0,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.AUTO,
    precision: Annotated[
        Precision, typer.Option(help="Of the passes; auto: bfloat16 where it is native. Weights stay float32.")
    ] = Precision.AUTO,
    checkpoint_minutes: Annotated[float, typer.Option(min=0, help="Minutes between checkpoints.")] = 5.0,
    measure_minutes: Annotated[float, typer.Option(min=0, help="Minutes between held-out evaluations.")] = 10.0,
    resume: Annotated[bool, typer.Option(help="Continue from the checkpoint; the budget may differ.")] = False,
    export_only: Annotated[bool, typer.Option(help="Write the model of the last checkpoint and exit.")] = False,
) -> None:
    """Train a small GPT-2 from scratch on dialogues, and write a folder that from_pretrained loads.

    Example: python -m training.pretrain models/mine --train talk.txt=3 --train chat.txt --minutes 35. An interrupted
    run continues with the same options and --resume: exactly, if the budget is in steps or tokens. A budget of time may
    be changed when resuming, and the cool-down moves with it; so may the --contrast options.
    """
    described = card.read_about(about) if about else card.About()
    before = card.earlier(start) if start else []
    sources = [corpora.parse_source(spec) for spec in train or []]
    sources += [corpora.parse_source(spec, kind="prose") for spec in prose or []]
    tenth = {path.resolve() for path in hold_out or []}
    cooled = [corpora.parse_source(spec) for spec in cool or []]
    compared = [corpora.parse_source(spec) for spec in contrast or []]
    files = data.Files(
        train=[replace(source, hold_out=source.path.resolve() in tenth) for source in sources],
        cool={source.name: source.weight for source in cooled},
        contrast={source.name: source.weight for source in compared},
        held_out=held_out or [],
        cache=run,
        tokenizer=tokenizer or start,
        vocabulary=vocabulary,
    )
    if start_share and start is None:
        raise TrainingError("--start-share goes back towards the weights of --start; name that folder too.")
    if start_share and use_average:
        raise TrainingError("--start-share and --use-average exclude each other; choose one.")
    if not (resume or export_only) and (run / loop.CHECKPOINT).exists():
        raise TrainingError(
            f"{run} contains a checkpoint already; add --resume to continue it, or name another --run folder."
        )
    if not (resume or export_only) and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} is not empty; give another OUT, so that no model is lost.")
    if width % net.HEAD_WIDTH:
        raise TrainingError(f"A width of {width} is not a multiple of {net.HEAD_WIDTH}; heads are that wide.")
    if max(row, cool_row) > context:
        raise TrainingError(
            f"Rows of {max(row, cool_row)} tokens do not fit into a context of {context}; lower --row or --cool-row."
        )

    def planned(spent: float) -> Budget:
        now = datetime.now().astimezone()
        return budget_of(minutes=minutes, until=until, tokens=tokens, steps=steps, batch=batch, spent=spent, now=now)

    # Wrong options fail here, before files are read for minutes.
    where = device_of(device)
    if not export_only:
        planned(0.0)
    if threads:
        torch.set_num_threads(threads)
    task = (
        ContrastiveTask(every=contrast_every, weight=contrast_weight, temperature=contrast_temperature).fitted(context)
        if compared
        else None
    )
    prepared = data.prepare(files, task=task, row=row, cool_row=cool_row, seed=seed, report=_report)
    recipe = loop.Recipe(
        shape=net.NetworkShape(
            width=width,
            layers=layers,
            context=context,
            vocabulary=prepared.tokenizer.get_vocab_size(),
            dropout=dropout,
        ),
        rates=net.Rates(muon=muon_rate, adam=adam_rate, weight_decay=weight_decay),
        schedule=Schedule(shape=schedule, warmup_steps=warmup, cool_fraction=cool_fraction),
        row=row,
        cool_row=cool_row,
        batch=batch,
        average=average,
        seed=seed,
        contrast=task,
        start=_sha256(start / net.WEIGHTS) if start else None,
    )
    trainer = loop.Trainer(
        recipe,
        main=prepared.main,
        cool=prepared.cool,
        contrastive=prepared.contrastive,
        held_out=prepared.held_out,
        folder=run,
        clock=time.monotonic,
        report=_report,
        device=where,
        dtype=dtype_of(precision, where),
        start=start,
    )
    if resume or export_only:
        trainer.resume()
    if not export_only:
        budget = planned(trainer.seconds)
        with (run / COMMANDS).open("a", encoding="utf-8") as log:
            log.write(shlex.join(["python", "-m", "training.pretrain", *context_of_call.obj]) + "\n")
        trainer.run(budget, loop.Pace(checkpoint=checkpoint_minutes * 60, measure=measure_minutes * 60))
    if start and start_share:
        net.blend(trainer.network, start, start_share)
    scores = trainer.measure(prepared.held_out, averaged=use_average)
    _report("held out, whole, bits per byte: " + ", ".join(f"{name} {score:.4f}" for name, score in scores.items()))
    with trainer.averaged() if use_average else nullcontext():
        made = card.ModelCard(
            parameters=sum(weight.numel() for weight in trainer.network.parameters()),
            shape=loop.plain(trainer.recipe)["shape"],
            tokens=trainer.tokens + sum(run["tokens"] for run in before),
            bits_per_byte={name: round(score, 4) for name, score in scores.items()},
            decoding=described.decoding,
        )
        this = _run(files, prepared, trainer, described, averaged=use_average, start_share=start_share)
        card.export(out, trainer.network, prepared.tokenizer, made, [*before, asdict(this)], described)
    typer.echo(out)


def _run(
    files: data.Files,
    prepared: data.Data,
    trainer: loop.Trainer,
    described: card.About,
    *,
    averaged: bool,
    start_share: float,
) -> card.Run:
    main, cool = prepared.main.passes(), prepared.cool.passes()
    commands = files.cache / COMMANDS
    return card.Run(
        commands=tuple(commands.read_text(encoding="utf-8").splitlines()) if commands.is_file() else (),
        recipe=loop.plain(trainer.recipe),
        steps=trainer.step,
        cooled_from=trainer.cooled_from,
        tokens=trainer.tokens,
        seconds=round(trainer.seconds, 1),
        averaged=averaged,
        start_share=start_share,
        ingredients=tuple(
            card.Ingredient(
                name=source.name,
                file=source.path.name,
                sha256=prepared.corpora[source.name].sha256,
                weight=source.weight,
                cool_weight=files.cool_weight(source),
                texts=len(prepared.corpora[source.name].texts),
                tokens=len(prepared.encoded[source.name].tokens),
                passes=round(main[source.name] + cool.get(source.name, 0.0), 3),
                held_out=len(prepared.corpora[source.name].held_out),
                dropped=prepared.corpora[source.name].dropped,
                licence=described.licence_of(source.name),
            )
            for source in files.train
        ),
        held_out_files={path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.held_out},
        versions={name: version(name) for name in ("torch", "transformers", "tokenizers")},
    )


def budget_of(
    *,
    minutes: float | None,
    until: str | None,
    tokens: int | None,
    steps: int | None,
    batch: int,
    spent: float,
    now: datetime,
) -> Budget:
    """The budget, which exactly one of the options gives. `until` is the next such time of day; `spent` are the seconds
    of earlier sessions."""
    if sum(value is not None for value in (minutes, until, tokens, steps)) != 1:
        raise TrainingError("Say how long to train with exactly one of --minutes, --until, --tokens and --steps.")
    if minutes is not None:
        return Budget(seconds=minutes * 60)
    if tokens is not None:
        return Budget(steps=-(-tokens // batch))
    if until is None:
        return Budget(steps=steps)
    try:
        clock = datetime.strptime(until, "%H:%M").time()  # noqa: DTZ007 - a time of day has no zone of its own
    except ValueError:
        raise TrainingError(f"{until!r} is not a time of day; write it as --until 18:30.") from None
    end = datetime.combine(now.date(), clock, tzinfo=now.tzinfo)
    if end <= now:
        end += timedelta(days=1)
    return Budget(seconds=spent + (end - now).total_seconds())


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror}); name a folder that this tool wrote.") from error


def _report(line: str) -> None:
    typer.echo(line, err=True)


def run_command(args: Sequence[str], *, name: str) -> None:
    """The command `name` with these arguments; so another program may offer it. Raises Person2Error and SystemExit."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(pretrain)
    app(list(args), prog_name=name, obj=list(args))


def main() -> None:
    """`python -m training.pretrain`: an error is a sentence, not a traceback."""
    try:
        run_command(sys.argv[1:], name="python -m training.pretrain")
    except Person2Error as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None
