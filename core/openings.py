"""The opening post of a thread that the bot is mentioned in late: looked up once, stored, so that it is context.

Knows memory and who may be heard; how a platform looks a post up is passed in.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeAlias

from core.activity import ActivityTracker
from core.bounded_dict import BoundedDict
from core.changes import Changes
from core.dialogue import one_line
from core.failures import log_failure
from core.forgotten import Forgotten
from core.memory import ChannelSettings, Memory
from core.messages import Kind, Message

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""Longest wait for an opening post; who asks something in a thread is answered without it then."""

LookUp: TypeAlias = Callable[[], Awaitable[Message | None]]
"""Asks the platform for the first message of a thread; None where it is no member's, is gone, or may not be read."""


class Openings:
    """One look for each thread; `retention_days` is the operator's."""

    def __init__(
        self,
        memory: Memory,
        activity: ActivityTracker,
        changes: Changes,
        *,
        retention_days: int | None,
        forgotten: Forgotten | None,
        clock: Callable[[], datetime],
    ) -> None:
        self._memory = memory
        self._activity = activity
        self._changes = changes
        self._retention_days = retention_days
        self._forgotten = forgotten
        self._clock = clock
        self._asked: BoundedDict[None] = BoundedDict()

    async def learn(self, message: Message, chosen: ChannelSettings, look_up: LookUp) -> None:
        """Store what opened the thread that `message` was said in, where the bot is new to it and does not know that.

        It is stored as any heard message is: never where its author, their being forgotten or its
        age forbids that. Whatever fails, the
        message is answered without it.
        """
        where = message.conversation
        if where.kind is not Kind.THREAD or message.joined_thread or message.id == where.thread:
            return
        try:
            if await asyncio.to_thread(self._memory.knows_opening, where) or not self._asked.put(where.key, None):
                return
            async with asyncio.timeout(LOOK_SECONDS):
                found = await look_up()
            if found is None or not one_line(found.text):
                return
            opening = replace(found, conversation=where)
            if not await asyncio.to_thread(self._may_store, opening, chosen):
                return
            async with self._changes.ingest(where):
                if not self._changes.was_removed(opening):
                    await asyncio.to_thread(self._memory.remember_opening, opening)
        except TimeoutError:
            log.info("the opening post of %s did not arrive in time", where.key)
        except Exception as error:  # an opening post is not worth an answer
            log_failure(log, error, "the opening post of %s could not be looked up", where.key)

    def _may_store(self, opening: Message, chosen: ChannelSettings) -> bool:
        days = chosen.retention_days or self._retention_days
        kept = days is None or self._clock() - opening.sent_at <= timedelta(days=days)
        if not kept or not self._activity.allowed(opening, chosen):
            return False
        return self._forgotten is None or not self._forgotten.wrote_before(opening)
