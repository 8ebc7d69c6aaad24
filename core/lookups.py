"""Names that are being looked up for messages already stored: answers in the channel wait for them, but not long."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from core.failures import log_failure
from core.memory import Memory
from core.messages import Conversation, Message

log = logging.getLogger(__name__)

WAIT_SECONDS = 5.0
"""Longest wait for the names in a channel before something in it is answered without them."""


class Lookups:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._under_way: dict[tuple[str, str, str], set[asyncio.Task[Message]]] = {}

    async def complete(self, message: Message, row: int, look_up: Callable[[], Awaitable[Message]]) -> Message:
        """The message with the names in it, which is stored too; the message as it was where the lookup fails."""

        async def work() -> Message:
            whole = await look_up()
            if (whole.text, whole.author_name) != (message.text, message.author_name):
                await asyncio.to_thread(self._memory.complete, row, message.text, whole)
            return replace(message, text=whole.text, author_name=whole.author_name)

        task = asyncio.create_task(work())
        here = self._under_way.setdefault(message.conversation.channel_key, set())
        here.add(task)
        try:
            return await task
        except Exception as error:  # a message is answered without the names rather than not at all
            log_failure(log, error, "names in %s could not be looked up", message.conversation.key)
            return message
        finally:
            task.cancel()
            here.discard(task)
            if not here:
                self._under_way.pop(message.conversation.channel_key, None)

    async def done(self, conversation: Conversation) -> None:
        tasks = self._under_way.get(conversation.channel_key)
        if tasks:
            await asyncio.wait(tasks, timeout=WAIT_SECONDS)
