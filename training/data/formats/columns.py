"""Any CSV, once somebody says which columns are what: `author=User,time=Sent at,text=Message`.

Knows columns by their names in the first row, or by their numbers from 1; no program that writes them. Times are read
in any form that `timestamps` knows, or as seconds or milliseconds since 1970.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from core.errors import ExportError
from core.messages import Conversation, Message
from training.data.formats import identity, markup, textfile, timestamps
from training.data.formats.items import MAX_MESSAGE, Fault, Item, Part, Skipped

NAME = "csv"
NEEDED = ("author", "time", "text")
OPTIONAL = ("channel", "name", "id", "reply_to")
_SECONDS_UNTIL = 10_000_000_000
"""A larger number is milliseconds: as seconds it would be the year 2286."""


def parse(text: str) -> dict[str, str]:
    """What `--columns` says. Raises ExportError."""
    found: dict[str, str] = {}
    for piece in text.split(","):
        role, equals, column = piece.partition("=")
        if equals and role.strip() in (*NEEDED, *OPTIONAL) and column.strip():
            found[role.strip()] = column.strip()
        else:
            known = ", ".join(f"{role}=…" for role in (*NEEDED, *OPTIONAL))
            raise ExportError(f"--columns does not know {piece.strip()!r}; it takes {known}, joined by commas.")
    missing = [role for role in NEEDED if role not in found]
    if missing:
        raise ExportError(f"--columns does not say which column is the {' and the '.join(missing)}.")
    return found


def recognises(path: Path, head: str) -> bool:
    """Never by itself: what a column means only its owner knows."""
    return False


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    yield Fault(file=label, place="", reason="a CSV file; say with --columns which columns are what")


def mapped(path: Path, label: str, mapping: str) -> Iterator[Part | Fault]:
    """The part of a CSV file whose columns are known."""
    roles = parse(mapping)
    head = textfile.head(path).lstrip("\ufeff")
    first = head.split("\n", 1)[0]
    delimiter = max(",;\t|", key=first.count)
    rows = (found[1] for found in textfile.rows(path, label, delimiter) if not isinstance(found, Fault))
    names = [name.strip() for name in next(rows, [])]
    places: dict[str, str] = {}
    for role, column in roles.items():
        at = names.index(column) if column in names else int(column) - 1 if column.isdecimal() else -1
        if not 0 <= at < len(names):
            shown = ", ".join(names[:20])
            yield Fault(file=label, place="line 1", reason=f"has no column {column!r}; its columns are {shown}")
            return
        places[role] = str(at)
    time = int(places["time"])
    style = timestamps.decide(
        stamp for row in rows if len(row) > time and (stamp := timestamps.read(row[time])) is not None
    )
    context = {"channel": identity.by_path(label), "style": str(style), "delimiter": delimiter}
    yield Part(reader=NAME, path=path, label=label, context={**context, **{f"in {k}": v for k, v in places.items()}})


def read(part: Part) -> Iterator[Item]:
    where = part.context
    style = timestamps.Style.parse(where["style"])
    places = {role: int(where[f"in {role}"]) for role in (*NEEDED, *OPTIONAL) if f"in {role}" in where}
    conversations: dict[str, Conversation] = {}
    is_head = True
    for found in textfile.rows(part.path, part.label, where["delimiter"]):
        if isinstance(found, Fault):
            yield found
            continue
        line, row = found
        if is_head or not row:
            is_head = False
            continue
        if len(row) <= max(places.values()):
            yield Fault(file=part.label, place=f"line {line}", reason="fewer columns than the first row")
            continue
        cells = {role: row[at].strip() for role, at in places.items()}
        channel = f"{where['channel']}/{cells['channel']}" if "channel" in cells else where["channel"]
        if channel not in conversations:
            conversations[channel] = Conversation(platform="csv", channel=channel)
        yield _said(cells, conversations[channel], style, part.label, line)


def _said(cells: dict[str, str], where: Conversation, style: timestamps.Style, label: str, line: int) -> Item:
    text = cells["text"]
    if not cells["author"]:
        return Skipped.AUTHORLESS
    if len(text) > MAX_MESSAGE:
        return Skipped.TOO_LONG
    if not text:
        return Skipped.EMPTY
    if markup.COMMAND.match(text):
        return Skipped.COMMAND
    sent_at = _time(cells["time"], style)
    if sent_at is None:
        return Fault(file=label, place=f"line {line}", reason=f"no readable time ({cells['time'][:40]!r})")
    return Message(
        conversation=where,
        id=cells.get("id", ""),
        author=cells["author"],
        author_name=cells.get("name") or cells["author"],
        text=text,
        sent_at=sent_at,
        reply_to=cells.get("reply_to") or None,
    )


def _time(text: str, style: timestamps.Style) -> datetime | None:
    try:
        number = float(text)
    except ValueError:
        return timestamps.parse(text, style)
    try:
        return datetime.fromtimestamp(number if abs(number) < _SECONDS_UNTIL else number / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
