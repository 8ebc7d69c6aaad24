"""One table of commands, run the same on every platform: a bot only carries the words in and the answer out.

Knows the interfaces of chat, memory and registry; knows no slash-command payload, no button, no markup.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from core import notices
from core.attachments import Attachment as Attachment  # for the bots, which know commands only
from core.attachments import attachment_of
from core.channel_options import FIELDS, WHOM, describe_settings, value_of
from core.channel_options import SETTING_VALUES as SETTING_VALUES  # for the bots, which know commands only
from core.chat import Chat
from core.composer import RECALLED
from core.dialogue import one_line
from core.failures import log_failure
from core.memory import ChannelSettings
from core.messages import Kind, Message, Reply
from core.responder import Thinking

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A row of the table; platforms build their menus and help from it."""

    name: str
    summary: str
    """At most 100 characters: Discord's limit for a description."""
    argument: str = ""
    """What may follow the name, as help shows it; empty for nothing."""
    admin: bool = False
    """Only members who may manage the channel."""
    choices: tuple[str, ...] = ()


COMMANDS: tuple[Command, ...] = (
    Command(name="ask", summary="Ask Person2 something", argument="QUESTION"),
    Command(name="again", summary="Replace my answer to your last question here with another one"),
    Command(name="why", summary="How my last answer to you was made"),
    Command(name="reset", summary="Start a new conversation here; in a thread, also leave it"),
    Command(name="voice", summary="Show the voices, or choose this channel's voice", argument="[NAME]"),
    Command(
        name="consent",
        summary="May Person2 learn from what you write? yes, no, or show",
        argument="[yes|no]",
        choices=("yes", "no", "show"),
    ),
    Command(name="forget-me", summary="Delete everything stored about you", argument="[yes]"),
    Command(name="my-data", summary="Get everything stored about you, as a file only you see"),
    Command(
        name="settings",
        summary="Show or change this channel's settings",
        argument="[NAME VALUE]",
        admin=True,
        choices=(
            *("answers", "ambient", "cool-down", "allowed", "ignore", "unignore", "again", "reset"),
            *("voice", "temperature", "retention", "recall"),
        ),
    ),
    Command(name="status", summary="Model, voice, queue and uptime"),
    Command(name="help", summary="What Person2 can do"),
)

