"""A dict of bounded size: new entries push out the oldest."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")

ENTRIES = 10_000
"""Slack repeats an event for about an hour at most (https://docs.slack.dev/apis/events-api, “Retries”)."""


class BoundedDict(Generic[V]):
    def __init__(self, entries: int = ENTRIES) -> None:
        self._entries = entries
        self._table: OrderedDict[Hashable, V] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._table

    def __len__(self) -> int:
        return len(self._table)

    def put(self, key: Hashable, value: V) -> bool:
        """Store an entry as the newest; True if its key is new."""
        new = key not in self._table
        self._table[key] = value
        self._table.move_to_end(key)
        while len(self._table) > self._entries:
            self._table.popitem(last=False)
        return new

    def get(self, key: Hashable) -> V | None:
        return self._table.get(key)

    def pop(self, key: Hashable) -> V | None:
        return self._table.pop(key, None)
