"""Messages that a proxy bot posts again: bots such as PluralKit delete what a member wrote and at once post it by a
webhook under another name. The webhook's post then counts as the member's message.

Knows the messages of the last seconds; knows nothing of discord.py, chat or memory.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from core.dialogue import one_line
from core.messages import Message

REPOST_SECONDS = 5.0
"""Longest wait between a webhook's post and the deletion of what it repeats, whichever comes first."""

REMEMBERED = 2_000
"""Recent messages that are compared with a webhook's post."""


@dataclass(slots=True, eq=False)
class Original:
    """A member's message that a proxy may delete and repost."""

    message: Message
    heard_at: float
    deleted: asyncio.Event = field(default_factory=asyncio.Event)
    handled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the bot is done with it."""
    answered: bool = False
    reposted: bool = False


class RepostTracker:
    def __init__(self) -> None:
        self._recent: OrderedDict[str, Original] = OrderedDict()

    def heard(self, message: Message) -> Original:
        original = Original(message, _now())
        self._recent[message.id] = original
        while len(self._recent) > REMEMBERED or self._outdated(next(iter(self._recent.values()))):
            self._recent.popitem(last=False)
        return original

    def deleted(self, message: str) -> None:
        original = self._recent.get(message)
        if original is not None:
            original.heard_at = _now()
            original.deleted.set()

    async def reposted(self, post: Message) -> Message | None:
        """A webhook's post as a message of its member; None for one that repeats nobody.

        Where the member's own message was answered before it was deleted, the repost does not address the bot again.
        """
        original = self._original(post)
        if original is None:
            return None
        original.reposted = True
        try:
            async with asyncio.timeout(REPOST_SECONDS):
                await original.deleted.wait()
        except TimeoutError:
            original.reposted = False  # the original was not deleted: an unrelated webhook with the same text
            return None
        await original.handled.wait()
        said = original.message
        return replace(
            post,
            author=said.author,
            author_roles=said.author_roles,
            reply_to=post.reply_to or said.reply_to,
            mentions_bot=(post.mentions_bot or said.mentions_bot) and not original.answered,
            replies_to_bot=(post.replies_to_bot or said.replies_to_bot) and not original.answered,
        )

    def _original(self, post: Message) -> Original | None:
        """The newest message of the last seconds that contains the post's text: proxies remove the tags around it."""
        words = one_line(post.text)
        for original in reversed(self._recent.values()):
            said = original.message
            if original.reposted or not words or self._outdated(original):
                continue
            if said.conversation == post.conversation and words in one_line(said.text):
                return original
        return None

    @staticmethod
    def _outdated(original: Original) -> bool:
        return _now() - original.heard_at > REPOST_SECONDS


def _now() -> float:
    return asyncio.get_running_loop().time()