BY_NAME = {command.name: command for command in COMMANDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """A command as a platform heard it."""

    name: str
    argument: str = ""
    message: Message
    """Who asked, where, when and under which id; its text is the argument (what `ask` remembers)."""
    admin: bool = False
    """The platform says this member may manage the channel."""
    post: str | None = None
    """The bot's post that a menu, shortcut or button was used on."""
    whole_channel: bool = False
    """The platform takes commands in channels only, never in a thread: they mean the channel with its threads."""
    thinking: Thinking = nullcontext
    heard: Callable[[], object] | None = None
    """Called once a question is stored."""
    complete: Callable[[], Awaitable[Message]] | None = None
    """Gives a question with the names that take a while to look up, after it was stored."""

    @property
    def may_manage(self) -> bool:
        """A direct message is managed by the member it is with."""
        return self.admin or self.message.conversation.kind is Kind.DIRECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to show: either `text` or `reply`."""

    text: str = ""
    private: bool = True
    """Only the asker sees it, where the platform can do that."""
    reply: Reply | None = None
    """Person2 speaking: post it and call `Chat.posted`."""
    replaces: tuple[str, ...] = ()
    """Posts that the reply takes the place of: edit the first, delete the rest."""
    attachment: Attachment | None = None

    @property
    def silent(self) -> bool:
        """Nothing to show: a redelivered command that was answered already."""
        return not self.text and self.reply is None


def parse(words: str) -> tuple[str, str]:
    """`"ask how are you"` → `("ask", "how are you")`; `("help", "")` for nothing; unknown words stay as they are."""
    name, argument, *_ = (*words.split(maxsplit=1), "", "")
    return (name.casefold() or "help", argument.strip())


@dataclass(slots=True, kw_only=True)
class Commands:
    """Runs the table over one chat."""

    chat: Chat
    started_at: datetime
    clock: Callable[[], datetime]
    adapters: Callable[[], tuple[str, ...]] = tuple
    """Ids of the adapters in the registry."""
    forget: Callable[[str, str], str] | None = None
    """Forgets (platform, member) everywhere, adapters included, and returns a receipt; None forgets in memory alone."""
    stored: Callable[[str, str], dict[str, Any]] | None = None
    """All that is stored of (platform, member), training files included; None exports what memory has alone."""
    learned_from: Callable[[str], int | None] = lambda adapter: None
    """How many people's words an adapter learned from; None where nothing is known of it."""
    trial: Callable[[], str] = str
    """The state of the trial in a sentence; empty where there was none."""
    prefix: str = "/person2 "
    """How a member types a command here, for help texts."""
    _table: dict[str, Callable[[Invocation], Awaitable[Answer]]] = field(init=False)

    def __post_init__(self) -> None:
        self._table = {
            "ask": self._ask,
            "again": self._again,
            "why": self._why,
            "reset": self._reset,
            "voice": self._voice,
            "consent": self._consent,
            "forget-me": self._forget_me,
            "my-data": self._my_data,
            "settings": self._settings,
            "status": self._status,
            "help": self._help,
        }

    async def run(self, invocation: Invocation) -> Answer:
        """The answer to show: what a member does wrong, and what goes wrong here, is a sentence in it."""
        command = BY_NAME.get(invocation.name)
        if command is None:
            return Answer(text=f"I don't know “{one_line(invocation.name)[:40]}”.\n{self.help_text()}")
        if command.admin and not invocation.may_manage:
            return Answer(text="Only members who may manage this channel can do that.")
        return await self._answered(command.name, self._table[command.name], invocation)

    async def _answered(
        self, name: str, run: Callable[[Invocation], Awaitable[Answer]], invocation: Invocation
    ) -> Answer:
        try:
            return await run(invocation)
        except Exception as error:  # the boundary: the log gets the error, the member a sentence
            log_failure(log, error, "the command %s failed", name)
            return Answer(text=notices.apology(error))

    def help_text(self) -> str:
        rows = [
            f"`{self.prefix}{row.name}{' ' if row.argument else ''}{row.argument}` {row.summary}" for row in COMMANDS
        ]
        return "\n".join(("Mention me, reply to me, write to me directly, or use a command:", *rows))

    async def _ask(self, invocation: Invocation) -> Answer:
        if not one_line(invocation.argument):
            return Answer(text=self.help_text())
        reply = await self.chat.ask(
            invocation.message,
            thinking=invocation.thinking,
            heard=invocation.heard,
            complete=invocation.complete,
        )
        if reply is None:
            return Answer()
        return Answer(reply=reply, private=reply.notice)

    async def _again(self, invocation: Invocation) -> Answer:
        reply, replaced = await self.chat.again(
            invocation.message,
            admin=invocation.may_manage,
            post=invocation.post,
            whole_channel=invocation.whole_channel,
            thinking=invocation.thinking,
        )
        return Answer(reply=reply, private=reply.notice, replaces=replaced)

    async def _reset(self, invocation: Invocation) -> Answer:
        where = invocation.message.conversation
        chosen = await asyncio.to_thread(self.chat.memory.channel_settings, where)
        if chosen.reset_by == "admins" and not invocation.may_manage:
            return Answer(text="Only members who may manage this channel can reset it.")
        await self.chat.reset(where, whole_channel=invocation.whole_channel)
        if where.kind is Kind.THREAD:
            return Answer(text=notices.LEFT, private=False)
        return Answer(text="A fresh start: from now on I ignore what was said before.", private=False)

    async def _voice(self, invocation: Invocation) -> Answer:
        where = invocation.message.conversation
        chosen = await asyncio.to_thread(self.chat.memory.channel_settings, where)
        adapters = ("current", "none", *await asyncio.to_thread(self.adapters))
        wanted = one_line(invocation.argument)
        if not wanted:
            return Answer(text=f"Voice here: {chosen.voice or 'current'}. Available: {', '.join(adapters)}.")
        if not invocation.may_manage:
            return Answer(text="Only members who may manage this channel can choose its voice.")
        if wanted not in adapters:
            return Answer(text=f"There is no voice “{wanted[:40]}”; choose one of {', '.join(adapters)}.")
        await self._change(invocation, voice=None if wanted == "current" else wanted)
        return Answer(text=f"From now on I use the voice “{wanted}” here.", private=False)

    async def _consent(self, invocation: Invocation) -> Answer:
        who = (invocation.message.conversation.platform, invocation.message.author)
        match invocation.argument.strip().casefold():
            case "yes" | "no" as word:
                await asyncio.to_thread(self.chat.memory.set_consent, *who, word == "yes", self.clock())
                if word == "yes":
                    undo = f"`{self.prefix}consent no`"
                    return Answer(text=f"Thank you: from now on I may learn from what you write. To undo this: {undo}")
                return Answer(text="Understood: I won't learn from what you write.")
            case "" | "show":
                given = await asyncio.to_thread(self.chat.memory.consent, *who)
                state = {None: "You haven't said yes or no", True: "You said yes", False: "You said no"}[given]
                return Answer(text=f"{state}. I learn only from people who said yes. To choose: {self._yes_or_no}")
            case _:
                return Answer(text=f"Please say {self._yes_or_no}")

    @property
    def _yes_or_no(self) -> str:
        return f"`{self.prefix}consent yes` or `{self.prefix}consent no`."

    async def _forget_me(self, invocation: Invocation) -> Answer:
        platform, member = invocation.message.conversation.platform, invocation.message.author
        if invocation.argument.strip().casefold() != "yes":
            return Answer(
                text="This deletes everything stored about you, my answers to you included, and cannot be undone. "
                f"To go ahead: `{self.prefix}forget-me yes`"
            )
        if self.forget is not None:
            return Answer(text=await asyncio.to_thread(self.forget, platform, member))
        removed = await asyncio.to_thread(self.chat.memory.forget, platform, member)
        return Answer(text=f"Done: I deleted {removed.messages} of your messages and {removed.replies} of my answers.")

    async def _my_data(self, invocation: Invocation) -> Answer:
        platform, member = invocation.message.conversation.platform, invocation.message.author
        stored = await asyncio.to_thread(self.stored or self.chat.memory.export, platform, member)
        dialogues = len(stored.get("dialogues", ()))
        attachment, about_it = await asyncio.to_thread(attachment_of, stored)
        text = f"Everything stored about you: {len(stored['messages'])} messages"
        text += f" and {dialogues} training dialogues." if dialogues else "."
        return Answer(text=f"{text} {about_it}".strip(), attachment=attachment)

    async def _settings(self, invocation: Invocation) -> Answer:
        where = invocation.message.conversation
        name, value, *_ = (*invocation.argument.split(maxsplit=1), "", "")
        chosen = await asyncio.to_thread(self.chat.memory.channel_settings, where)
        if not name:
            return Answer(text=f"Settings here: {describe_settings(chosen)}.")
        name = name.casefold()
        value = value.strip() if name == "persona" else value.strip().casefold()
        if name in {"ignore", "unignore"} and value not in {"", "default"}:
            return await self._ignore(invocation, chosen, value, ignore=name == "ignore")
        if name not in FIELDS:
            return Answer(text=f"There is no setting “{name[:40]}”; choose one of {', '.join(FIELDS)}.")
        if not value:
            return Answer(text=f"Here, {describe_settings(chosen, name)}.")
        try:
            setting = value_of(name, value)
        except ValueError as error:
            return Answer(text=str(error))
        if name == "voice" and setting not in (None, "none", *await asyncio.to_thread(self.adapters)):
            return Answer(text=f"There is no voice “{value[:40]}”; `{self.prefix}voice` lists them.")
        chosen = await self._change(invocation, **{FIELDS[name]: setting})
        return Answer(text=f"Changed. Settings here: {describe_settings(chosen)}.")

    async def _ignore(self, invocation: Invocation, chosen: ChannelSettings, who: str, *, ignore: bool) -> Answer:
        found = _MEMBER.fullmatch(who)
        if found is None:
            return Answer(text=WHOM)
        one = f"@{found['role']}" if found["role"] else (found["member"] or found["id"])
        others = [each for each in (chosen.ignored or "").split() if each.casefold() != one]
        listed = " ".join([*others, one] if ignore else others)
        await self._change(invocation, ignored=listed or None)
        return Answer(text=f"From now on I {'ignore' if ignore else 'listen to'} {who} here.")

    async def _change(self, invocation: Invocation, **change: object) -> ChannelSettings:
        where = invocation.message.conversation
        return await asyncio.to_thread(lambda: self.chat.memory.change_settings(where, **change))

    async def _status(self, invocation: Invocation) -> Answer:
        status = self.chat.generator.status()
        uptime = self.clock() - self.started_at
        hours, seconds = divmod(int(uptime.total_seconds()), 3600)
        trial = await asyncio.to_thread(self.trial)
        return Answer(
            text=f"Model {_model_name(status.model)}; voices loaded: {', '.join(status.adapters) or 'none'}; "
            f"{status.queued} waiting, {status.running} being answered, {status.completed} answered; "
            f"up {hours} h {seconds // 60} min.{f' Trial: {trial}.' if trial else ''}"
        )

    async def why(self, invocation: Invocation) -> Answer:
        """How the answer posted as `invocation.post` was made, or the last one to the asker here."""
        return await self._answered("why", self._why, invocation)

    async def _why(self, invocation: Invocation) -> Answer:
        where = invocation.message.conversation
        if invocation.post is not None:
            row = await self.chat.reply_of(where, invocation.post)
        else:
            row = await self.chat.newest_reply(invocation.message, whole_channel=invocation.whole_channel)
        details = await asyncio.to_thread(self.chat.memory.details, row) if row is not None else {}
        if not details:
            return Answer(text="I have no record of that answer.")
        consent = await asyncio.to_thread(self.learned_from, str(details.get("adapter", "none")))
        if consent is not None:
            details = {**details, "learned from": f"{consent} people who agreed"}
        if RECALLED in details:
            rows = [int(each) for each in str(details[RECALLED]).split()]
            said = await asyncio.to_thread(self.chat.memory.said, rows)
            told = "; ".join(f"“{one_line(text)[:RECALLED_CHARACTERS]}” ({at:%Y-%m-%d})" for text, at in said)
            details = {**details, RECALLED: told or "what has been deleted since"}
        shown = {name: _model_name(str(value)) if name in _PATHS else value for name, value in details.items()}
        return Answer(text="\n".join(f"{name}: {value}" for name, value in shown.items()))

    async def _help(self, invocation: Invocation) -> Answer:
        return Answer(text=self.help_text())


_MEMBER = re.compile(r"<@&(?P<role>\w+)>|<@!?(?P<member>\w+)(?:\|[^>]*)?>|(?P<id>[^\s<>@]+)")
"""A mention of a role or a member as Discord and Slack write them, or an id."""

RECALLED_CHARACTERS = 80
"""Characters of each recalled message that “why?” shows."""

_PATHS = frozenset({"model", "adapter"})
"""Details of a reply that may be a path on the operator's machine."""


def _model_name(name: str) -> str:
    """A model or adapter as members see it: a hub name's or a folder's last part."""
    return re.split(r"[\\/]", name.rstrip("\\/"))[-1] or name
