"""A channel in your terminal: lines in, replies out, remembered like any channel.

Knows text streams; the commands are the same as on other platforms, typed with a slash. Lines may come from a pipe:
then only Person2's replies go to standard output.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import TextIO

from core.chat import Chat
from core.commands import Answer, Commands, Invocation, parse
from core.dialogue import one_line
from core.errors import Person2Error
from core.messages import Conversation, Kind, Message

DEFAULT_CONVERSATION = Conversation(platform="terminal", channel="terminal", kind=Kind.DIRECT)


def new_conversation() -> Conversation:
    """A conversation without messages: with a fixed seed, replies must not depend on earlier ones."""
    return replace(DEFAULT_CONVERSATION, channel=f"terminal-{secrets.token_hex(8)}")


LINE_LIMIT = 100_000
"""Characters of a line that are read; of a longer one, the last, and the person is told."""


class Terminal:
    """One person talking with the bot through two text streams."""

    def __init__(
        self,
        chat: Chat,
        commands: Commands,
        *,
        person: str,
        clock: Callable[[], datetime],
        source: TextIO,
        sink: TextIO,
        notes: TextIO,
        interactive: bool,
        conversation: Conversation = DEFAULT_CONVERSATION,
    ) -> None:
        self._chat = chat
        self._commands = commands
        self._person = person
        self._clock = clock
        self._source = source
        self._sink = sink
        self._notes = notes
        self._interactive = interactive
        self._conversation = conversation

    def lines(self) -> Iterator[str]:
        """What the person types, until the end of input (Ctrl-D) or `/quit`. Blocks while waiting.

        Reading stays in the main thread, outside the event loop: a thread waiting for the keyboard could not be
        stopped by Ctrl-C.
        """
        if self._interactive:
            self._note("Talk to Person2. /help lists the commands; Ctrl-D ends the conversation.")
        while (line := self._line()) is not None and one_line(line) not in {"/quit", "/exit"}:
            yield line

    async def say(self, line: str) -> None:
        """Handle one line of the person and print the answer; an error is printed as one line."""
        try:
            await self._say(line)
        except Person2Error as error:
            self._note(str(error))

    async def _say(self, line: str) -> None:
        if len(line) > LINE_LIMIT:
            self._note(f"That line is very long: I read its last {LINE_LIMIT:,} characters.")
            line = line[-LINE_LIMIT:]
        if not one_line(line):
            if line.strip("\r\n") or not self._interactive:
                self._note("The line is empty: type something.")
            return
        if line.startswith("/"):
            name, argument = parse(line[1:])
            answer = await self._commands.run(
                Invocation(
                    name=name, argument=argument, message=self._message(argument), admin=True, thinking=self._thinking
                )
            )
            await self._show(answer)
            return
        reply = await self._chat.hear(self._message(line), thinking=self._thinking)
        if reply is not None:
            await self._show(Answer(reply=reply))

    def _message(self, text: str) -> Message:
        return Message(
            conversation=self._conversation,
            id=secrets.token_hex(8),
            author=self._person,
            author_name=self._person,
            text=text,
            sent_at=self._clock(),
        )

    async def _show(self, answer: Answer) -> None:
        if answer.reply is not None and answer.reply.notice:
            self._note(answer.reply.text)
        elif answer.reply is not None:
            speaker = "Person2: " if self._interactive else ""
            self._sink.write(f"{speaker}{answer.reply.text}\n")
            self._sink.flush()
            await self._chat.posted(answer.reply, self._conversation, (), stands=True)
        if answer.text:
            self._note(answer.text)
        if answer.attachment is not None:
            self._sink.write(f"{answer.attachment.text}\n")
            self._sink.flush()

    def _note(self, text: str) -> None:
        self._notes.write(f"{text}\n")
        self._notes.flush()

    def _line(self) -> str | None:
        if self._interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 - importing it gives input() line editing and history

            try:
                return input("Person1: ")
            except EOFError:
                return None
        line = self._source.readline()
        return line.rstrip("\r\n") if line else None

    @asynccontextmanager
    async def _thinking(self) -> AsyncIterator[None]:
        """Three dots while the model thinks, erased afterwards."""
        if self._interactive:
            self._notes.write("…\r")
            self._notes.flush()
        try:
            yield
        finally:
            if self._interactive:
                self._notes.write("\x1b[2K\r")
                self._notes.flush()
