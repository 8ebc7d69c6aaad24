"""Slack's mrkdwn ↔ the text a person reads. Pure; knows no client and no event.

https://docs.slack.dev/messaging/formatting-message-text
"""

import re
from collections.abc import Iterable, Mapping

from bots.slack.payloads import Payload, mapping, mappings, string
from core import replies

MESSAGE_LIMIT = 4_000
"""Characters a message should have at most ("for best results", https://docs.slack.dev/reference/methods/chat.postMessage);
Slack cuts texts beyond 40,000 off."""

NESTING = 10
"""Depth of nested blocks that are read; Slack's own are at most four deep."""

_TOKEN = re.compile(r"<([^<>\n]*)>")
_MENTION = re.compile(r"<@([^|<>\s]+)(?:\|[^<>]*)?>")
_ENTITIES = (
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&amp;", "&"),
)  # the only three Slack uses; & last, or &amp;lt; would be decoded twice
_SHOUTS = {"here": "@here", "channel": "@channel", "everyone": "@everyone"}
SOMEONE = "someone"
"""The name of a member that Slack did not tell us."""


def mentioned_users(text: str) -> tuple[str, ...]:
    """Ids of the members that a text mentions, in order, each once."""
    return tuple(dict.fromkeys(_MENTION.findall(text)))


def mentions(text: str, user: str) -> bool:
    return bool(user) and user in mentioned_users(text)


def mentions_others(text: str, user: str) -> bool:
    """Whether a text names a member other than this one, or a user group."""
    return not {user}.issuperset(mentioned_users(text)) or "<!subteam^" in text


def plain_text(
    text: str, *, names: Mapping[str, str] | None = None, bot_user: str = "", bot_name: str = "Person2"
) -> str:
    """The text as people read it: names for ids, labels for links, characters for entities.

    A mention of the bot at the beginning or end only says who is addressed and is left out, so a bare mention has no
    text; elsewhere it is a name.
    """
    known = {**(names or {}), **({bot_user: bot_name} if bot_user else {})}
    if bot_user:
        own = rf"<@{re.escape(bot_user)}(?:\|[^<>]*)?>"
        # A colon is punctuation only before a space: `:tada:` keeps its own.
        text = re.sub(rf"^\s*(?:{own}\s*(?:[,;]|:(?=\s|$))*\s*)+|(?:[\s,]*{own})+\s*$", "", text)
    return unescape(_TOKEN.sub(lambda found: _token(found[1], known), text))


def _token(inside: str, names: Mapping[str, str]) -> str:
    target, _, label = inside.partition("|")
    if target.startswith("@"):
        return f"@{(names.get(target[1:]) or label or SOMEONE).lstrip('@')}"
    if target.startswith("#"):
        return f"#{label or 'channel'}"
    if target.startswith("!"):
        return label or _SHOUTS.get(target[1:], "@group" if target.startswith("!subteam") else "")
    if label:
        return label
    return target.removeprefix("mailto:").removeprefix("tel:")


def unescape(text: str) -> str:
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return text


def escape(text: str) -> str:
    """Text that Slack shows literally: nothing in it can mention, notify or link by markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_SHORTCODE = re.compile(r":[\w+'-]+:")


def comparable(text: str) -> str:
    """A form of a text in which a post of ours is recognised: Slack rewrites links, emoji and entities."""
    return " ".join(re.findall(r"\w+", _SHORTCODE.sub(" ", plain_text(text)).casefold()))


def text_of_blocks(blocks: Iterable[Payload]) -> str:
    """The text in Block Kit's blocks, as markup: rich text as clients send it, sections, headers and contexts
    (https://docs.slack.dev/reference/block-kit/blocks)."""
    return "\n".join(filter(None, (_block(block, depth=0) for block in blocks)))


def _block(block: Payload, *, depth: int) -> str:
    if depth > NESTING:
        return ""
    inner = [_block(each, depth=depth + 1) for each in mappings(block, "elements")]
    match block.get("type"):
        case "rich_text" | "rich_text_list":
            return "\n".join(filter(None, inner))
        case "rich_text_section" | "rich_text_quote" | "rich_text_preformatted":
            return "".join(inner)
        case "context":
            return " ".join(filter(None, inner))
        case "section" | "header":
            fields = [_block(each, depth=depth + 1) for each in mappings(block, "fields")]
            return "\n".join(filter(None, (_block(mapping(block, "text"), depth=depth + 1), *fields)))
        case "mrkdwn":
            return string(block, "text")
        case "text" | "plain_text":
            return escape(string(block, "text"))
        case "link":
            return escape(string(block, "text") or string(block, "url"))
        case "emoji":
            return f":{escape(string(block, 'name'))}:"
        case "user":
            return f"<@{string(block, 'user_id')}>"
        case "channel":
            return f"<#{string(block, 'channel_id')}>"
        case "usergroup":
            return f"<!subteam^{string(block, 'usergroup_id')}>"
        case "broadcast":
            return f"<!{string(block, 'range')}>"
        case _:
            return ""


def parts(text: str, *, limit: int = MESSAGE_LIMIT) -> list[str]:
    """`text` escaped and cut into posts of at most `limit` characters, at sentence ends where possible."""
    posts: list[str] = []
    rest = text.strip()
    while rest:
        window = limit
        part = replies.split(rest, limit=window)[0]
        while len(escape(part)) > limit:  # <, > and & take up to five characters each
            window = max(window * limit // (len(escape(part)) + 1), 1)
            part = replies.split(rest, limit=window)[0]
        posts.append(escape(part))
        rest = rest[len(part) :].lstrip()
    return posts
