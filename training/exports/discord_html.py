"""DiscordChatExporter's HTML, old and new: message containers with a header, a reply quote and the words.

Knows `MessageGroupTemplate.cshtml` of Tyrrrz/DiscordChatExporter by its CSS classes, whatever the attribute quoting.
Message ids are Discord snowflakes, so times are exact and without a zone whatever language the page is written in.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

from core.messages import Conversation, Kind, Message
from training.exports import identity, markup, textfile
from training.exports.items import MAX_MESSAGE, Fault, Item, Named, Part, Skipped

NAME = "discord-html"
BLOCK = 1 << 18
"""Characters fed to the parser at a time."""
MAX_TAG = 1 << 22
"""Characters of one tag or comment; a longer one never ends, and waiting for it would take quadratic time."""
_DISCORD_EPOCH = datetime(2015, 1, 1, tzinfo=UTC)
_VOID = {
    "img",
    "br",
    "hr",
    "input",
    "link",
    "meta",
    "source",
    "use",
    "path",
    "wbr",
    "area",
    "base",
    "col",
    "embed",
    "param",
    "track",
}
_SCROLL = re.compile(r"(\d{15,20})")
_CONTENT = {"chatlog__content", "chatlog__message-content"}
_PLAIN = {"chatlog__markdown-preserve", "preserve-whitespace"}
_SUPPRESS = {
    "chatlog__edited-timestamp",
    "chatlog__markdown-quote",
    "quote",
    "chatlog__attachment",
    "chatlog__embed",
    "chatlog__reactions",
    "chatlog__reply",
    "chatlog__reference",
    "chatlog__markdown-quote-content",
}
_PRE = {"chatlog__markdown-pre--multiline", "pre--multiline"}
_AUTHOR = {"chatlog__author", "chatlog__author-name", "chatlog__system-notification-author"}


@dataclass(slots=True)
class _Open:
    """The message being read."""

    id: str
    author: str
    name: str
    title: str
    bot: bool
    text: list[str] = field(default_factory=list)
    length: int = 0
    reply_to: str | None = None
    system: bool = False


class _Page(HTMLParser):
    """Collects messages; `done` holds those that are complete."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.done: list[_Open] = []
        self._message: _Open | None = None
        self._author = ("", "", "", False)
        self._stack: list[tuple[str, str]] = []
        self._depth = {"content": 0, "suppress": 0, "author": 0, "tag": 0, "reply": 0, "pre": 0}

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attributes}
        classes = set(given.get("class", "").split())
        role = ""
        if given.get("data-message-id") and classes & {"chatlog__message-container", "chatlog__message"}:
            self._finish()
            self._message = _Open(given["data-message-id"], *self._author)
        elif "chatlog__message-group" in classes:
            self._finish()
            self._author = ("", "", "", False)
        elif classes & _AUTHOR:
            self._author = (given.get("data-user-id", ""), "", given.get("title", ""), False)
            if self._message is not None:
                self._message.system = "chatlog__system-notification-author" in classes
            role = "author"
        elif classes & {"chatlog__author-tag", "chatlog__bot-tag"}:
            role = "tag"
        elif classes & _CONTENT:
            role = "content"
        elif classes & _SUPPRESS:
            role = "suppress"
        elif classes & _PRE:
            role = "pre"
            self._write("```\n")
        if (
            classes & {"chatlog__reply", "chatlog__reference", "chatlog__reply-link", "chatlog__reference-link"}
            or "onclick" in given
        ):
            self._reply(given.get("onclick", "") + given.get("href", ""))
        if tag == "img" and (classes & {"chatlog__emoji", "emoji"}):
            self._write(given.get("alt", "") if not given.get("title") else _emoji(given["alt"], given["title"]))
        if tag == "br":
            self._write("\n")
        if tag not in _VOID:
            self._stack.append((tag, role))
            if role:
                self._depth[role] += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID or not any(opened == tag for opened, _ in self._stack[-64:]):
            return
        while self._stack:
            opened, role = self._stack.pop()
            if role:
                self._depth[role] -= 1
                if role == "author":
                    self._adopt()
                elif role == "pre":
                    self._write("\n```")
            if opened == tag:
                return

    def handle_data(self, data: str) -> None:
        if self._depth["author"]:
            author, name, title, bot = self._author
            self._author = (author, name + data, title, bot)
        elif self._depth["tag"] and self._message is not None:
            self._author = (*self._author[:3], True)
            self._message.bot = True
        else:
            self._write(data)

    def close(self) -> None:
        super().close()
        self._finish()

    def _write(self, data: str) -> None:
        message = self._message
        if message is not None and self._depth["content"] and not self._depth["suppress"]:
            message.length += len(data)
            if message.length <= 4 * MAX_MESSAGE:
                message.text.append(data)

    def _reply(self, target: str) -> None:
        found = _SCROLL.search(target)
        quoting = not self._depth["content"] and self._message is not None and self._message.reply_to is None
        if found and self._message is not None and quoting and ("scrollToMessage" in target or "message-" in target):
            self._message.reply_to = found[1]

    def _adopt(self) -> None:
        if self._message is not None:
            self._message.author, self._message.name, self._message.title, _ = self._author

    def _finish(self) -> None:
        if self._message is not None:
            self.done.append(self._message)
            self._message = None


