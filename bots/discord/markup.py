"""Replies → the texts of posts: escaped, in parts that fit. Pure; knows Discord's markup and nothing of its API."""

import re

import discord

from core import replies
from core.dialogue import one_line
from core.messages import Reply

LIMIT = 2000
"""Characters of a message (https://discord.com/developers/docs/resources/message#create-message)."""

QUOTED = 300
"""Characters of a question that is shown above its answer."""

# Timestamps, channel links, custom emoji, command links and mentions all begin so; `<3` does not.
_MARKUP = re.compile(r"<(?=[@#:/]|a:|t:|id:)")
_SUBTEXT = re.compile(r"^-(?=#)", re.MULTILINE)


def escaped(text: str) -> str:
    """Text that Discord shows literally: no markup has an effect, but links stay links."""
    text = discord.utils.escape_mentions(discord.utils.escape_markdown(text))
    return _SUBTEXT.sub(r"\\-", _MARKUP.sub(r"\\<", text))


def parts(text: str, *, markup: bool = False) -> list[str]:
    """Posts for a text; with `markup` it is not escaped (help texts have markup of ours). Never empty."""
    return replies.split(text if markup else escaped(text), limit=LIMIT) or ["…"]


def quoted(reply: Reply) -> str:
    """The question of a reply as a quoted line with a newline; empty where it is not known."""
    line = one_line(reply.question.text) if reply.question is not None else ""
    if len(line) > QUOTED:
        line = line[: QUOTED - 1].rstrip() + "…"
    return f"> {escaped(line)}\n" if line else ""


def reply_parts(reply: Reply, *, show_question: bool = False) -> list[str]:
    """Posts for a reply, with its question above it where others cannot see that: after a slash command."""
    return parts((quoted(reply) if show_question else "") + escaped(reply.text), markup=True)
