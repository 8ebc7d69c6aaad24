"""DiscordChatExporter's HTML, old and new: groups of messages by one author, each with its text and what it replies to.

Knows the templates of Tyrrrz/DiscordChatExporter since 2017 by their CSS classes, whatever the attribute quoting. Since
July 2019 messages carry their ids, snowflakes, so times are exact and without a zone whatever language the page is
written in; before, a group has one written time. Pages are cut between groups and each piece is parsed by itself.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser, LexborNode

from core.messages import Conversation, Kind, Message
from training.data.formats import identity, markup, timestamps
from training.data.formats.discord_text import SYSTEM
from training.data.formats.items import MAX_MESSAGE, Fault, Item, Named, Part, Skipped

NAME = "discord-html"
SLICE = 4 << 20
"""Bytes parsed at a time, about: a tree takes ten times as much memory."""
MAX_GROUP = 16 << 20
"""Bytes without a group's beginning; more is damage."""
BLOCK = 1 << 20
HEAD = 4 << 20
"""Bytes in which style sheet and preamble end; icons and fonts may stand in them."""
_DISCORD_EPOCH = datetime(2015, 1, 1, tzinfo=UTC)
_GROUP = re.compile(rb"<div[^<>]{0,80}class=[\"']?(?:chatlog__message-group|msg)(?=[\s\"'>])[^<>]{0,200}>")
_PLACE = re.compile(
    r"<title[^<>]*>(?P<title>[^<>]*)</title>|"
    r"class=[\"']?(?:info__guild-name|guild-name)[\"']?>(?P<guild>[^<>]*)<|"
    r"class=[\"']?(?:info__channel-name|channel-name)[\"']?>(?P<channel>[^<>]*)<|"
    r"class=[\"']?preamble__entry[\"']?>(?P<entry>[^<>]*)<"
)
_SCROLL = re.compile(r"(?:scrollToMessage[^\d]*|message-(?:container-)?)(\d{15,20})")
_MESSAGE = "[data-message-id].chatlog__message-container, [data-message-id].chatlog__message"
_CONTENT = ".chatlog__content, .chatlog__message-content, .msg-content"
_AUTHORS = ".chatlog__author, .chatlog__author-name, .msg-user, .chatlog__system-notification-author"
_BOTS = ".chatlog__bot-tag, .chatlog__author-tag"
_STAMPS = ".chatlog__timestamp, .msg-date"
_SUPPRESS = {
    "chatlog__edited-timestamp",
    "msg-edited",
    "chatlog__markdown-quote",
    "chatlog__markdown-quote-content",
    "quote",
    "chatlog__attachment",
    "chatlog__embed",
    "chatlog__reactions",
    "chatlog__reply",
    "chatlog__reference",
    "chatlog__forwarded",
}
_PRE = {"chatlog__markdown-pre--multiline", "chatlog__markdown-pre-multiline", "pre--multiline"}
MAX_DEPTH = 60
"""Elements inside each other in one message; Markdown cannot nest so deeply."""


@dataclass(slots=True)
class _GroupAuthor:
    """Whose group it is."""

    id: str = ""
    name: str = ""
    title: str = ""
    bot: bool = False


def recognises(path: Path, head: str) -> bool:
    start = head.lstrip("\ufeff").lstrip()[:200].lower()
    if not path.is_file() or not start.startswith(("<!doctype html", "<html", "<!--")):
        return False
    if "chatlog__" in head or "DiscordChatExporter" in head:
        return True
    with path.open("rb") as file:  # the style sheet in front of the messages may be longer than the head
        return b"chatlog__" in file.read(1 << 20)


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    guild, name = _place(path)
    context = {"channel": identity.discord(label, guild=guild, name=name)}
    stamps_seen = _written_stamps(path)
    context["style"] = str(timestamps.decide(stamps_seen))
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        end = file.read()
    if b"</html>" not in end and b"postamble" not in end:
        reason = "the page is incomplete and may have been cut off; what is there is read"
        yield Fault(file=label, place="", reason=reason)
    for start, stop in _cuts(path):
        if stop - start > MAX_GROUP:
            yield Fault(file=label, place=f"byte {start}", reason="a message that never ends; it is left out")
        else:
            yield Part(reader=NAME, path=path, label=label, start=start, end=stop, context=context)


