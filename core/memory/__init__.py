"""What the bot remembers: conversations, messages, members, consent, feedback, channel settings.

The only package, beside `migrations`, that knows SQLAlchemy. Synchronous: callers in an event loop use
`asyncio.to_thread`. Tests use it with an in-memory SQLite database.
"""

from core.memory.database import open_memory
from core.memory.memory import Memory
from core.memory.rows import ChannelSettings, Exchange, JudgedQuestion, Remembered, Removed, Unanswered

__all__ = [
    "ChannelSettings",
    "Exchange",
    "JudgedQuestion",
    "Memory",
    "Remembered",
    "Removed",
    "Unanswered",
    "open_memory",
]
