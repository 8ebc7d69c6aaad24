"""One lock per key, first come, first served; a lock that nobody holds or awaits is dropped."""

import asyncio
from weakref import WeakValueDictionary


class Locks:
    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, *key: str) -> asyncio.Lock:
        return self._locks.setdefault("\0".join(key), asyncio.Lock())