def _emoji(alt: str, title: str) -> str:
    """Unicode emoji keep their sign; the server's own become `:name:`."""
    return alt if alt and not alt.isascii() else f":{(title or alt).strip(':')}:"


def recognises(path: Path, head: str) -> bool:
    start = head.lstrip("\ufeff").lstrip()[:200].lower()
    return path.is_file() and start.startswith(("<!doctype html", "<html", "<!--")) and "chatlog__" in _deep(path, head)


def _deep(path: Path, head: str) -> str:
    """The style sheet in front of the messages may be longer than the head."""
    if "chatlog__" in head:
        return head
    with path.open("rb") as file:
        return file.read(1 << 20).decode(textfile.encoding_of(head[:4].encode()), "replace")


def parts(path: Path, label: str) -> Iterator[Part | Fault]:
    yield Part(reader=NAME, path=path, label=label, context={"channel": identity.discord(label)})


def read(part: Part) -> Iterator[Item]:
    conversation = Conversation(platform="discord", channel=part.context["channel"], kind=Kind.CHANNEL)
    code = markup.CodeBlocks(part.context.get("code", markup.CodeBlocks.SHORT))
    page = _Page()
    known: set[str] = set()
    with part.path.open("rb") as raw:
        encoding = textfile.encoding_of(raw.read(4))
    with part.path.open(encoding=encoding, errors="replace") as file:
        ended, tail = False, ""
        while block := file.read(BLOCK):
            page.feed(block)
            ended = ended or "</html>" in tail + block
            tail = block[-8:]
            for message in page.done:
                yield from _said(message, part, conversation, code, known)
            page.done.clear()
            if len(page.rawdata) > MAX_TAG:
                page.rawdata = ""
                yield Fault(file=part.label, place="", reason="a tag without an end; it is left out")
    if not ended:
        yield Fault(
            file=part.label, place="", reason="the page has no end: it may be cut off; what came before is read"
        )
    page.close()
    for message in page.done:
        yield from _said(message, part, conversation, code, known)


def _said(
    message: _Open, part: Part, conversation: Conversation, code: markup.CodeBlocks, known: set[str]
) -> Iterator[Item]:
    author = message.author or message.title or message.name
    if message.system:
        yield Skipped.SYSTEM
    elif message.bot:
        yield Skipped.BOT
    elif not author:
        yield Skipped.AUTHORLESS
    elif message.length > MAX_MESSAGE:
        yield Skipped.TOO_LONG
    else:
        text = _unfence("".join(message.text), code).strip()
        if not text:
            yield Skipped.EMPTY
            return
        if markup.COMMAND.match(text):
            yield Skipped.COMMAND
            return
        sent_at = _moment(message.id)
        if sent_at is None:
            yield Fault(
                file=part.label, place=f"message {message.id[:40]}", reason="no readable id, so no time; it is left out"
            )
            return
        name = message.name.strip() or message.title
        if author not in known:
            known.add(author)
            other = message.title.split("#")[0]
            if other and other != name:
                yield Named(platform="discord", author=author, name=other)
        yield Message(
            conversation=conversation,
            id=message.id,
            author=author,
            author_name=name,
            text=text,
            sent_at=sent_at,
            reply_to=message.reply_to,
        )


def _unfence(text: str, code: markup.CodeBlocks) -> str:
    """The page is rendered already: only the fences we set around code blocks are resolved."""
    return markup.code_blocks(text, code) if "```" in text else text


def _moment(snowflake: str) -> datetime | None:
    """Discord's ids hold milliseconds since 2015 (discord.com/developers/docs/reference#snowflakes)."""
    if not snowflake.isascii() or not snowflake.isdigit() or len(snowflake) > 20:
        return None
    return _DISCORD_EPOCH + timedelta(milliseconds=int(snowflake) >> 22)
