"""How fast a generator answers: dialogues replayed turn by turn, latency and tokens per second.

What `person2 bench` prints and what `benchmarks/serve.py` compares. Uses the port alone, so it measures any generator.
Prompts contain the dialogue's own replies, never the model's, so that every generator reads the same.
"""

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.dialogue import Dialogue, Speaker, Turn, prompt
from core.generator import Adapter, Completion, Generator, Sampling

REPLY_TOKENS = 40
MARK_TOKENS = 16
"""Tokens at most of the line that makes a conversation's prompts unlike any other's."""
CONVERSATIONS = (1, 8, 32)
"""Numbers of simultaneous conversations that `measure` tries by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """One replay. Seconds are from asking to having the whole reply."""

    conversations: int
    first: tuple[float, ...]
    """Seconds of each conversation's first reply: its whole prompt is new."""
    later: tuple[float, ...]
    """Seconds of the replies after it: a generator may have cached what it read."""
    tokens: int
    seconds: float
    cached_tokens: int
    """Prompt tokens whose keys and values were cached."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "conversations": self.conversations,
            "replies": len(self.first) + len(self.later),
            "first_reply_seconds": _median(self.first),
            "later_reply_seconds": _median(self.later),
            "slowest_reply_seconds": max((*self.first, *self.later), default=None),
            "tokens_per_second": self.tokens_per_second,
            "cached_tokens": self.cached_tokens,
        }


def prompts(dialogue: Dialogue) -> list[str]:
    """The prompt at each of Person2's turns."""
    return [
        prompt(dialogue[:index])
        for index, turn in enumerate(dialogue)
        if turn.speaker is Speaker.PERSON2 and index  # a dialogue that Person2 opens has no question before it
    ]


def fitting(
    dialogues: Sequence[Dialogue], *, count: Callable[[str], int], first: int, last: int, turns: int
) -> list[list[str]]:
    """The prompts of dialogues, beginning where they are at least `first` tokens long: `turns` of each, none longer
    than `last`. Dialogues without that many are left out."""
    found: list[list[str]] = []
    for dialogue in dialogues:
        asked = prompts(dialogue)
        begin = next((index for index, text in enumerate(asked) if count(text) >= first), len(asked))
        chosen = asked[begin : begin + turns]
        if len(chosen) == turns and count(chosen[-1]) <= last:
            found.append(chosen)
    return found


def marked(talk: Sequence[str], mark: str) -> list[str]:
    """The prompts of one dialogue behind a line that no other has, or a generator that keeps what several conversations
    begin with would not read them anew."""
    return [f"{Turn(speaker=Speaker.PERSON1, text=mark)}\n{text}" for text in talk]


async def replay(
    generator: Generator,
    talks: Sequence[Sequence[str]],
    *,
    sampling: Sampling,
    adapters: Sequence[Adapter | None] = (None,),
    label: str,
    clock: Callable[[], float],
) -> BenchResult:
    """Replay all `talks` (a prompt per turn) at once; each sends its next prompt as soon as it is answered.

    Talk i uses adapter i modulo their number. `label` distinguishes its conversations from those of other replays; each
    begins with a line of its own.
    """
    before = generator.status().cached_tokens
    first: list[float] = []
    later: list[float] = []

    async def talk(number: int) -> int:
        tokens = 0
        for turn, text in enumerate(marked(talks[number], f"{label}/{number}")):
            asked = clock()
            made: Completion = await generator.generate(
                text,
                sampling=sampling,
                adapter=adapters[number % len(adapters)],
                conversation=f"bench/{label}/{number}",
            )
            (later if turn else first).append(clock() - asked)
            tokens += made.new_tokens
        return tokens

    began = clock()
    spoken = await asyncio.gather(*(talk(number) for number in range(len(talks))))
    return BenchResult(
        conversations=len(talks),
        first=tuple(first),
        later=tuple(later),
        tokens=sum(spoken),
        seconds=clock() - began,
        cached_tokens=generator.status().cached_tokens - before,
    )


async def measure(
    generator: Generator,
    dialogues: Sequence[Dialogue],
    *,
    conversations: Sequence[int] = CONVERSATIONS,
    turns: int = 3,
    adapter: Adapter | None = None,
    clock: Callable[[], float],
) -> list[BenchResult]:
    """Results for each number of conversations at once, after one reply to warm up; greedy, 40 tokens each.

    Where there are too few dialogues, they are used repeatedly. Raises ValueError when none is long enough.
    """
    longest = generator.context_length - REPLY_TOKENS - MARK_TOKENS
    found = fitting(dialogues, count=generator.count_tokens, first=longest // 10, last=longest, turns=turns)
    if not found:
        raise ValueError(f"no dialogue has {turns} replies")
    sampling = Sampling(temperature=0, repetition_penalty=1, max_new_tokens=REPLY_TOKENS, stop="")
    await generator.generate(found[0][0], sampling=sampling, adapter=adapter)
    return [
        await replay(
            generator,
            [found[number % len(found)] for number in range(count)],
            sampling=sampling,
            adapters=(adapter,),
            label=str(count),
            clock=clock,
        )
        for count in conversations
    ]


def table(figures: Sequence[BenchResult]) -> str:
    """For people; `BenchResult.as_json` is for machines."""
    lines = ["conversations at once  first reply  later replies  slowest  tokens/s  prompt tokens kept"]
    for each in figures:
        first, later = _median(each.first), _median(each.later)
        slowest = max((*each.first, *each.later), default=0.0)
        lines.append(
            f"{each.conversations:>21}  {_seconds(first):>11}  {_seconds(later):>13}  {_seconds(slowest):>7}"
            f"  {each.tokens_per_second:>8.0f}  {each.cached_tokens:>18}"
        )
    return "\n".join(lines)


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
