"""Person2 on IRC (RFC 2812): what a third platform costs, in one file. The core does not change.

    python examples/irc.py irc.libera.chat --port 6697 --tls --nick person2 --channel '#my-channel'

It answers to its nick, to private messages and to `!ask`, `!help` … A member is a nick; a channel's admins are its
operators.
"""

import argparse
import asyncio
import logging
import os
import re
import secrets
from collections.abc import Coroutine, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime

from core import replies
from core.chat import Chat
from core.commands import Answer, Commands, Invocation, parse
from core.errors import StorageError
from core.failures import log_failure
from core.messages import Conversation, Kind, Message, Reply
from core.notices import BROKEN
from core.settings import load_settings
from person2.app import open_app
from person2.logging import set_up_logging

log = logging.getLogger("irc")

LIMIT = 400
"""Bytes of a line's text: the 512 of RFC 2812, section 2.3, less the prefix that the server adds for its readers."""
MAX_LINES = 5  # of one answer: who sends many at once is thrown out for flooding
SILENCE = 300.0  # seconds until the server is taken for gone; servers ask idle clients every few minutes
NAMES_SECONDS = 5.0  # longest wait for the server to say who operates a channel
WAITS = (2.0, 5.0, 15.0, 60.0, 300.0)  # seconds before connecting again, longer the more often it failed

_LINE = re.compile(r"(?::(?P<who>[^\s!]+)\S* )?(?P<verb>\w+)(?P<middle>(?: [^:\s]\S*)*)(?: :(?P<last>.*))?")


def to_message(
    who: str, target: str, text: str, *, nick: str, server: str, at: datetime, nicks: Iterable[str] = ()
) -> Message:
    """A PRIVMSG as the core knows it. IRC gives messages no ids, so none is ever delivered twice."""
    public = target.startswith(("#", "&", "+", "!"))
    channel, kind = (target.casefold(), Kind.CHANNEL) if public else (who.casefold(), Kind.DIRECT)
    called = rf"(?<![\w\[\]-]){re.escape(nick)}(?![\w\[\]-])"
    others = "|".join(re.escape(other) for other in nicks if other.casefold() != nick.casefold()) or r"(?!)"
    return Message(
        conversation=Conversation(platform="irc", space=server, channel=channel, kind=kind),
        id=secrets.token_hex(8),
        author=who.casefold(),
        author_name=who,
        text=re.sub(rf"^\s*{called}\s*[:,]?\s*", "", text, flags=re.I),
        sent_at=at,
        mentions_bot=re.search(called, text, re.I) is not None,
        mentions_others=re.search(rf"^\s*(?:{others})[:,]|@(?:{others})(?![\w\[\]-])", text, re.I) is not None,
    )


