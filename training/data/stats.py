"""What an import kept, what it dropped and why.

Knows counts and how to show them, not where they come from.
"""

from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.formats.items import Faults

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(slots=True)
class ImportStats:
    """The counts of one import. `read` = all of `dropped` + `used`."""

    read: int = 0
    """Entries of the exports, system lines and bots included."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Messages, by reason."""
    used: int = 0
    """Messages that are part of a dialogue."""
    masked: Counter[str] = field(default_factory=Counter)
    """E-mail addresses, phone numbers … replaced by placeholders."""
    conversations: int = 0
    dialogues_dropped: Counter[str] = field(default_factory=Counter)
    dialogues: int = 0
    """Written, the held-out ones included."""
    held_out: int = 0
    turns: int = 0
    words: int = 0
    tokens: int = 0
    tokens_exact: bool = False
    """False: measured on a sample, or four characters a token where there is no tokenizer."""
    people: int = 0
    gap_minutes: float = 0.0
    links: Counter[str] = field(default_factory=Counter)
    """Answers, by how it was found what they answer."""
    faults: Faults = field(default_factory=Faults)
    unknown_people: list[str] = field(default_factory=list)
    """Entries of the list of people (or `--as`) that match nobody in the exports, or several people."""
    seconds: float = 0.0
    out: Path | None = None
    """None where nothing was written, because no dialogue was left."""
    held_out_file: Path | None = None
    manifest: Path | None = None

    def counts(self) -> dict[str, Any]:
        """What the manifest keeps: no paths and no times, in a fixed order."""
        return {
            "messages read": self.read,
            "messages dropped": dict(sorted(self.dropped.items())),
            "messages used": self.used,
            "masked": dict(sorted(self.masked.items())),
            "conversations": self.conversations,
            "dialogues dropped": dict(sorted(self.dialogues_dropped.items())),
            "dialogues": self.dialogues,
            "dialogues held out": self.held_out,
            "turns": self.turns,
            "words": self.words,
            "tokens": self.tokens,
            "tokens exact": self.tokens_exact,
            "people": self.people,
            "gap minutes": self.gap_minutes,
            "links": dict(self.links),
            "faults": self.faults.count,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, for `--json`."""
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        for name in ("dropped", "masked", "dialogues_dropped"):
            plain[name] = dict(sorted(plain[name].items()))
        for name in ("out", "held_out_file", "manifest"):
            plain[name] = None if plain[name] is None else str(plain[name])
        plain["faults"] = self.faults.lines()
        return plain


def render_table(stats: ImportStats) -> "Table":
    """The table at the end of `person2 import`."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")

    def row(name: str, count: int | str, *, inner: bool = False) -> None:
        shown = f"{count:,}" if isinstance(count, int) else count
        table.add_row(f"  {name}" if inner else name, f"[dim]{shown}[/dim]" if inner else shown)

    row("messages read", stats.read)
    for reason, count in stats.dropped.most_common():
        if count:
            row(f"dropped: {reason}", count, inner=True)
    row("messages used", stats.used)
    for reason, count in stats.masked.most_common():
        row(f"masked: {reason}", count, inner=True)
    row("conversations", stats.conversations)
    row("end after a silence of", f"{stats.gap_minutes / 60:g} h", inner=True)
    for how, count in stats.links.most_common():
        row(f"answers found by {how}", count, inner=True)
    for reason, count in stats.dialogues_dropped.most_common():
        row(f"dialogues dropped: {reason}", count, inner=True)
    row("dialogues", stats.dialogues)
    if stats.held_out:
        row("of these held out", stats.held_out, inner=True)
    row("turns", stats.turns)
    row("tokens", f"{'' if stats.tokens_exact else '≈ '}{stats.tokens:,}")
    row("people", stats.people)
    if stats.faults.count:
        row("faults", stats.faults.count)
    return table
