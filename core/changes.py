"""What happens to messages and posts later: edits, deletions, channels that are deleted or get a new id, feedback; and
which reply a post belongs to.

Keeps a channel's order (`ingest`) and waits for replies on their way, so that the message or reply that a member means
is stored by then. Knows memory and the pending replies; composes nothing.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from core import dialogue
from core.bounded_dict import BoundedDict
from core.locks import Locks
from core.memory import Memory, Removed
from core.messages import Conversation, Message
from core.pending import PendingReplies


class Changes:
    def __init__(self, memory: Memory, pending: PendingReplies, clock: Callable[[], datetime]) -> None:
        self._memory = memory
        self._pending = pending
        self._clock = clock
        self._locks = Locks()
        self._removed: BoundedDict[None] = BoundedDict()
        """Messages deleted on the platform, in case the deletion overtakes the message."""

    def ingest(self, conversation: Conversation) -> asyncio.Lock:
        """The lock that is held while an event is stored, so that messages are stored in the order they arrived. A
        channel shares it with its threads, because a thread's first message is one of the channel's."""
        return self._locks.of("ingest", *conversation.channel_key)

    def was_removed(self, message: Message) -> bool:
        where = message.conversation
        return (where.platform, where.channel, message.id) in self._removed

    async def reset(self, conversation: Conversation, *, whole_channel: bool = False) -> None:
        """Begin a new conversation here, with `whole_channel` in the channel's threads too: what was said stays stored
        but is no longer context, and the bot leaves the threads. A message being stored belongs to the old one."""
        async with self.ingest(conversation):
            await asyncio.to_thread(self._memory.reset, conversation, whole_channel=whole_channel)

    async def reworded(self, conversation: Conversation, message: str, text: str) -> bool:
        """Store an edit of which only the new text is known, after waiting for a message that is being stored; False if
        the message is not stored."""
        if not dialogue.one_line(text):
            return (await self.remove(conversation, [message])).messages > 0
        async with self.ingest(conversation):
            return await asyncio.to_thread(self._memory.edit, conversation, message, text)

    async def removed(self, conversation: Conversation, messages: Sequence[str]) -> Removed:
        """Forget messages deleted on the platform; a deleted post of ours takes the stored reply with it."""
        for message in messages:
            self._removed.put((conversation.platform, conversation.channel, message), None)
        return await self.remove(conversation, messages)

    async def remove(self, conversation: Conversation, messages: Sequence[str]) -> Removed:
        """The same for messages that still exist on the platform, such as one whose text was removed by an edit."""
        async with self.ingest(conversation):
            pass  # wait for a message that is being stored, but do not block the channel while an answer is posted
        await self._pending.settled(conversation)
        return await asyncio.to_thread(self._memory.remove, conversation, messages)

    async def closed(self, conversation: Conversation) -> Removed:
        """Forget all that was said in a thread deleted on the platform, or in a channel with its threads."""
        async with self.ingest(conversation):
            pass
        await self._pending.settled(conversation)
        return await asyncio.to_thread(self._memory.remove_place, conversation)

    async def moved(self, conversation: Conversation, channel: str) -> None:
        """Follow a channel to the new id that the platform gave it, with its threads and settings, and with what is
        being posted there just now."""
        async with self.ingest(conversation):
            await self._pending.settled(conversation)
            await asyncio.to_thread(self._memory.move_channel, conversation, channel)

    async def feedback(
        self, conversation: Conversation, post: str, member: str | None, liked: bool | None, *, was: bool | None = None
    ) -> bool:
        """Store a member's 👍 (True) or 👎 (False) on a post of ours, or take it back (None; with `was` only that one).
        False if it is no post of ours. Without a member everybody's are taken back. Waits for a post that the platform
        has not confirmed yet; calls for one post are applied in their order."""
        async with self._locks.of("feedback", conversation.platform, conversation.channel, post):
            await self._pending.settled(conversation)
            return await asyncio.to_thread(
                self._memory.feedback, conversation, post, member, liked, self._clock(), was=was
            )

    async def reply_of(self, conversation: Conversation, post: str) -> int | None:
        """The row of the reply posted as `post`; None if that is no post of ours."""
        await self._pending.settled(conversation)
        return await asyncio.to_thread(self._memory.reply_of, conversation, post)

    async def newest_reply(self, asker: Message, *, whole_channel: bool = False) -> int | None:
        """The row of the reply to a member's newest question here; None where there is none."""
        where, own = asker.conversation, asker.author
        await self._pending.settled(where)

        def find() -> int | None:
            asked = self._memory.newest_question(where, author=own, whole_channel=whole_channel)
            live = self._memory.live_reply(asked.row) if asked is not None else None
            return live[0].row if live is not None else None

        return await asyncio.to_thread(find)
