"""The command that evaluates: held-out scores of an adapter, beside those of the base, the current adapter and other
models.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from core.adapters import AdapterRegistry
from core.errors import SettingsError
from core.generator import Adapter
from person2.app import base_path, configured, open_registry, sampling
from person2.console import ProgressBar, check_files, chosen, err, out, write_json

cli = typer.Typer()

SHARES = (
    "hits_at_1_of_20",
    "distinct_2",
    "empty",
    "detection_auc",
    "detection_auc_by_length",
    "copied",
    "longest_copy",
    "extracted",
)
"""Scores that may be missing."""
BASE, CURRENT = "base", "current"
"""Names of the usual references in the report."""


@cli.command(epilog="Example: `person2 evaluate held-out.txt --adapter our-voice --json`")
def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Files of dialogues that were not trained on.", metavar="FILE…")],
    base: Annotated[str | None, typer.Option(help="Base model: starter, a hub name or a folder.")] = None,
    adapter: Annotated[str | None, typer.Option(help="An adapter's id, a folder, or none.")] = None,
    training: Annotated[list[Path] | None, typer.Option(help="The training files, for the copying scores.")] = None,
    contexts: Annotated[
        int, typer.Option(min=0, help="Replies to rank and to generate per file; 0 skips both, which is quick.")
    ] = 200,
    alone: Annotated[
        bool,
        typer.Option("--alone", help="Do not score the base and the current adapter too; each takes as long again."),
    ] = False,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Another base model to score, without an adapter: starter, a hub name or a folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Score an adapter on held-out dialogues, against the base, the current adapter and other models: bits per byte,
    next-reply ranking, diversity, copying.
    """
    from training.evaluation.evaluate import evaluate as score

    settings = configured(**chosen(base_model=base, adapter=adapter))
    registry = open_registry(settings)
    selected = registry.find(settings.adapter, base=settings.base_model)
    check_files([*files, *(training or [])])
    references = {} if alone else _references(selected, registry, settings.base_model)
    for name in beside or []:
        if name in {BASE, CURRENT}:
            raise SettingsError(f"--beside {name} is a reserved name; write ./{name} if you mean a folder.")
        references[name] = (base_path(name), None)
    with ProgressBar("evaluating") as bar:
        result = score(
            files,
            base=base_path(settings.base_model),
            adapter=selected.path if selected else None,
            references=references,
            training=training or [],
            contexts=contexts,
            sampling=sampling(settings),
            on_stage=lambda stage: bar(stage.done, 1, str(stage)),
        ).to_json()
    for fault in result["faults"]:
        err.print(fault, markup=False)
    if as_json:
        write_json(result)
        return
    name = selected.id if selected else "none"
    out.print(_scores(result, title=f"{settings.base_model}, adapter {name}"))
    if result["against"]:
        out.print(_comparison(result, name=name))
    if len(result["files"]) > 1:
        out.print(_by_file(result, name=name))
    if result["extracted_by_person"]:
        out.print(_people(result["extracted_by_person"]))
    if result["memorized"]:
        out.print(_memorized(result["memorized"]))
    baselines = {name: value for name, value in result["baselines"].items() if value is not None}
    if baselines:
        out.print("Baselines: " + ", ".join(f"{name} {value:.2f}" for name, value in baselines.items()))


def _references(adapter: Adapter | None, registry: AdapterRegistry, base: str) -> dict[str, tuple[str, Path | None]]:
    """The bare base, unless that is what is evaluated, and the current adapter, unless that is."""
    current = registry.current(base=base)
    references: dict[str, tuple[str, Path | None]] = {BASE: (base_path(base), None)} if adapter else {}
    if current and (
        adapter is None or adapter.path.resolve() != current.path.resolve()
    ):  # which may be given as a folder
        references[CURRENT] = (base_path(base), current.path)
    return references


def _scores(result: dict[str, Any], *, title: str) -> Table:
    """The scores of each file, and of all files together, with their intervals."""
    files = result["files"]
    together = ["together"] if len(files) > 1 else []
    table = Table("score", *(Path(name).name for name in files), *together, title=title)
    columns = [*files.values(), *([result] if together else [])]
    if len(files) == 1:  # extraction is not measured by file
        columns = [result]
    for label in _labels(result):
        table.add_row(label, *(_shown(column.get(label), column.get("intervals", {}).get(label)) for column in columns))
    return table


def _comparison(result: dict[str, Any], *, name: str) -> Table:
    """The references' scores, and the adapter's difference from them with its interval."""
    references = result["against"]
    heads = [head for reference in references for head in (reference, f"{name} − {reference}")]
    table = Table("score", *heads, title="against")
    for label in _labels(result):
        if label == "dialogues":
            continue
        cells = []
        for reference in references.values():
            gap = reference["differences"].get(label)
            cells += [
                _shown(reference.get(label), None),
                f"{gap[0]:+.3f} ({gap[1]:+.3f} to {gap[2]:+.3f})" if gap else "–",
            ]
        table.add_row(label, *cells)
    return table


def _by_file(result: dict[str, Any], *, name: str) -> Table:
    """The scores of the adapter, its references and the baselines on each file."""
    files = result["files"]
    table = Table("by file", *(Path(file).name for file in files))
    scored = {name: files, **{reference: theirs["files"] for reference, theirs in result["against"].items()}}
    for label in ("bits_per_byte", "hits_at_1_of_20"):
        for who, scores in scored.items():
            table.add_row(f"{label}, {who}", *(_shown(scores[file][label], None) for file in files))
    for label in ("tf_idf_hits", "markov_hits"):
        table.add_row(label, *(_shown(one["baselines"][label], None) for one in files.values()))
    return table


def _people(people: dict[str, dict[str, int]]) -> Table:
    table = Table("person", "turns tried", "reproduced", title="training turns that were reproduced, by author")
    for person, counts in people.items():
        table.add_row(person, str(counts["tried"]), str(counts["out"]))
    return table


def _memorized(passages: list[dict[str, Any]]) -> Table:
    table = Table(
        "person", "words", "occurrences", "prompted in", "reproduced in", title="memorized passages of one person"
    )
    for one in passages:
        table.add_row(one["person"] or "–", *(str(one[column]) for column in ("words", "said", "asked", "out")))
    return table


def _labels(result: dict[str, Any]) -> list[str]:
    return [key for key, value in result.items() if isinstance(value, (int, float)) or key in SHARES]


def _shown(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
