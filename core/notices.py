"""Sentences about the bot itself, and how often they may be said. Knows no platform and no database.

They say what a member can do. What the operator needs to know (addresses, settings, a server's answer) is in the log.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from core.bounded_dict import BoundedDict
from core.errors import Overloaded, Unavailable
from core.messages import Message
from core.policy import Why

TOO_FAST = "That was a lot at once: give me a minute, then ask again."
CROWDED = "A few people are ahead of you: try again in a moment."
WORDLESS = "I read text only: write me something and I'll answer."
BROKEN = "Something went wrong while I was thinking. Ask me again; if it keeps happening, tell my operator."
NO_MODEL = "I can't think right now. Please try again in a few minutes."
RESTARTING = "I'm being restarted. Please ask me again in a minute."
MISSED = "Sorry, I was restarted before I could answer this. Ask me again if you still want to know."
NOT_ALLOWED = "I'm not allowed to talk in this channel. Its admins can change that."
IGNORED = "I've been told not to answer you here. The admins can change that."
REFUSED = {Why.NOT_ALLOWED: NOT_ALLOWED, Why.IGNORED: IGNORED}
NO_DIRECT = "I don't answer direct messages here. Ask me in a channel."
UNSAYABLE = "I'd better not say what came to mind. Could you put it another way?"
NO_QUESTION = "Ask me something: the question was empty."
NOTHING_ASKED = "You haven't asked me anything here yet."
NOT_MINE = "That isn't an answer of mine."
NOT_YOURS = "Only the person who asked, or someone who may manage this channel, can have that answered again."
DELETED = "What you asked has been deleted, so I won't answer it."
LEFT = "All right, I'm leaving this thread. Mention me and I'll be back."

MEMBER_PAUSE = timedelta(minutes=1)
"""Least time between two notices to one member."""

CROWD_PAUSE = timedelta(seconds=10)
"""Least time between two notices in one channel that many are waiting."""


def apology(error: BaseException) -> str:
    """What a member reads in place of an answer that failed."""
    if isinstance(error, Overloaded):
        return CROWDED
    return NO_MODEL if isinstance(error, Unavailable) else BROKEN


class Notices:
    """Remembers who was shown a notice a moment ago."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._told: BoundedDict[datetime] = BoundedDict()

    def may_say(self, text: str, to: Message) -> bool:
        """Whether this notice may be posted now, in answer to a message; if so it counts as posted."""
        where = to.conversation
        member = (where.platform, to.author)
        if self._paused(member, MEMBER_PAUSE) or (text == CROWDED and self._paused(where.channel_key, CROWD_PAUSE)):
            return False
        self._told.put(member, self._clock())
        if text == CROWDED:
            self._told.put(where.channel_key, self._clock())
        return True

    def _paused(self, key: tuple[str, ...], pause: timedelta) -> bool:
        told = self._told.get(key)
        return told is not None and self._clock() - told < pause
