"""Markup → what a reader sees: Discord's Markdown and Slack's mrkdwn as plain lines.

Knows the two markups, no files. Names are looked up in what the export says; an unknown id becomes `@someone` or
`#channel`, never the bare id. Quoted lines are somebody else's words and are removed; code blocks follow `CodeBlocks`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from html import unescape


class CodeBlocks(StrEnum):
    """What happens to ``` blocks."""

    SHORT = "short"
    """Kept when short enough to be said (`SHORT_LINES`, `SHORT_CHARACTERS`), else dropped."""
    DROP = "drop"
    KEEP = "keep"


SHORT_LINES = 3
SHORT_CHARACTERS = 160

_FENCE = re.compile(r"```(?:[\w+#.-]*\n)?(.*?)(?:```|\Z)", re.DOTALL)
_DISCORD_TAG = re.compile(
    r"<(?:@([!&]?)(\d+)|#(\d+)|a?:(\w+):\d+|t:(-?\d{1,12})(?::\w)?|/([^:<>]+):\d+|id:(\w+)|(https?://[^\s<>]+))>"
)
_QUOTED_LINE = re.compile(r"^> ?[^\n]*(?:\n|\Z)", re.MULTILINE)
_QUOTED_REST = re.compile(r"^>>> .*\Z", re.MULTILINE | re.DOTALL)
_MASKED_LINK = re.compile(r"\[([^\]\n]{1,400})\]\(<?(?:https?://|mailto:)[^\s)>]*>?(?: \"[^\"\n]*\")?\)")
_EMPHASIS = re.compile(r"(?<!\\)(\*{1,3}|~~|\|\||__)(?=\S)([^\n]*?[^\s\\])\1")
_ITALIC = re.compile(r"(?<![\w\\])_(?=\S)([^_\n]*\S)_(?!\w)")
_HEADING = re.compile(r"^(?:#{1,3}|-#) +", re.MULTILINE)
_ESCAPED = re.compile(r"\\([*_~|`>#\\\-.()\[\]:@])")
_DISCORD_SIGNS = re.compile(r"[<>*_~|`\\\[#]")

_SLACK_TAG = re.compile(r"<([@#!]?)([^<>|\n]*)(?:\|([^<>\n]*))?>")
_SLACK_EMPHASIS = re.compile(r"(?<![\w*~_])([*_~])(?=\S)([^\n*_~]*\S)\1(?![\w*~_])")
_SLACK_QUOTE = re.compile(r"^(?:&gt;&gt;&gt;.*\Z|&gt;[^\n]*(?:\n|\Z))", re.MULTILINE)
_SLACK_QUOTED_REST = re.compile(r"^&gt;&gt;&gt;.*\Z", re.MULTILINE | re.DOTALL)
_SLACK_SIGNS = re.compile(r"[<>&*_~`]")

COMMAND = re.compile(r"[!?/$;%&][a-zA-Z][\w-]{0,31}(?:\s|\Z)")
"""A line addressed to a bot: `!rank`, `/giphy cat`. A path (`/usr/bin`) or a price (`$20`) is not one."""


def discord(text: str, names: Mapping[str, str], code: CodeBlocks = CodeBlocks.SHORT) -> str:
    """Discord's Markdown as read on the screen. `names` maps user and channel ids to names."""
    if not _DISCORD_SIGNS.search(text):
        return text
    if "```" in text:
        text = code_blocks(text, code)
    if "<" in text:
        text = _DISCORD_TAG.sub(lambda found: _discord_tag(found, names), text)
    if ">" in text:
        text = _QUOTED_LINE.sub("", _QUOTED_REST.sub("", text))
    if "](" in text:
        text = _MASKED_LINK.sub(r"\1", text)
    if "#" in text:
        text = _HEADING.sub("", text)
    text = text.replace("`", "")
    for _ in range(3):  # bold inside spoiler inside strike
        plainer = _ITALIC.sub(r"\1", _EMPHASIS.sub(r"\2", text))
        if plainer == text:
            break
        text = plainer
    return _ESCAPED.sub(r"\1", text)


def _discord_tag(found: re.Match[str], names: Mapping[str, str]) -> str:
    role_or_nick, user, channel, emoji, moment, command, place, address = found.groups()
    if user:
        return "@" + (names.get(user) or ("role" if role_or_nick == "&" else "someone"))
    if channel:
        return "#" + (names.get(channel) or "channel")
    if emoji:
        return f":{emoji}:"
    if moment:
        try:
            return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%d %H:%M")
        except (ValueError, OverflowError, OSError):
            return "some time"
    if command:
        return f"/{command}"
    return f"#{place}" if place else str(address)


def slack(text: str, names: Mapping[str, str], code: CodeBlocks = CodeBlocks.SHORT) -> str:
    """Slack's mrkdwn as read on the screen. `names` maps user and channel ids to names."""
    if not _SLACK_SIGNS.search(text):
        return text
    if "```" in text:
        text = code_blocks(text, code)
    if "&gt;" in text:
        text = _SLACK_QUOTE.sub("", _SLACK_QUOTED_REST.sub("", text))
    if "<" in text:
        text = _SLACK_TAG.sub(lambda found: _slack_tag(found, names), text)
    text = text.replace("`", "")
    for _ in range(3):
        plainer = _SLACK_EMPHASIS.sub(r"\2", text)
        if plainer == text:
            break
        text = plainer
    return unescape(text) if "&" in text else text


def _slack_tag(found: re.Match[str], names: Mapping[str, str]) -> str:
    kind, target, label = found[1], found[2], found[3] or ""
    if kind == "@":
        return "@" + (label.removeprefix("@") or names.get(target) or "someone")
    if kind == "#":
        return "#" + (label or names.get(target) or "channel")
    if kind == "!":
        return label or "@" + target.split("^", 1)[0]
    return label or target.removeprefix("mailto:")


def code_blocks(text: str, code: CodeBlocks) -> str:
    """``` blocks kept, shortened away or dropped."""
    return _FENCE.sub(lambda found: _block(found[1], code), text)


def _block(content: str, code: CodeBlocks) -> str:
    content = content.strip()
    if code is CodeBlocks.DROP:
        return " "
    if code is CodeBlocks.SHORT and (content.count("\n") >= SHORT_LINES or len(content) > SHORT_CHARACTERS):
        return " "
    return f" {content} "