def to_lines(text: str, *, nicks: Iterable[str] = ()) -> list[str]:
    """What may be sent: no control characters, nobody's nick as a client would notice it, at most LIMIT bytes each."""
    for nick in nicks:
        text = re.sub(rf"(?<!\w){re.escape(nick[:1])}(?={re.escape(nick[1:])}(?!\w))", "\\g<0>\u200b", text, flags=re.I)
    text = re.sub(r"[\x00-\x1f\x7f`]+", " ", " | ".join(text.splitlines()))
    lines = replies.split(text, limit=(characters := LIMIT))
    while any(len(line.encode()) > LIMIT for line in lines):
        lines = replies.split(text, limit=(characters := characters * 3 // 4))
    return lines[:MAX_LINES]


@dataclass
class IrcBot:
    """Carries words between one IRC server and one chat; `run` until cancelled."""

    chat: Chat
    commands: Commands
    server: str
    port: int
    nick: str
    channels: list[str]
    tls: bool = False
    password: str = field(default="", repr=False)
    waits: tuple[float, ...] = WAITS
    _writer: asyncio.StreamWriter = field(init=False, repr=False)
    _nicks: set[str] = field(default_factory=set)
    _operators: set[str] = field(default_factory=set)  # of the channel that the server lists just now
    _listings: dict[str, asyncio.Future[set[str]]] = field(default_factory=dict)  # that somebody waits for
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                failures = 0 if await self._talk() else failures + 1
            except (OSError, ValueError) as error:  # ValueError: a line without end
                failures += 1
                log.warning("IRC: %s; connecting again", error)
            await asyncio.sleep(self.waits[min(failures, len(self.waits) - 1)])

    async def _talk(self) -> bool:
        """One connection until it ends; whether the server had let us in."""
        reader, self._writer = await asyncio.open_connection(self.server, self.port, ssl=self.tls or None)
        with closing(self._writer):
            nick, welcome = self.nick, False
            self._send(f"PASS {self.password}" if self.password else "", f"NICK {nick}", "USER person2 0 * :Person2")
            while raw := await asyncio.wait_for(reader.readline(), SILENCE):
                found = _LINE.match(raw.decode("utf-8", "replace").rstrip("\r\n"))
                match (found["verb"].upper(), found["middle"].split(), found["last"] or "") if found else None:
                    case ("PING", middle, last):
                        self._send(f"PONG :{last or ' '.join(middle)}")
                    case ("001", [given, *_], _):
                        nick, welcome = given, True
                        self._send(*(f"JOIN {channel}" for channel in self.channels))
                        self._start(self._catch_up())
                    case ("433", _, _):  # somebody has that nick
                        nick += "_"
                        self._send(f"NICK {nick}")
                    case ("353", _, names):  # who is in a channel
                        self._nicks.update(name.lstrip("@+%&~") for name in names.split())
                        self._operators.update(name.lstrip("@+%&~") for name in names.split() if name[0] in "@&~")
                    case ("366", [_, channel, *_], _):  # and that is all
                        if listing := self._listings.pop(channel.casefold(), None):
                            listing.set_result({name.casefold() for name in self._operators})
                        self._operators.clear()
                    case ("PRIVMSG", [target, *_], text) if found and found["who"] and text[:1] != "\x01":
                        self._nicks.add(who := found["who"])
                        at, others = self.commands.clock(), self._nicks
                        said = to_message(who, target, text, nick=nick, server=self.server, at=at, nicks=others)
                        self._start(self._heard(said))
            return welcome

    async def _heard(self, said: Message) -> None:
        name, argument = parse(said.text[1:]) if said.text.startswith("!") else ("", "")
        try:
            if name:
                said = replace(said, text=argument)
                admin = said.conversation.kind is not Kind.DIRECT and await self._is_operator(said)
                answer = await self.commands.run(Invocation(name=name, argument=argument, message=said, admin=admin))
            else:
                answer = Answer(reply=await self.chat.hear(said), private=False)
        except StorageError as error:
            log_failure(log, error, "no answer in %s", said.conversation.key)
            answer = Answer(text=BROKEN if said.mentions_bot or said.conversation.kind is Kind.DIRECT else "")
        await self._say(answer, said)

    async def _is_operator(self, said: Message) -> bool:
        """Asked of the server each time: rights and nicks change."""
        channel = said.conversation.channel
        listing = self._listings.setdefault(channel, asyncio.get_running_loop().create_future())
        self._send(f"NAMES {channel}")
        try:
            return said.author in await asyncio.wait_for(asyncio.shield(listing), NAMES_SECONDS)
        except TimeoutError:
            return False

    async def _catch_up(self) -> None:
        for question in await self.chat.unanswered("irc"):
            await self._say(Answer(reply=await self.chat.resume(question), private=False), question.message)

    async def _say(self, answer: Answer, to: Message) -> None:
        reply = answer.reply or Reply(text=answer.text, notice=answer.private)  # a file is the operator's to send
        target = to.author_name if reply.notice else to.conversation.channel
        self._send(*(f"PRIVMSG {target} :{line}" for line in to_lines(reply.text, nicks=self._nicks)))
        await self.chat.posted(reply, to.conversation, (), stands=not self._writer.is_closing())  # lines have no ids

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.add(task := asyncio.create_task(work))
        task.add_done_callback(self._tasks.discard)

    def _send(self, *lines: str) -> None:
        self._writer.writelines(f"{line}\r\n".encode() for line in lines if line)


async def main() -> None:
    options = argparse.ArgumentParser(description="Person2 on IRC")
    options.add_argument("server")
    options.add_argument("--port", type=int, default=6667)
    options.add_argument("--tls", action="store_true")
    options.add_argument("--nick", default="person2")
    options.add_argument("--channel", dest="channels", action="append", default=[], metavar="#NAME")
    chosen = vars(options.parse_args())
    set_up_logging(settings := load_settings())
    async with open_app(settings, prefix="!") as app:
        await IrcBot(app.chat, app.commands, password=os.environ.get("IRC_PASSWORD", ""), **chosen).run()


if __name__ == "__main__":
    asyncio.run(main())
