"""Which conversation a file belongs to, where the format alone does not say it.

Knows how exporters name files and whose ids are unique everywhere; no format. A channel is what the file says where
that is unique, else where the file lies: two `_chat.txt` in two folders are two chats, `talk [part 2].csv` goes on
with `talk [part 1].csv`. Overlapping exports that end up under two names are found later by what they say
(`training.data.sort`).
"""

import re
from hashlib import blake2b

_PART = re.compile(r"\s*\[part \d+\]|\s*\((?:after|before|between|part)\b[^()]*\)", re.IGNORECASE)
_DATE = re.compile(r"(?<!\d)(\d{4})[-_.]?(\d{2})[-_.]?(\d{2})(?!\d)")
_ENDINGS = re.compile(r"(?:\.(?:txt|log|ascii|weechatlog|csv|html?|jsonl?|gz))+$", re.IGNORECASE)
_SNOWFLAKE = re.compile(r"(?<!\d)(\d{17,20})(?!\d)")
DISCORD_DIGITS = 15
"""Digits from which on a number is a Discord id: milliseconds since 2015, shifted by 22 bits, pass 10^15 in a day."""
SLACK_LETTERS = 9
"""Letters from which on a Slack id is real, and unique over all workspaces."""


def split(label: str) -> tuple[str, str]:
    """Folder and file name of a label such as `backup.zip/general/a.json`."""
    folder, _, name = label.rpartition("/")
    return folder, name


def by_path(label: str, *, dated: bool = False) -> str:
    """The conversation a file holds, known by its place alone. `dated`: a date in its name is a part too."""
    folder, name = split(label)
    name = _PART.sub("", _ENDINGS.sub("", name))
    if dated:
        name = _DATE.sub("", name).strip("-_. ")
    return f"{folder}/{name}" if folder else name


def within(label: str, own: str) -> str:
    """A conversation that its file calls `own`, where other exports may call another one so."""
    folder, _ = split(label)
    return f"{folder}/{own}" if folder else own


def discord(label: str, *, channel: str = "", guild: str = "", name: str = "") -> str:
    """By the id that the file or its name says, then by the names of server and channel, then by its place."""
    if len(channel) >= DISCORD_DIGITS and channel.isdigit():
        return channel
    in_name = _SNOWFLAKE.search(split(label)[1])
    if in_name:
        return in_name[1]
    if channel:
        return within(label, f"{guild} {channel}")
    return f"{guild} / {name}" if name else by_path(label)


def slack(label: str, channel: str) -> str:
    """`label` is the export's, not the day file's."""
    real = len(channel) >= SLACK_LETTERS and channel[0] in "CGD" and channel.isalnum() and channel.isupper()
    return channel if real else f"{label}/{channel}"


def date_in_name(label: str) -> tuple[int, int, int] | None:
    """Year, month, day in a file's name."""
    found = _DATE.search(split(label)[1])
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def short(text: str) -> str:
    """Sixteen hex digits for a name that may be long."""
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
