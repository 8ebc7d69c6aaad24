"""The bot's own log as training may see it: words of members who consented, written after that, and nothing disliked.

Knows the memory's interface and what consent means; no dialogue and no file.
"""

from collections.abc import Iterator
from dataclasses import replace

from core.memory import Memory
from core.messages import Message


def learnable(memory: Memory) -> Iterator[Message]:
    """Every stored message in order, except disliked replies and what they answered; words that may not be learned are
    blanked, so that the gap stays.

    `consent yes` covers what is written from then on, so earlier words are left out.
    """
    _, disliked = memory.judged()
    spoiled = memory.questions(disliked) | frozenset(disliked)
    since = memory.consented_since()
    for item in memory.everything():
        message = item.message
        if message.id in spoiled:
            continue
        said_yes = since.get(f"{message.conversation.platform}:{message.author}")
        if message.from_bot or (said_yes is not None and message.sent_at >= said_yes):
            yield message
        else:
            yield replace(message, text="", author_name="")
