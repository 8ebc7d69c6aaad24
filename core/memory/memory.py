"""Remember, recall, forget: every question the bot asks its database. Raises StorageError, nothing of SQLAlchemy's.

One face over six nouns, each in a file of its own: talk, questions, recall, votes, members, channels.
"""

from core.memory.channels import Channels
from core.memory.members import Members
from core.memory.questions import Questions
from core.memory.recall import Recall
from core.memory.talk import Talk
from core.memory.votes import Votes


class Memory(Talk, Questions, Recall, Votes, Members, Channels):
    """Open with `open_memory`. Safe to use from several threads; each call is one transaction."""
