"""What the bot remembers: conversations, messages, members, consent, feedback, channel settings.

The face of the only package (beside `migrations`) that knows SQLAlchemy. Synchronous: callers in an event loop use
`asyncio.to_thread`. In-memory SQLite is its own fake.
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