def _place(path: Path) -> tuple[str, str]:
    """Server and channel as the page names them, from its title only where nothing else names them."""
    with path.open("rb") as file:
        raw = file.read(HEAD)
    found = _GROUP.search(raw)
    head = raw[: found.start() if found else HEAD].decode("utf-8", "replace")
    said: dict[str, list[str]] = {}
    for match in _PLACE.finditer(head):
        for kind, text in match.groupdict().items():
            if text:
                said.setdefault(kind, []).append(unescape(text).strip())
    entries = said.get("entry", [])
    if len(entries) > 1:
        return entries[0], entries[1]
    if "guild" in said and "channel" in said:
        return said["guild"][0], said["channel"][0]
    guild, dash, channel = (said.get("title") or [""])[0].partition(" - ")
    return (guild, channel) if dash else ("", "")


def _cuts(path: Path) -> Iterator[tuple[int, int]]:
    """Where pieces begin and end, at the beginnings of groups."""
    size = path.stat().st_size
    begin: int | None = None
    last = position = 0
    tail = b""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            window = tail + block
            origin = position - len(tail)
            position += len(block)
            for found in _GROUP.finditer(window):
                at = origin + found.start()
                if begin is None:
                    begin = at
                elif at > last and at - begin >= SLICE:
                    yield begin, at
                    begin = at
                last = at
            tail = window[-400:]
    if begin is not None:
        yield begin, size


def _written_stamps(path: Path) -> Iterator[timestamps.Stamp]:
    """Times of groups whose messages have no ids, in the first megabyte: they show how the page writes dates."""
    with path.open("rb") as file:
        text = file.read(1 << 20).decode("utf-8", "replace")
    if "data-message-id" in text:
        return
    for found in re.finditer(r"class=[\"']?(?:chatlog__timestamp|msg-date)[\"']?[^<>]*>([^<>]{4,60})<", text):
        stamp = timestamps.read(unescape(found[1]))
        if stamp is not None:
            yield stamp


def read(part: Part) -> Iterator[Item]:
    conversation = Conversation(platform="discord", channel=part.context["channel"], kind=Kind.CHANNEL)
    code = markup.CodeBlocks(part.context.get("code", markup.CodeBlocks.SHORT))
    style = timestamps.Style.parse(part.context["style"])
    known: set[str] = set()
    with part.path.open("rb") as file:
        file.seek(part.start)
        raw = file.read((part.end or 0) - part.start)
    page = LexborHTMLParser(raw.decode("utf-8", "replace").replace("\0", ""))
    for group in page.css(".chatlog__message-group, .msg"):
        yield from _group(group, part, conversation, code, style, known)


def _group(
    group: LexborNode,
    part: Part,
    conversation: Conversation,
    code: markup.CodeBlocks,
    style: timestamps.Style,
    known: set[str],
) -> Iterator[Item]:
    author = _GroupAuthor()
    written = next((node.text().strip() for node in group.css(_STAMPS)), "")
    messages = group.css(_MESSAGE)
    for message in messages or [group]:
        named = next((node for node in message.css(_AUTHORS) if not _quoted(node)), None)
        if named is None and not author.name:
            named = next((node for node in group.css(_AUTHORS) if not _quoted(node)), None)
        if named is not None:
            given = named.attributes
            author = _GroupAuthor(given.get("data-user-id") or "", named.text().strip(), given.get("title") or "")
            author.bot = any(not _quoted(tag) for tag in (message.css(_BOTS) if messages else group.css(_BOTS)))
            if messages and message is messages[0]:
                author.bot = author.bot or any(not _quoted(tag) for tag in group.css(_BOTS))
        if _is_system(message):
            yield Skipped.SYSTEM
            continue
        contents = message.css(_CONTENT)
        if not messages:  # before July 2019: one message, or the words of several in a row
            sent_at = timestamps.parse(written, style)
            for content in contents:
                yield from _said(_text(content), author, "", sent_at, None, part, conversation, code, known)
            if not contents:
                yield Skipped.EMPTY
            continue
        id_ = message.attributes.get("data-message-id") or ""
        text = _text(contents[0]) if contents else ""
        if not text.strip() and message.css_first(".chatlog__forwarded") is not None:
            yield Skipped.FORWARDED
            continue
        yield from _said(text, author, id_, _moment(id_), _reply(message), part, conversation, code, known)


