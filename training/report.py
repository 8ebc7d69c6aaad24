"""The training report: one page that needs nothing else, made to be looked at.

Turns what a run and its judge found into HTML; computes no score. By day and by night (`prefers-color-scheme`), and
narrow enough for a phone. People stand in it under pseudonyms: the first letters of their keyed hashes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path

from core.atomic_io import write_atomically
from core.dialogue import Dialogue, Speaker
from training.charts import Line, lines, whiskers
from training.evaluation.comparison import NEW, Comparison
from training.evaluation.intervals import Figure
from training.evaluation.learning_curve import CurvePoint
from training.finetune.outcome import Outcome
from training.page import STYLE
from training.privacy.provenance import pseudonym

SHOWN_CONTEXTS = 12
SHOWN_TURNS = 4
"""Of what was said before a reply, the newest so many."""
SHOWN_PEOPLE = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything the page shows."""

    outcome: Outcome
    judgement: Comparison
    command: str
    created_at: datetime
    seconds: float
    """Training and judging together."""
    funnel: dict[str, int] = field(default_factory=dict)
    advice: str = ""
    learning_curve: tuple[CurvePoint, ...] = ()


def write_report(report: Report, file: Path) -> Path:
    """Write the page; whoever has it open sees the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, page(report))
    return file


def page(report: Report) -> str:
    """The page as text."""
    outcome, judgement = report.outcome, report.judgement
    passed = judgement.verdict.passed
    sections = [
        _tiles(report),
        _section("Why", _reasons(report)),
        _section("Learning", _curves(report)),
        _section("Scores", _scores(judgement)),
        _section("Side by side", _side_by_side(judgement)),
        _section("Copying by person", _people(judgement)),
        _section("From messages to dialogues", _funnel(report)),
        _section("Is there enough data?", _advice(report)),
        _section("How it was made", _made(report)),
    ]
    badge = '<span class="badge ok">passed the gate</span>' if passed else '<span class="badge no">did not pass</span>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(outcome.name)} · Person2 training report</title><style>{STYLE}</style></head><body><main>"
        f'<header><p class="kicker">Person2 training report · {report.created_at:%d %B %Y, %H:%M} UTC</p>'
        f"<h1>{escape(outcome.name)} {badge}</h1>"
        f'<p class="lead">{escape(_lead(report))}</p></header>' + "".join(sections) + "</main></body></html>\n"
    )


def _lead(report: Report) -> str:
    outcome = report.outcome
    change = 1 - outcome.after / outcome.before if outcome.before else 0.0
    better = f"{change:.1%} better than" if outcome.improved else "no better than, and so it is,"
    return (
        f"Trained on {outcome.train_dialogues:,} dialogues over {outcome.base}. It predicts the replies of "
        f"{outcome.held_out_dialogues:,} dialogues that it never saw {better} what it started from."
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def _tiles(report: Report) -> str:
    outcome, scores = report.outcome, report.judgement.scores[NEW]
    tiles = [
        ("bits per byte of a reply", f"{outcome.before:.3f} → {outcome.after:.3f}", "held out; lower is better"),
        ("true reply found of 20", _share(scores.hits_at_1_of_20), "chance is 5 %"),
        ("long replies copied", _share(scores.copied), "whole, from the training text"),
        ("empty or repeating", _share(scores.empty), f"of {len(report.judgement.papers[NEW].replies)} replies"),
        ("time", _duration(report.seconds), f"{outcome.targets_per_second:,.0f} target tokens a second"),
    ]
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><p class="what">{what}</p><p class="figure">{figure}</p><p class="note">{note}</p></div>'
        for what, figure, note in tiles
    ) + "</div>"  # fmt: skip


def _reasons(report: Report) -> str:
    return '<ul class="reasons">' + "".join(
        f'<li class="{"ok" if reason.ok else "no"}">{escape(reason.sentence)}</li>'
        for reason in report.judgement.verdict.reasons
    ) + "</ul>"  # fmt: skip


def _curves(report: Report) -> str:
    outcome = report.outcome
    loss = lines(
        [Line(points=tuple((point.step, point.value) for point in outcome.loss), style="current")],
        title="Training loss by step",
        x_label="steps",
    )
    held = lines(
        [Line(points=((0, outcome.before), *((p.step, p.value) for p in outcome.held_out)), dots=True)],
        title="Held-out bits per byte by step",
        x_label="steps",
        marks=[(outcome.before, "before")],
    )
    stopped = (
        " Training stopped early, because the held-out replies stopped getting better." if outcome.stopped_early else ""
    )
    kept = f"The adapter of step {outcome.best_step} of {outcome.steps} was kept.{stopped}"
    if not outcome.improved:
        kept = f"None of {outcome.steps} steps was better than the beginning, which was kept.{stopped}"
    return (
        f'<div class="pair"><figure>{loss}<figcaption>Training loss, nats a target token</figcaption></figure>'
        f"<figure>{held}<figcaption>Held-out replies, bits per byte</figcaption></figure></div><p>{kept}</p>"
    )


_METRICS = (
    ("reply_bits_per_byte", "Bits per byte of replies", "lower is better", False),
    ("bits_per_byte", "Bits per byte of whole dialogues", "lower is better; only replies are trained", False),
    ("hits_at_1_of_20", "True reply found among 20", "higher is better; chance is 5 %", True),
    ("copied", "Long replies copied whole", "lower is better", True),
    ("extracted", "Training turns given away", "lower is better", True),
    ("empty", "Empty or repeating", "lower is better", True),
)


def _scores(judgement: Comparison) -> str:
    cards = []
    for name, title, hint, is_share in _METRICS:
        rows = [(who, figure) for who, scores in judgement.scores.items() if (figure := getattr(scores, name))]
        if rows:
            figures = "".join(
                f'<tr><th class="who {who}">{who}</th><td>{_value(one.value, is_share)}</td>'
                f"<td>{_value(one.low, is_share)} to {_value(one.high, is_share)}</td></tr>"
                for who, one in rows
            )
            gaps = "".join(
                f"<tr><th>{NEW} − {rival}</th><td>{_value(gap.value, is_share, sign='+')}</td>"
                f"<td>{_value(gap.low, is_share, sign='+')} to {_value(gap.high, is_share, sign='+')}</td></tr>"
                for rival, found in judgement.differences.items()
                if (gap := found.get(name))
            )
            cards.append(
                f"<figure><h3>{title}</h3>{whiskers(rows, title=title, shares=is_share)}"
                f'<table class="figures"><tbody>{figures}{gaps}</tbody></table>'
                f"<figcaption>{hint}</figcaption></figure>"
            )
    floors = judgement.floors
    extra = [
        f'<span class="{who}">{who}</span> {scores.distinct_2:.2f}'
        for who, scores in judgement.scores.items()
        if scores.distinct_2 is not None
    ]
    notes = []
    if extra:
        chain = f" · a Markov chain {floors.markov_distinct_2:.2f}" if floors.markov_distinct_2 is not None else ""
        notes.append(f"Different word pairs (distinct-2): {' · '.join(extra)}{chain}.")
    if floors.tf_idf_hits and floors.markov_hits:
        notes.append(
            f"Floors for finding the reply: TF-IDF {floors.tf_idf_hits.value:.1%}, a word-level Markov chain "
            f"{floors.markov_hits.value:.1%}."
        )
    longest = judgement.scores[NEW].longest_copy
    if longest is not None:
        notes.append(f"Most words in a row shared with one training turn: {longest}.")
    return (
        f'<div class="pair">{"".join(cards)}</div><p>{" ".join(notes)}</p>'
        '<p class="note">Whiskers and “to” are 95 % bootstrap intervals over held-out dialogues, contexts or replies; '
        "differences are drawn over the same ones for both, so they can be sure where the whiskers overlap.</p>"
    )


def _side_by_side(judgement: Comparison) -> str:
    contexts = judgement.exam.contexts[:SHOWN_CONTEXTS]
    cards = []
    for index, context in enumerate(contexts):
        replies = "".join(_reply(who, paper.replies[index], who) for who, paper in judgement.papers.items())
        replies += _reply("was said", context.reply, "truth")
        talk = f'<div class="talk">{_talk(context.before)}</div>'
        cards.append(f'<article>{talk}<div class="replies">{replies}</div></article>')
    return "".join(cards)


def _reply(who: str, text: str, style: str) -> str:
    said = escape(text) or "<i>nothing</i>"
    return f'<div class="reply"><p class="who {style}">{who}</p><p>{said}</p></div>'


def _talk(turns: Dialogue) -> str:
    left_out = '<p class="note">…</p>' if len(turns) > SHOWN_TURNS else ""
    return left_out + "".join(
        f'<p class="turn {"two" if turn.speaker is Speaker.PERSON2 else "one"}">{escape(turn.text)}</p>'
        for turn in turns[-SHOWN_TURNS:]
    )


def _people(judgement: Comparison) -> str:
    tries = judgement.extractions
    said = _by_heart(judgement)
    if not tries:
        return said
    out = sum(one.out for one in tries)
    said += (
        f"<p>The first half of {len(tries)} long training turns went in; "
        f"{'none of the second halves' if not out else f'{out} second halves'} came out word for word.</p>"
    )
    rows = "".join(
        f"<tr><td>{escape(pseudonym(person))}</td><td>{count}</td><td>{came}</td></tr>"
        for person, (count, came) in list(judgement.by_person.items())[:SHOWN_PEOPLE]
    )
    if not rows:
        return (
            said
            + _by_heart(judgement)
            + '<p class="note">No manifest lies beside the dialogues, so nobody is told apart.</p>'
        )
    return (
        f'{said}<div class="wide"><table><thead><tr><th>person</th><th>turns tried in their dialogues</th>'
        f"<th>came out</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _by_heart(judgement: Comparison) -> str:
    """Passages of one person that the adapter knows: whose, how often they were said, where they come out."""
    if not judgement.memorized:
        return "<p>Nothing that one person said again and again, or that is like nothing else, comes out by heart.</p>"
    rows = "".join(
        f"<tr><td>{escape(pseudonym(one.passage.person) or 'not told apart')}</td>"
        f"<td>{escape(' '.join(one.passage.words))}</td><td>{len(one.passage.places)}</td>"
        f"<td>{one.out} of {one.asked}</td></tr>"
        for one in judgement.memorized[:SHOWN_PEOPLE]
    )
    return (
        '<p class="no">Passages that one person said come out by heart. The same command with '
        "<code>--drop-memorized</code> and another <code>--name</code> leaves them out and trains again.</p>"
        '<div class="wide"><table><thead><tr><th>person</th><th>passage</th><th>said</th><th>comes out in</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


_STAGES = ("messages read", "messages used", "dialogues", "turns", "people")


def _funnel(report: Report) -> str:
    counts = report.funnel
    read = counts.get("messages read", 0)
    if not read:
        return ""
    bars = [("messages read", read, "base")]
    bars += [
        (name.split(": ", 1)[1], value, "lost")
        for name, value in counts.items()
        if name.startswith("messages dropped: ")
    ]
    bars.append(("messages used", counts.get("messages used", 0), "new"))
    rows = "".join(
        f'<tr><td>{escape(("− " if style == "lost" else "") + name)}</td><td class="n">{value:,}</td>'
        f'<td class="bar"><span class="{style}" style="width:{100 * value / read:.1f}%"></span></td></tr>'
        for name, value, style in bars
    )
    made = ", ".join(f"{counts[name]:,} {name}" for name in _STAGES[2:] if name in counts)
    return f'<table class="funnel"><tbody>{rows}</tbody></table><p>That made {made}.</p>'


def _advice(report: Report) -> str:
    if not report.learning_curve:
        return ""
    parts = ((float(point.dialogues), point.bits_per_byte) for point in report.learning_curve)
    points = ((0.0, report.outcome.before), *parts)
    chart = lines([Line(points=points, dots=True)], title="Held-out bits per byte by dialogues", x_label="dialogues")
    caption = "<figcaption>Held-out replies, bits per byte, by training dialogues</figcaption>"
    return f'<p>{escape(report.advice)}</p><figure class="single">{chart}{caption}</figure>'


def _made(report: Report) -> str:
    outcome, settings = report.outcome, report.outcome.settings
    time = f"{_duration(outcome.seconds)} of training, {_duration(report.seconds)} with judging"
    if outcome.resumed_from:
        time += f"; it went on from step {outcome.resumed_from:,} of a run that was stopped"
    facts: Sequence[tuple[str, str]] = (
        ("base", outcome.base),
        ("time", time),
        ("steps", f"{outcome.steps:,} of {settings.batch_tokens:,} tokens"),
        ("rows", f"{outcome.rows:,} of up to {settings.block} tokens, {outcome.fill:.1%} full"),
        ("tokens", f"{outcome.tokens:,} in an epoch, {outcome.targets:,} of them targets"),
        ("LoRA", f"rank {settings.rank}, alpha {settings.alpha:g}, learning rate {settings.learning_rate or 0:g}"),
        (
            "left out",
            f"{outcome.duplicates} dialogues that are also held out, {len(outcome.faults)} faults",
        ),
        ("learned from", f"{len(outcome.people)} people" if outcome.people else "people not told apart (no manifest)"),
        ("data", f"sha256 {outcome.data_sha256}"),
        ("seed", str(settings.seed)),
    )
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    return f"<pre><code>{escape(report.command)}</code></pre><dl>{rows}</dl>"


def _value(value: float, is_share: bool, *, sign: str = "") -> str:
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
