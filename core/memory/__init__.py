"""What the bot remembers: conversations, messages, members, consent, feedback, channel settings.

The face of the only package (beside `migrations`) that knows SQLAlchemy. Synchronous: callers in an event loop use
`asyncio.to_thread`. In-memory SQLite is its own fake.
"""

from core.memory.memory import ChannelSettings, Memory, Remembered, Removed
from core.memory.opening import open_memory

__all__ = ["ChannelSettings", "Memory", "Remembered", "Removed", "open_memory"]
