"""The command that turns chat exports and the bot's own log into dialogue files."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import ExportError, TrainingError
from core.memory import open_memory
from core.settings import Settings
from person2.app import base_path, configured
from person2.console import ProgressBar, err, out, write_json

cli = typer.Typer()


@cli.command(
    "import", epilog="Example: `person2 import export.zip --out talk.txt --attest 'our own server, everybody agreed'`"
)
def import_(
    sources: Annotated[
        list[str],
        typer.Argument(help="Export files, folders or zips; `log` for the bot's own memory.", metavar="SOURCE…"),
    ],
    target: Annotated[Path, typer.Option("--out", help="The dialogue file to write.")],
    attest: Annotated[str | None, typer.Option(help="A statement of why you may use these messages.")] = None,
    people: Annotated[
        Path | None, typer.Option(help="File of the people who consented, one name or id per line.")
    ] = None,
    as_name: Annotated[str | None, typer.Option("--as", help="Use only this person's turns as Person2's.")] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Write the newest dialogues to this file instead, as held-out data.")
    ] = None,
    gap: Annotated[float, typer.Option(min=1.0, help="Minutes of silence that end a conversation.")] = 720.0,
    keep_names: Annotated[bool, typer.Option("--keep-names", help="Do not mask people's names.")] = False,
    country: Annotated[
        list[str] | None,
        typer.Option(help="Mask this country's national telephone numbers too (ISO code); may be repeated."),
    ] = None,
    block_list: Annotated[
        Path | None, typer.Option(help="File of words, one per line; messages that contain one are left out.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Keep only this language (ISO code); may be repeated.")
    ] = None,
    code: Annotated[
        str, typer.Option(help="Code blocks: keep short ones (short), all (keep) or none (drop).")
    ] = "short",
    columns: Annotated[
        str, typer.Option(help="Columns of a CSV file: author=…,time=…,text=…, and optionally channel=…,id=….")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
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
        check_log_is_on(settings)
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
    with stoppable(), importing(settings.home), ProgressBar("importing") as bar:
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
            count_tokens=token_counter(base_path(settings.base_model)),
            progress=lambda stage, share: bar(share, 1, stage),
        )
    for line in stats.faults.lines():
        err.print(line, markup=False)
    for name in stats.unknown_people:
        err.print(
            f"{name!r} matches nobody, or more than one person, in these exports; give an id, or platform:name.",
            markup=False,
        )
    if as_json:
        write_json(stats.to_json())
    else:
        out.print(render_table(stats))
    if stats.out is None:
        raise ExportError("No dialogue remained, so nothing was written; the counts above say why.")


def token_counter(base: str) -> Callable[[str], int] | None:
    """Counts tokens as the base model does, where its tokenizer is in its folder or in the hub's cache; else None.

    An import must not wait for a download; without a counter the table shows an estimate. Loads no torch.
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
        raise ExportError(f"--code must be one of {', '.join(CodeBlocks)}, not {word!r}.") from None


def check_log_is_on(settings: Settings) -> None:
    if settings.log_for_training != "consented":
        raise TrainingError(
            "Learning from the log is off; set PERSON2_LOG_FOR_TRAINING=consented once you have told your members."
        )