def _is_system(message: LexborNode) -> bool:
    return message.css_first(".chatlog__system-notification-author, .chatlog__system-notification-content") is not None


def _quoted(node: LexborNode) -> bool:
    """Whether an author's name is part of a quoted message or an embed."""
    at: LexborNode | None = node.parent
    for _ in range(8):
        if at is None:
            return False
        if {"chatlog__reply", "chatlog__reference", "chatlog__embed"} & _classes(at):
            return True
        at = at.parent
    return False


def _classes(node: LexborNode) -> set[str]:
    return set((node.attributes.get("class") or "").split())


def _reply(message: LexborNode) -> str | None:
    for quoted in message.css(".chatlog__reply-link, .chatlog__reference-link, .chatlog__reply, .chatlog__reference"):
        for node in (quoted, *quoted.css("[onclick], [href]")):
            given = node.attributes
            found = _SCROLL.search((given.get("onclick") or "") + (given.get("href") or ""))
            if found:
                return found[1]
    return None


def _text(content: LexborNode) -> str:
    pieces: list[str] = []
    _write(content, pieces, 0)
    return "".join(pieces)


def _write(node: LexborNode, pieces: list[str], depth: int) -> None:
    """The text of an element without quotations and attachments, which are not the author's words."""
    for child in node.iter(include_text=True):
        tag = child.tag
        if tag == "-text":
            pieces.append(child.text_content or "")
        elif tag == "br":
            pieces.append("\n")
        elif tag == "img":
            given = child.attributes
            if {"chatlog__emoji", "emoji"} & _classes(child):
                pieces.append(_emoji(given.get("alt") or "", given.get("title") or ""))
        elif tag not in {"script", "style", "svg"} and depth < MAX_DEPTH:
            classes = _classes(child)
            if classes & _SUPPRESS:
                continue
            fenced = bool(classes & _PRE)
            pieces.append("```\n" if fenced else "")
            _write(child, pieces, depth + 1)
            pieces.append("\n```" if fenced else "")


def _emoji(alt: str, title: str) -> str:
    """Unicode emoji stay as they are; the server's own become `:name:`."""
    return alt if alt and not alt.isascii() else f":{(title or alt).strip(':')}:" if title or alt else ""


def _said(
    text: str,
    author: _GroupAuthor,
    id_: str,
    sent_at: datetime | None,
    reply_to: str | None,
    part: Part,
    conversation: Conversation,
    code: markup.CodeBlocks,
    known: set[str],
) -> Iterator[Item]:
    who = author.id or author.title or author.name
    text = (markup.code_blocks(text, code) if "```" in text else text).strip()
    if author.bot:
        yield Skipped.BOT
    elif not who:
        yield Skipped.AUTHORLESS
    elif len(text) > MAX_MESSAGE:
        yield Skipped.TOO_LONG
    elif not text:
        yield Skipped.EMPTY
    elif SYSTEM.fullmatch(text):
        yield Skipped.SYSTEM
    elif markup.COMMAND.match(text):
        yield Skipped.COMMAND
    elif sent_at is None:
        place = f"message {id_[:40]}" if id_ else f"a message of {author.name[:40]}"
        yield Fault(file=part.label, place=place, reason="no readable time; it is left out")
    else:
        name = author.name or author.title
        if who not in known:
            known.add(who)
            other = author.title.split("#")[0]
            if other and other != name:
                yield Named(platform="discord", author=who, name=other)
        yield Message(
            conversation=conversation,
            id=id_,
            author=who,
            author_name=name,
            text=text,
            sent_at=sent_at,
            reply_to=reply_to,
        )


def _moment(snowflake: str) -> datetime | None:
    """Discord's ids hold milliseconds since 2015 (discord.com/developers/docs/reference#snowflakes)."""
    if not snowflake.isascii() or not snowflake.isdigit() or len(snowflake) > 20:
        return None
    return _DISCORD_EPOCH + timedelta(milliseconds=int(snowflake) >> 22)
