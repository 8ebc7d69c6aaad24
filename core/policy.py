"""Should the bot answer this message? Pure: facts in, a decision out.

Knows nothing of clocks, randomness, databases or platforms: time and chance are arguments, so that every rule is a
table row in its test.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache

from core.dialogue import one_line
from core.messages import Kind, Message

MAX_AMBIENT = 3
"""Ambient answers to one member while nobody else speaks: that member may be a bot that answers us."""

MAX_RAPID = 12
"""Answers in a row to a member whose messages each follow ours faster than anybody types: that is another bot, and the
two would talk forever. The limit per minute stops only fast loops."""

TYPED_PER_SECOND = 15
"""Characters; nobody types 180 words a minute for long."""

AMBIENT_COOL_DOWN = timedelta(minutes=2)
"""Least time between two answers nobody asked for in one channel."""


class Answers(StrEnum):
    """What a channel wants answered, besides commands."""

    MENTION = "mention"
    """Mentions, replies to it and threads it is in."""
    NAME = "name"
    """Its name standing as a word, too."""
    ALL = "all"
    """Everything that people say, except to each other: a channel of its own."""
    OFF = "off"
    """Nothing: commands alone."""


class Why(StrEnum):
    """The rule that decided, for logs and `why?`."""

    COMMAND = "asked by command"
    DIRECT = "direct message"
    MENTION = "mentioned"
    REPLY = "replied to"
    THREAD = "a thread it takes part in"
    NAME = "called by name"
    EVERYTHING = "a channel where it answers everything"
    AMBIENT = "ambient chance"
    OWN_WORDS = "its own words"
    EMPTY = "no words"
    NOT_ALLOWED = "channel not allowed"
    NO_DIRECT = "direct messages are off"
    IGNORED = "a member it ignores"
    COMMANDS_ONLY = "commands alone are answered here"
    NOT_ADDRESSED = "not addressed"
    QUIET_HOURS = "quiet hours"
    COOL_DOWN = "cooling down"
    RESUMED = "asked before a restart"
    ENOUGH = "enough answers in a row"
    BEFORE = "before"
    """Answered before reasons were stored."""


_ANSWERED = frozenset(
    {
        *(Why.COMMAND, Why.DIRECT, Why.MENTION, Why.REPLY, Why.THREAD),
        *(Why.NAME, Why.EVERYTHING, Why.AMBIENT, Why.RESUMED),
    }
)


@dataclass(frozen=True, slots=True)
class Decision:
    why: Why

    @property
    def answer(self) -> bool:
        return self.why in _ANSWERED

    @property
    def remember(self) -> bool:
        """False in channels where the bot is not allowed and for members it ignores: their messages are not stored."""
        return self.why not in {Why.NOT_ALLOWED, Why.NO_DIRECT, Why.IGNORED, Why.EMPTY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the operator and the channel's admins set."""

    allowed_channels: frozenset[str] = frozenset()
    """Channel ids the bot may listen and answer in; empty for all. Direct messages have a switch of their own."""
    allowed_here: bool | None = None
    """The channel's own switch; None leaves it to `allowed_channels`."""
    direct_messages: bool = True
    """Whether direct messages are answered."""
    ignored: frozenset[str] = frozenset()
    """Members (id or `platform:id`) and roles (`@` in front of the id), in any case, neither heard nor answered."""
    answers: Answers = Answers.MENTION
    names: frozenset[str] = frozenset()
    """What the bot is called, in any case."""
    ambient_chance: float = 0.0
    """0 to 1: how likely an unaddressed message is answered."""
    cool_down: timedelta = AMBIENT_COOL_DOWN
    quiet_hours: tuple[time, time] | None = None
    """From, until (may pass midnight), in the operator's time zone: no ambient answers then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What just happened in a conversation."""

    last_ambient: datetime | None = None
    speaker: str = ""
    """Who spoke last, the bot aside."""
    ambient: int = 0
    """Ambient answers since somebody else spoke."""
    rapid: int = 0
    """Messages in a row, since somebody else spoke, that came faster after our posts than anybody types."""
    posted_at: datetime | None = None
    """When we posted, while nobody has spoken since."""

    def heard(self, message: Message, at: datetime) -> "Activity":
        """What it is once `message` was heard."""
        if message.author != self.speaker:
            return replace(self, speaker=message.author, ambient=0, rapid=0, posted_at=None)
        if self.posted_at is None:
            return self
        seconds = (at - self.posted_at).total_seconds()
        rapid = self.rapid + 1 if len(message.text) > seconds * TYPED_PER_SECOND else 0
        return replace(self, rapid=rapid, posted_at=None)


