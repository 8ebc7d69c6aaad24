"""Slack's blocks → mrkdwn: what a message says where its `text` is empty or a stand-in.

Knows `rich_text`, `section`, `header`, `context` and `table` blocks (docs.slack.dev/reference/block-kit/blocks), no
file. The result is read like any other text of Slack's, so quotations, code and mentions are treated alike.
"""

from typing import Any

STAND_INS = {
    "this message contains interactive elements.",
    "this content can't be displayed.",
    "this message can't be displayed.",
}
"""What Slack puts into `text` for programs that know no blocks."""
MAX_DEPTH = 8
"""Blocks in blocks: lists in quotations in sections are three."""


def text_of(blocks: Any) -> str:
    """All words of the blocks, a block a line; empty for anything that is no list of blocks."""
    if not isinstance(blocks, list):
        return ""
    return "\n".join(filter(None, (_block(block, 0) for block in blocks if isinstance(block, dict))))


def _block(block: dict[str, Any], depth: int) -> str:
    kind = block.get("type")
    if depth > MAX_DEPTH:
        return ""
    if kind == "rich_text":
        return "\n".join(filter(None, (_rich(each, depth + 1) for each in _dicts(block.get("elements")))))
    if kind in {"section", "header"}:
        texts = [block.get("text"), *(block.get("fields") or ())]
        return "\n".join(_object(text) for text in texts if isinstance(text, dict))
    if kind == "context":
        return " ".join(filter(None, (_object(each) for each in _dicts(block.get("elements")))))
    if kind == "table":
        rows = [row for row in block.get("rows") or () if isinstance(row, list)]
        return "\n".join(
            " | ".join(_block(cell, depth + 1) or _object(cell) for cell in row if isinstance(cell, dict))
            for row in rows
        )
    return ""


def _object(text: dict[str, Any]) -> str:
    """A text object: mrkdwn as it is, plain text with Slack's three signs escaped."""
    words = text.get("text")
    if not isinstance(words, str):
        return ""
    return words if text.get("type") == "mrkdwn" else _escaped(words)


def _rich(element: dict[str, Any], depth: int) -> str:
    kind = element.get("type")
    if depth > MAX_DEPTH:
        return ""
    if kind == "rich_text_list":
        return "\n".join(_rich(each, depth + 1) for each in _dicts(element.get("elements")))
    words = "".join(_leaf(each) for each in _dicts(element.get("elements")))
    if kind == "rich_text_quote":
        return "\n".join(f"&gt; {line}" for line in words.split("\n"))
    return f"```\n{words}\n```" if kind == "rich_text_preformatted" else words


def _leaf(element: dict[str, Any]) -> str:
    """One run of a rich text as mrkdwn writes it."""
    kind = element.get("type")

    def given(name: str) -> str:
        value = element.get(name)
        return value if isinstance(value, str) else ""

    if kind == "text":
        return _escaped(given("text"))
    if kind == "link":
        label = _escaped(given("text"))
        return f"<{given('url')}|{label}>" if label else f"<{given('url')}>"
    if kind == "emoji":
        return f":{given('name')}:"
    if kind == "user":
        return f"<@{given('user_id')}>"
    if kind == "channel":
        return f"<#{given('channel_id')}>"
    if kind == "usergroup":
        return f"<!subteam^{given('usergroup_id')}>"
    if kind == "broadcast":
        return f"<!{given('range')}>"
    return _escaped(given("fallback") or given("text")) if kind == "date" else ""


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _dicts(elements: Any) -> list[dict[str, Any]]:
    return [each for each in elements if isinstance(each, dict)] if isinstance(elements, list) else []
