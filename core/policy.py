"""Should the bot answer this message? Pure: facts in, a decision out.

Knows nothing of clocks, dice, databases or platforms: time and chance are arguments, so that every rule is a table row
in its test.
"""

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum

from core.dialogue import one_line
from core.messages import Kind, Message

MAX_IN_A_ROW = 3
"""Ambient answers without a human in between; two bots answering each other stop here."""

AMBIENT_COOL_DOWN = timedelta(minutes=2)
"""Least time between two answers nobody asked for in one channel."""


class Why(StrEnum):
    """The rule that decided, for logs and `why?`."""

    COMMAND = "asked by command"
    DIRECT = "direct message"
    MENTION = "mentioned"
    REPLY = "replied to"
    THREAD = "a thread it takes part in"
    AMBIENT = "ambient chance"
    OWN_WORDS = "its own words"
    EMPTY = "no words"
    NOT_ALLOWED = "channel not allowed"
    NOT_ADDRESSED = "not addressed"
    QUIET_HOURS = "quiet hours"
    COOL_DOWN = "cooling down"
    ENOUGH = "enough answers in a row"


_ANSWERED = frozenset({Why.COMMAND, Why.DIRECT, Why.MENTION, Why.REPLY, Why.THREAD, Why.AMBIENT})


@dataclass(frozen=True, slots=True)
class Decision:
    why: Why

    @property
    def answer(self) -> bool:
        return self.why in _ANSWERED

    @property
    def remember(self) -> bool:
        """Words of a channel the bot was not let into are not even stored."""
        return self.why not in {Why.NOT_ALLOWED, Why.EMPTY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the operator and the channel's admins set."""

    allowed_channels: frozenset[str] = frozenset()
    """Channel ids the bot may listen and answer in; empty for all. Direct messages are always allowed."""
    allowed_here: bool | None = None
    """The channel's own switch; None leaves it to `allowed_channels`."""
    ambient_chance: float = 0.0
    """0 to 1: how likely an unaddressed message is answered."""
    cool_down: timedelta = AMBIENT_COOL_DOWN
    quiet_hours: tuple[time, time] | None = None
    """From, until (may pass midnight), in the operator's time zone: no ambient answers then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """What just happened in the conversation."""

    last_ambient: datetime | None = None
    in_a_row: int = 0
    """Bot posts since a human last spoke."""


def allowed(message: Message, rules: Rules) -> bool:
    conversation = message.conversation
    if conversation.kind is Kind.DIRECT:
        return True
    if rules.allowed_here is not None:
        return rules.allowed_here
    return not rules.allowed_channels or bool(
        rules.allowed_channels & {conversation.channel, conversation.thread or conversation.channel}
    )


def decide(message: Message, rules: Rules, recent: Recent, *, roll: float, local_time: time) -> Decision:
    """The first rule that applies. `roll` is uniform in [0, 1); `local_time` is the operator's wall clock."""
    if message.from_bot:
        return Decision(Why.OWN_WORDS)
    if not one_line(message.text):
        return Decision(Why.EMPTY)
    if not allowed(message, rules):
        return Decision(Why.NOT_ALLOWED)
    if message.conversation.kind is Kind.DIRECT:
        return Decision(Why.DIRECT)
    if message.mentions_bot:
        return Decision(Why.MENTION)
    if message.replies_to_bot:
        return Decision(Why.REPLY)
    if message.joined_thread:
        return Decision(Why.THREAD)
    if roll >= rules.ambient_chance:
        return Decision(Why.NOT_ADDRESSED)
    if rules.quiet_hours is not None and _within(local_time, *rules.quiet_hours):
        return Decision(Why.QUIET_HOURS)
    if recent.last_ambient is not None and message.sent_at - recent.last_ambient < rules.cool_down:
        return Decision(Why.COOL_DOWN)
    if recent.in_a_row >= MAX_IN_A_ROW:
        return Decision(Why.ENOUGH)
    return Decision(Why.AMBIENT)


def _within(moment: time, start: time, end: time) -> bool:
    return start <= moment < end if start <= end else moment >= start or moment < end
