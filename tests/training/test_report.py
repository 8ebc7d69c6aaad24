"""The report holds what was found, needs nothing from outside, and takes nothing people wrote for markup."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

from core.dialogue import write
from tests.training.toys import TALK, dialogue
from training.evaluation.comparison import compare
from training.evaluation.intervals import Figure
from training.evaluation.learning_curve import CurvePoint
from training.finetune.config import FinetuneConfig
from training.finetune.run import finetune
from training.privacy.provenance import funnel_of
from training.report.charts import Curve, lines, whiskers
from training.report.page import Report, write_report

VOID = {"meta", "br", "path", "use", "rect"}


class Page(HTMLParser):
    """Checks that tags close in order, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.said = ""
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID | {"g"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def test_a_run_judged_and_reported(base: Path, tmp_path: Path) -> None:
    """Train, judge against base and current, write the page: figures, replies, people, stats and command are in it."""
    talk = tmp_path / "talk.txt"
    story = "the <b>red</b> team won the game by two goals to one and the dog was very glad of it"
    many = [dialogue(*TALK[n % 5]) for n in range(40)] + [dialogue("Who won?", f"{story} {n}") for n in range(10)]
    many += [dialogue("And <script>alert(1)</script>?", "No & no."), dialogue("Hello!", "Hello, you.")]
    talk.write_text("".join(write(many)))
    manifest = {
        "people": [{"hash": "c0ffee1234", "messages": 20}, {"hash": "beef005678", "messages": 3}],
        "dialogues": {"out": [f"{n % 2} {1 - n % 2}" for n in range(len(many))]},
        "counts": {"messages read": 100, "messages dropped": {"no consent": 30}, "messages used": 70, "dialogues": 52},
    }
    (tmp_path / "talk.txt.manifest.json").write_text(json.dumps(manifest))
    settings = FinetuneConfig(rank=4, epochs=4, block=96, batch_tokens=192, learning_rate=1e-2, precision="fp32")
    first = finetune([talk], run=tmp_path / "a", base=str(base), settings=settings)
    second = finetune([talk], run=tmp_path / "b", base=str(base), settings=replace(settings, epochs=6), name="warm <b>")
    found = compare([talk], base=str(base), adapter=second.adapter, current=first.adapter, contexts=20)
    assert list(found.results) == ["base", "current", "new"]
    assert found.by_person.keys() == {"c0ffee1234", "beef005678"}
    assert found.verdict.reasons
    report = Report(
        outcome=second,
        comparison=found,
        command="person2 train talk.txt --name 'warm <b>'",
        created_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        seconds=75,
        funnel=funnel_of([talk]),
        advice="More would help.",
        learning_curve=(CurvePoint(dialogues=10, bits_per_byte=2.5), CurvePoint(dialogues=40, bits_per_byte=2.0)),
    )
    text = write_report(report, tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert not page.open
    assert all(link.startswith("#") for link in page.links)
    assert "http" not in text
    for wanted in (
        f"{second.before:.3f} → {second.after:.3f}",
        "warm <b>",
        "person2 train talk.txt",
        "c0ffee",
        "− no consent",
        "More would help.",
        "1 min 15 s",
        *(reply for reply in found.results["new"].replies[:5]),
    ):
        assert wanted in page.said
    assert "c0ffee1234" not in text
    assert "<script" not in text


def test_charts_are_drawn_in_the_colours_of_the_page() -> None:
    """Inline SVG with the style sheet's variables, the words as text, and nothing that only a file of its own needs."""
    curve = lines(
        [Curve(points=((0, 2.0), (50, 1.5)), dots=True)], title="a <curve>", x_label="steps", marks=[(2.0, "before")]
    )
    rows = [
        ("base", Figure(value=0.1, low=0.05, high=0.2, count=9)),
        ("new", Figure(value=0.3, low=0.2, high=0.4, count=9)),
    ]
    bars = whiskers(rows, title="found", shares=True)
    for chart, wanted in (
        (curve, ("var(--new)", "var(--soft)", "before", "steps", "a &lt;curve&gt;")),
        (bars, ("var(--base)", ">new<", "20.0 %")),
    ):
        assert chart.startswith("<svg")
        assert all(word in chart for word in wanted), chart
        assert "http" not in chart
        assert not re.search(r"#0\d0\d0\d|id=\"(?:axes|figure)", chart)
    assert not lines([], title="nothing", x_label="steps")
    assert not whiskers([], title="nothing")
