"""What the policy needs to know of the last minutes: who spoke, when the bot did, how often each member asked.

Gives `core.policy` its arguments: the rules of a channel, the activity in a conversation, chance and time. Bounded, and
lost on exit.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, time, timedelta

from core import policy
from core.bounded_dict import BoundedDict
from core.memory import ChannelSettings
from core.messages import Conversation, Message
from core.policy import Activity, Decision, Why

MINUTE = timedelta(minutes=1)


class ActivityTracker:
    def __init__(
        self, rules: policy.Rules, *, user_rate: int, rng: random.Random, clock: Callable[[], datetime]
    ) -> None:
        self._defaults = rules
        self._user_rate = user_rate
        self._rng = rng
        self._clock = clock
        self._names: dict[str, str] = {}
        self._activity: BoundedDict[Activity] = BoundedDict()
        self._asked: BoundedDict[deque[datetime]] = BoundedDict()

    def known_as(self, platform: str, name: str) -> None:
        """Set the name under which members of a platform see the bot."""
        self._names[platform] = name

    def allowed(self, message: Message, chosen: ChannelSettings) -> bool:
        """Whether the bot may store and answer a message."""
        return self.refused(message, chosen) is None

    def refused(self, message: Message, chosen: ChannelSettings) -> Why | None:
        """Why the bot may neither store nor answer a message: the channel is not allowed, or the author is ignored."""
        rules = self._rules(message.conversation, chosen)
        if not policy.allowed(message, rules):
            return Why.NOT_ALLOWED
        return Why.IGNORED if policy.ignored(message, rules) else None

    def decide(self, message: Message, chosen: ChannelSettings) -> Decision:
        """Whether to answer a message that `heard` has counted."""
        activity = self._of(message.conversation)
        if self._user_rate <= 0:  # an operator who sets no limit wants none for other bots either
            activity = replace(activity, rapid=0)
        local: time = self._clock().astimezone().time()
        return policy.decide(
            message, self._rules(message.conversation, chosen), activity, roll=self._rng.random(), local_time=local
        )

    def heard(self, message: Message) -> None:
        self._activity.put(message.conversation.key, self._of(message.conversation).heard(message, self._clock()))

    def answers_unasked(self, message: Message) -> None:
        """An ambient answer is being composed."""
        activity = self._of(message.conversation)
        changed = replace(activity, last_ambient=message.sent_at, ambient=activity.ambient + 1)
        self._activity.put(message.conversation.key, changed)

    def posted(self, conversation: Conversation) -> None:
        self._activity.put(conversation.key, replace(self._of(conversation), posted_at=self._clock()))

    def too_fast(self, message: Message) -> bool:
        """Count this question of the member; true when it is over the rate."""
        if self._user_rate <= 0:
            return False
        now, member = self._clock(), (message.conversation.platform, message.author)
        asked = self._asked.get(member) or deque()
        while asked and now - asked[0] > MINUTE:
            asked.popleft()
        if len(asked) >= self._user_rate:
            return True
        asked.append(now)
        self._asked.put(member, asked)
        return False

    def _of(self, conversation: Conversation) -> Activity:
        return self._activity.get(conversation.key) or Activity()

    def _rules(self, where: Conversation, chosen: ChannelSettings) -> policy.Rules:
        rules = self._defaults
        if where.platform in self._names:
            rules = replace(rules, names=rules.names | {self._names[where.platform]})
        if chosen.answers is not None:
            rules = replace(rules, answers=policy.Answers(chosen.answers))
        if chosen.cool_down is not None:
            rules = replace(rules, cool_down=timedelta(minutes=chosen.cool_down))
        if chosen.ignored is not None:
            rules = replace(rules, ignored=rules.ignored | frozenset(chosen.ignored.split()))
        if chosen.allowed is not None:
            rules = replace(rules, allowed_here=chosen.allowed)
        if chosen.ambient_chance is not None:
            rules = replace(rules, ambient_chance=chosen.ambient_chance)
        return rules
