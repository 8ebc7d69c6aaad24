"""How many messages `person2 import` reads, against an independent count by json, an HTML parser or lines.

    python -m benchmarks.count_exports [--messages 20000] [--data FOLDER]

Real exports are in FOLDER (PERSON2_TEST_DATA); `make_export` makes one of every format as well. Entries are counted:
messages and what the platform wrote. Exit status 1 where the two counts differ.
"""

import argparse
import json
import os
import random
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

from benchmarks import make_export
from training.data.import_job import Options, import_talk
from training.data.reply_links import Previous


class _Page(HTMLParser):
    """The ids of the messages in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids |= {value for name, value in attrs if name == "data-message-id" and value}


def page(path: Path) -> int:
    parser = _Page()
    parser.feed(path.read_text(encoding="utf-8"))
    return len(parser.ids)


def listed(path: Path) -> int:
    return len(json.loads(path.read_text(encoding="utf-8-sig"))["messages"])


def lines(pattern: str) -> Callable[[Path], int]:
    found = re.compile(pattern)

    def count(path: Path) -> int:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            return sum(found.match(line) is not None for line in file)

    return count


def days(path: Path) -> int:
    """Slack's: every list of every day file, in a folder or in an archive."""
    if path.is_dir():
        return sum(len(json.loads(day.read_bytes())) for day in path.glob("*/*.json"))
    with zipfile.ZipFile(path) as archive:
        inside = [name for name in archive.namelist() if re.search(r"/\d{4}-\d\d-\d\d\.json$", f"/{name}")]
        return sum(len(json.loads(archive.read(name))) for name in inside)


WHATSAPP = r"[\u200e\ufeff]*\[?\d{1,2}[/.]\d{1,2}[/.]\d{2,4},? \d{1,2}:\d\d"
REAL: tuple[tuple[str, str, Callable[[Path], int]], ...] = (
    ("Discord JSON", "channels/pyscript_discord_json/*.json", listed),
    ("Discord HTML", "channels/pyscript_discord_json/*.html", page),
    ("Slack zip", "channels/slack_export/testarchive.zip", days),
    ("Discord JSON", "channels/small_exports/*discord*.json", listed),
    ("Telegram JSON", "channels/small_exports/*telegram*.json", listed),
    ("Instagram JSON", "channels/small_exports/*instagram*.json", listed),
    ("WhatsApp text", "channels/small_exports/*whatsapp*.txt", lines(WHATSAPP)),
    ("IRC logs", "channels/irc_ubuntu/*/*.ascii.txt", lines(r"\s*\S")),
)
MADE: dict[str, tuple[str, Callable[[Path], int]]] = {
    "discord-json": (".json", listed),
    "discord-text": (".txt", lines(r"\[\d\d/\d\d/\d{4} \d\d:\d\d [AP]M\] \S+$")),
    "discord-csv": (".csv", lines(r'"\d+",')),
    "discord-html": (".html", page),
    "slack": ("", days),
    "telegram": (".json", listed),
    "whatsapp": (".txt", lines(WHATSAPP)),
    "irc": (".log", lines(r"\s*\S")),
    "mattermost": (".jsonl", lines(r'\{"type": "post"')),
    "matrix": (".json", listed),
}


def sources(data: Path, folder: Path, messages: int) -> Iterator[tuple[str, list[Path], int]]:
    """The name of an export, its paths, and the independent count."""
    for name, pattern, count in REAL:
        found = sorted(data.glob(pattern))
        if found:
            yield f"{name}, {pattern.split('/')[1]}", found, sum(map(count, found))
    for kind, (ending, count) in MADE.items():
        path = folder / f"made{ending}"
        talk = make_export.talk(messages, random.Random(3), busy=False)
        if kind == "discord-json":
            make_export.write(path, talk, 0, flat=False)
        else:
            make_export.write_as(kind, path, talk)
        yield f"{kind}, made", [path], count(path)
        path.rename(folder / f"done-{kind}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PERSON2_TEST_DATA", "data")))
    given = parser.parse_args()
    wrong = 0
    print("| export | counted | read | said by people | used | faults |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="person2-count-") as name:
        folder = Path(name)
        for number, (what, paths, count) in enumerate(sources(given.data, folder, given.messages)):
            stats = import_talk(
                paths,
                out=folder / f"out-{number}.txt",
                home=folder,
                attest="counted",
                options=Options(linker=Previous()),
            )
            left = ("system line", "bot or webhook", "action line", "no author")
            said = stats.read - sum(stats.dropped[reason] for reason in left)
            print(
                f"| {what} | {count:,} | {stats.read:,} | {said:,} | {stats.used:,} | {stats.faults.count} |",
                flush=True,
            )
            wrong += stats.read != count
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
