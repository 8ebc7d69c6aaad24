"""The first post of a thread in which the bot is mentioned later: looked up once and stored, so that it is context.

Knows memory and whose messages may be stored; how a platform looks a post up is passed in.
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
"""Longest wait for an opening post; after that the question is answered without it."""

LookUp: TypeAlias = Callable[[], Awaitable[Message | None]]
"""Asks the platform for the first message of a thread; None where it is not a member's, is gone, or may not be read."""


class Openings:
    """Looks once for each thread; `retention_days` is the operator's."""

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
        """Store the first post of the thread of `message`, where the bot is new to the thread and has not stored it.

        It is stored like any message that is heard: not where its author is ignored or was forgotten, nor where it is
        older than the retention allows. Whatever fails is logged.
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
        except Exception as error:  # the question is answered without the opening post rather than not at all
            log_failure(log, error, "the opening post of %s could not be looked up", where.key)

    def _may_store(self, opening: Message, chosen: ChannelSettings) -> bool:
        days = chosen.retention_days or self._retention_days
        kept = days is None or self._clock() - opening.sent_at <= timedelta(days=days)
        if not kept or not self._activity.allowed(opening, chosen):
            return False
        return self._forgotten is None or not self._forgotten.wrote_before(opening)
