"""Replies of a model to given contexts, with fixed seeds, and how varied, empty or repetitive they are.

Uses the generator that the bots use (the engine on a CPU, transformers on a GPU), with many replies in flight and the
base and adapters side by side. Knows nothing of dialogue files.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise

from core.dialogue import Dialogue, fit, one_line, prompt, words_of
from core.generator import Adapter, Completion, Generator, Sampling
from training.finetune.base import device

IN_FLIGHT = 64
"""Requests in flight: two batches of the generator, so that it never waits for Python."""
FIRST_LOOK = 8
"""Tokens after which an expected continuation is checked: most differ by then."""
SEEDS = 1_000_003
"""Distance between the seeds of two runs, so that their replies share none."""
REPEATS = 3
"""The same three words, or the same word in a row, so many times count as repetition."""
_LETTERS = re.compile(r"\w")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyRequest:
    """One line of Person2's to generate."""

    before: Dialogue
    adapter: Adapter | None = None
    begun: str = ""
    """How the line begins; what comes back is what follows."""
    number: int = 0
    """Which of the suite's contexts it answers: the same number gives the same seed."""


class ReplyGenerator:
    """A base and the adapters on it, as they reply.

    A base with a chat template is prompted without it, as in training.
    """

    def __init__(self, load: Callable[[], Generator]) -> None:
        """`load` is called for the first reply."""
        self._load = load

    @cached_property
    def _generator(self) -> Generator:
        return self._load()

    def close(self) -> None:
        """Free its memory."""
        if "_generator" in self.__dict__:
            asyncio.run(self._generator.close())

    def replies(self, requests: Sequence[ReplyRequest], *, sampling: Sampling, seed: int) -> list[str]:
        """Person2's next line for each request, possibly empty. The same seed and request give the same line, whatever
        else is in the batch."""
        drawn = [replace(sampling, seed=seed * SEEDS + one.number, best_of=1, stop="\n") for one in requests]
        found = asyncio.run(self._generate(requests, drawn))
        return [_first_line(one.text) for one in found]

    def continuations(
        self, requests: Sequence[ReplyRequest], wanted: Sequence[tuple[str, ...]], *, max_new_tokens: int
    ) -> list[str]:
        """The likeliest continuation of each begun line, abandoned once it cannot begin with the `wanted` words;
        complete where it does."""
        greedy = Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=min(FIRST_LOOK, max_new_tokens))
        found = asyncio.run(self._generate(requests, [greedy] * len(requests)))
        said = [one.text for one in found]
        open_ = [
            number
            for number, one in enumerate(found)
            if one.finish == "length" and _may_begin_with(words_of(one.text), wanted[number])
        ]
        if open_ and max_new_tokens > FIRST_LOOK:
            longer = replace(greedy, max_new_tokens=max_new_tokens)
            rest = asyncio.run(self._generate([requests[number] for number in open_], [longer] * len(open_)))
            for number, one in zip(open_, rest, strict=True):
                said[number] = one.text
        return [_first_line(text) for text in said]

    async def _generate(self, requests: Sequence[ReplyRequest], drawn: Sequence[Sampling]) -> list[Completion]:
        places = asyncio.Semaphore(IN_FLIGHT)
        half = self._generator.context_length // 2

        async def one(request: ReplyRequest, sampling: Sampling) -> Completion:
            sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, half))
            async with places:
                return await self._generator.generate(
                    self._prompt(request, sampling), sampling=sampling, adapter=request.adapter
                )

        # Prompts of similar length together, so that a batch takes about as long for each.
        order = sorted(range(len(requests)), key=lambda at: sum(len(turn.text) for turn in requests[at].before))
        found = await asyncio.gather(*(one(requests[at], drawn[at]) for at in order))
        return [completion for _, completion in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]

    def _prompt(self, request: ReplyRequest, sampling: Sampling) -> str:
        begun = f" {request.begun}" if request.begun else ""
        room = self._generator.context_length - sampling.max_new_tokens
        taken = self._generator.count_tokens(begun) if begun else 0
        kept = fit(request.before, budget=max(8, room - taken), count=self._generator.count_tokens)
        return f"{prompt(kept)}{begun}"


@contextmanager
def reply_generator(base: str) -> Iterator[ReplyGenerator]:
    """For a base, a folder or a hub name; its memory is freed at the end of the block. Raises ModelError at the first
    request."""
    generator = ReplyGenerator(partial(_load, base))
    try:
        yield generator
    finally:
        generator.close()


def _load(base: str) -> Generator:
    if device().type == "cuda":
        from core.generator import transformers

        return transformers.load(base, queue_limit=IN_FLIGHT, templated=False)
    from core.generator import engine

    return engine.load(base, queue_limit=IN_FLIGHT, templated=False)


def _may_begin_with(words: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether it could still begin with the wanted words; the last word may be unfinished."""
    known = words[:-1][: len(wanted)]
    return list(known) == list(wanted[: len(known)])


def _first_line(text: str) -> str:
    return one_line(text.split("\n", 1)[0])


def distinct_2(replies: Iterable[str]) -> float:
    """Different word pairs over all word pairs of all replies (Li et al. 2016, arXiv:1510.03055). It falls as replies
    are added, so only equal numbers of replies compare."""
    pairs = [pair for reply in replies for pair in pairwise(words_of(reply))]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def is_empty(reply: str, before: Dialogue = ()) -> bool:
    """Nothing said, or nothing new: no letter, repetition, or an echo of the other's last line."""
    if not _LETTERS.search(reply):
        return True
    words = words_of(reply)
    if before and words == words_of(before[-1].text) and len(words) > 2:
        return True
    run = 1
    for word, following in pairwise(words):
        run = run + 1 if word == following else 1
        if run >= REPEATS:
            return True
    threes = [tuple(words[at : at + 3]) for at in range(len(words) - 2)]
    return any(threes.count(three) >= REPEATS for three in set(threes))
