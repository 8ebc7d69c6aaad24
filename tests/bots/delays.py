"""What a busy machine does to us: a post is seen long before it is stored under its id."""

import time
from collections.abc import Sequence

import pytest

from core.memory.messages import Messages
from core.messages import Conversation

LAG = 0.25
"""Seconds; an action that does not wait for the post misses it by far."""


def store_posts_late(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Messages.posted

    def late(self: Messages, row: int, conversation: Conversation, posts: Sequence[str]) -> None:
        time.sleep(LAG)
        stored(self, row, conversation, posts)

    monkeypatch.setattr(Messages, "posted", late)