def allowed(message: Message, rules: Rules) -> bool:
    conversation = message.conversation
    if conversation.kind is Kind.DIRECT:
        return rules.direct_messages
    if rules.allowed_here is not None:
        return rules.allowed_here
    return not rules.allowed_channels or bool(
        rules.allowed_channels & {conversation.channel, conversation.thread or conversation.channel}
    )


def ignored(message: Message, rules: Rules) -> bool:
    """Whether the operator or the channel's admins want this member ignored. A member whose roles are not known is
    ignored where any role is."""
    if not rules.ignored:
        return False
    if message.author_roles is None and any(each.startswith("@") for each in rules.ignored):
        return True
    platform = message.conversation.platform
    who = {message.author, f"{platform}:{message.author}", *(f"@{role}" for role in message.author_roles or ())}
    return not {each.casefold() for each in who}.isdisjoint(each.casefold() for each in rules.ignored)


def decide(message: Message, rules: Rules, activity: Activity, *, roll: float, local_time: time) -> Decision:
    """The first rule that applies. `roll` is uniform in [0, 1); `local_time` is the operator's wall clock."""
    if message.from_bot:
        return Decision(Why.OWN_WORDS)
    if not one_line(message.text):
        return Decision(Why.EMPTY)
    if ignored(message, rules):
        return Decision(Why.IGNORED)
    direct = message.conversation.kind is Kind.DIRECT
    if not allowed(message, rules):
        return Decision(Why.NO_DIRECT if direct else Why.NOT_ALLOWED)
    if rules.answers is Answers.OFF and not direct:
        return Decision(Why.COMMANDS_ONLY)
    addressed = _addressed(message, rules)
    if addressed is not None:
        return Decision(addressed if activity.rapid < MAX_RAPID else Why.ENOUGH)
    if message.mentions_others:  # a question to somebody else
        return Decision(Why.NOT_ADDRESSED)
    if roll >= rules.ambient_chance:
        return Decision(Why.NOT_ADDRESSED)
    if rules.quiet_hours is not None and _within(local_time, *rules.quiet_hours):
        return Decision(Why.QUIET_HOURS)
    if activity.last_ambient is not None and message.sent_at - activity.last_ambient < rules.cool_down:
        return Decision(Why.COOL_DOWN)
    if activity.ambient >= MAX_AMBIENT:
        return Decision(Why.ENOUGH)
    return Decision(Why.AMBIENT)


def _addressed(message: Message, rules: Rules) -> Why | None:
    if message.conversation.kind is Kind.DIRECT:
        return Why.DIRECT
    if message.mentions_bot:
        return Why.MENTION
    # In a thread on a post of ours every message answers that post.
    if message.replies_to_bot and not (message.mentions_others and message.conversation.kind is Kind.THREAD):
        return Why.REPLY
    if message.mentions_others:
        return None
    if message.joined_thread:
        return Why.THREAD
    if rules.answers in {Answers.NAME, Answers.ALL} and calls(message.text, rules.names):
        return Why.NAME
    return Why.EVERYTHING if rules.answers is Answers.ALL else None


def calls(text: str, names: Iterable[str]) -> bool:
    """Whether a text contains one of the names as a word, in any case."""
    pattern = _pattern(frozenset(names))
    return pattern is not None and pattern.search(text) is not None


@lru_cache(maxsize=64)
def _pattern(names: frozenset[str]) -> re.Pattern[str] | None:
    known = sorted((re.escape(name.strip()) for name in names if name.strip()), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(known)})(?!\w)", re.IGNORECASE) if known else None


def _within(moment: time, start: time, end: time) -> bool:
    return start <= moment < end if start <= end else moment >= start or moment < end
