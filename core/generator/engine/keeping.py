"""The keys and values of conversations that may go on, under a bound in bytes; the least recently used give way.

Counts the rooms of running requests too, so that the bound holds for everything together. Knows no threads.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from core.generator.engine.lora import Lora
from core.generator.engine.network import Network, Room


@dataclass(slots=True, kw_only=True)
class _Kept:
    room: Room
    tokens: Sequence[int]
    """What the room holds, from position 0."""
    lora: Lora | None


class Keeping:
    def __init__(self, network: Network, *, limit: int) -> None:
        self._network = network
        self._limit = limit
        self._idle: OrderedDict[str, _Kept] = OrderedDict()
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes of all rooms, idle and lent."""
        return self._used

    def __len__(self) -> int:
        return len(self._idle)

    def lend(
        self, conversation: str | None, prompt: Sequence[int], *, tokens: int, lora: Lora | None
    ) -> tuple[Room, int] | None:
        """A room for `tokens` tokens and how many of `prompt` it holds already; None when there is no space yet.

        At least the prompt's last token is left to compute: its logits are what a reply begins with. Keys and values
        depend on the adapter, so those of another one are of no use.
        """
        kept = self._idle.get(conversation) if conversation is not None else None
        same = _common(kept.tokens, prompt) if kept is not None and kept.lora is lora else 0
        same = min(same, len(prompt) - 1)
        if kept is not None and conversation is not None and (same == 0 or kept.room.capacity >= tokens):
            del self._idle[conversation]
            if same:
                return kept.room, same
            self._used -= kept.room.bytes
            kept = None
        if not self._make_space(self._network.room_bytes(tokens), sparing=conversation if kept else None):
            if kept is None or conversation is None:
                return None
            del self._idle[conversation]  # too little space to hold the old room beside the new one
            self._used -= kept.room.bytes
            kept = None
            if not self._make_space(self._network.room_bytes(tokens), sparing=None):
                return None
        if kept is not None and conversation is not None:
            room = kept.room.grown(tokens, keep=same)
            del self._idle[conversation]
            self._used += room.bytes - kept.room.bytes
            return room, same
        room = self._network.room(tokens)
        self._used += room.bytes
        return room, 0

    def take_back(self, room: Room, *, conversation: str | None, tokens: Sequence[int], lora: Lora | None) -> None:
        """`tokens` are those in the room; it is kept for the conversation's next turn, or let go without one."""
        if conversation is None or not tokens:
            self._used -= room.bytes
            return
        self._forget(conversation)
        self._idle[conversation] = _Kept(room=room, tokens=tuple(tokens), lora=lora)

    def drop(self, lora: Lora) -> None:
        """Let go of what an adapter computed."""
        for conversation in [name for name, kept in self._idle.items() if kept.lora is lora]:
            self._forget(conversation)

    def clear(self) -> None:
        for conversation in list(self._idle):
            self._forget(conversation)

    def _forget(self, conversation: str) -> None:
        kept = self._idle.pop(conversation, None)
        if kept is not None:
            self._used -= kept.room.bytes

    def _make_space(self, needed: int, *, sparing: str | None) -> bool:
        while self._used + needed > self._limit:
            oldest = next((name for name in self._idle if name != sparing), None)
            if oldest is None:
                return False
            self._forget(oldest)
        return True


def _common(kept: Sequence[int], prompt: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    for index, (one, other) in enumerate(zip(kept, prompt, strict=False)):
        if one != other:
            return index
    return min(len(kept), len(prompt))
