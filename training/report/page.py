"""The results of a run and its evaluation, prepared for the template; computes no score.

People appear under pseudonyms: the first characters of their keyed hashes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.atomic_io import write_atomically
from core.dialogue import Speaker
from training.evaluation.comparison import NEW, Comparison
from training.evaluation.intervals import Figure
from training.evaluation.learning_curve import CurvePoint
from training.finetune.outcome import Outcome
from training.privacy.provenance import pseudonym
from training.report.charts import Curve, lines, whiskers

TEMPLATE = "report.html.j2"
SHOWN_CONTEXTS = 12
SHOWN_TURNS = 4
"""Turns of context that are shown, the newest ones."""
SHOWN_PEOPLE = 30
MADE = ("dialogues", "turns", "people")
"""The counts of an import's result."""
METRICS = (
    ("reply_bits_per_byte", "Bits per byte of replies", "lower is better", False),
    ("bits_per_byte", "Bits per byte of whole dialogues", "lower is better; only replies are trained", False),
    ("hits_at_1_of_20", "True reply found among 20", "higher is better; chance is 5 %", True),
    ("copied", "Long replies copied", "lower is better", True),
    ("extracted", "Training turns reproduced", "lower is better", True),
    ("empty", "Empty or repeating", "lower is better", True),
)
"""Field of `Scores`, title, hint, and whether it is a share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything the page shows."""

    outcome: Outcome
    comparison: Comparison
    command: str
    created_at: datetime
    seconds: float
    """Training and evaluation together."""
    funnel: dict[str, int] = field(default_factory=dict)
    advice: str = ""
    learning_curve: tuple[CurvePoint, ...] = ()


def write_report(report: Report, file: Path) -> Path:
    """Write the page atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, render(report))
    return file


def render(report: Report) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"value": _value, "pseudonym": pseudonym}
    outcome, comparison = report.outcome, report.comparison
    return environment.get_template(TEMPLATE).render(
        report=report,
        outcome=outcome,
        comparison=comparison,
        passed=comparison.verdict.passed,
        tiles=_tiles(report),
        loss_chart=lines(
            [Curve(points=tuple((point.step, point.value) for point in outcome.loss), colour="current")],
            title="Training loss by step",
            x_label="steps",
        ),
        held_out_chart=lines(
            [Curve(points=((0, outcome.before), *((p.step, p.value) for p in outcome.held_out)), dots=True)],
            title="Held-out bits per byte by step",
            x_label="steps",
            marks=[(outcome.before, "before")],
        ),
        curve_chart=lines(
            [Curve(points=((0.0, outcome.before), *_curve(report.learning_curve)), dots=True)],
            title="Held-out bits per byte by dialogues",
            x_label="dialogues",
        ),
        scores=[*_scores(comparison)],
        varied=[(who, one.distinct_2) for who, one in comparison.scores.items() if one.distinct_2 is not None],
        examples=[*_examples(comparison)],
        extracted=sum(one.out for one in comparison.extractions),
        shown_people=SHOWN_PEOPLE,
        funnel=[*_funnel(report.funnel)],
        made=", ".join(f"{report.funnel[name]:,} {name}" for name in MADE if name in report.funnel),
        facts=_facts(report),
    )


def _curve(points: Sequence[CurvePoint]) -> Iterator[tuple[float, float]]:
    return ((float(point.dialogues), point.bits_per_byte) for point in points)


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    outcome, scores = report.outcome, report.comparison.scores[NEW]
    return [
        ("bits per byte of a reply", f"{outcome.before:.3f} → {outcome.after:.3f}", "held out; lower is better"),
        ("true reply found among 20", _share(scores.hits_at_1_of_20), "chance is 5 %"),
        ("long replies copied", _share(scores.copied), "whole, from the training text"),
        ("empty or repeating", _share(scores.empty), f"of {len(report.comparison.results[NEW].replies)} replies"),
        ("time", _duration(report.seconds), f"{outcome.targets_per_second:,.0f} target tokens per second"),
    ]


def _scores(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for name, title, hint, is_share in METRICS:
        rows = [(who, figure) for who, scores in comparison.scores.items() if (figure := getattr(scores, name))]
        if rows:
            yield {
                "title": title,
                "hint": hint,
                "is_share": is_share,
                "rows": rows,
                "gaps": [
                    (reference, found[name]) for reference, found in comparison.differences.items() if name in found
                ],
                "chart": whiskers(rows, title=title, shares=is_share),
            }


def _examples(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for index, context in enumerate(comparison.suite.contexts[:SHOWN_CONTEXTS]):
        yield {
            "shortened": len(context.before) > SHOWN_TURNS,
            "talk": [
                ("two" if turn.speaker is Speaker.PERSON2 else "one", turn.text)
                for turn in context.before[-SHOWN_TURNS:]
            ],
            "replies": [
                *((who, result.replies[index], who) for who, result in comparison.results.items()),
                ("was said", context.reply, "truth"),
            ],
        }


def _funnel(counts: dict[str, int]) -> Iterator[tuple[str, int, str, float]]:
    """Name, count, colour and width of each bar; none without the counts of an import."""
    read = counts.get("messages read", 0)
    if not read:
        return
    bars = [("messages read", read, "base")]
    for name, count in counts.items():
        if name.startswith("messages dropped: "):
            bars.append(("− " + name.split(": ", 1)[1], count, "lost"))
    bars.append(("messages used", counts.get("messages used", 0), "new"))
    for name, count, style in bars:
        yield name, count, style, 100 * count / read


def _facts(report: Report) -> list[tuple[str, str]]:
    outcome, settings = report.outcome, report.outcome.settings
    time = f"{_duration(outcome.seconds)} of training, {_duration(report.seconds)} with evaluation"
    if outcome.resumed_from:
        time += f"; resumed from step {outcome.resumed_from:,} of a run that was stopped"
    return [
        ("base", outcome.base),
        ("time", time),
        ("steps", f"{outcome.steps:,} of {settings.batch_tokens:,} tokens"),
        ("rows", f"{outcome.rows:,} of up to {settings.block} tokens, {outcome.fill:.1%} full"),
        ("tokens", f"{outcome.tokens:,} in an epoch, {outcome.targets:,} of them targets"),
        ("LoRA", f"rank {settings.rank}, alpha {settings.alpha:g}, learning rate {settings.learning_rate or 0:g}"),
        ("left out", f"{outcome.duplicates} dialogues that are also held out, {len(outcome.faults)} faulty lines"),
        ("learned from", f"{len(outcome.people)} people" if outcome.people else "people not told apart (no manifest)"),
        ("data", f"sha256 {outcome.data_sha256}"),
        ("seed", str(settings.seed)),
    ]


def _value(value: float, is_share: bool, sign: str = "") -> str:
    shown = f"{100 * value:{sign}.1f} %" if is_share else f"{value:{sign}.3f}"
    return shown.replace("-", "−")


def _share(figure: Figure | None) -> str:
    return _value(figure.value, is_share=True) if figure else "–"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
