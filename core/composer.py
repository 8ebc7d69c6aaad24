"""A stored message → a reply: context, prompt, candidates, and the one that is chosen and stored.

Knows the interfaces of memory and generator; whether to answer at all, and in what order, is decided by `core.chat`.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from core import dialogue, notices, policy, replies, reranking
from core.blocked_words import BlockedWords
from core.errors import NumericalError
from core.forgotten import Forgotten
from core.generator import Adapter, Completion, Generator, Sampling
from core.memory import ChannelSettings, Exchange, Memory, Remembered
from core.messages import Conversation, Kind, Message, Reply
from core.recall import recalled

SelectAdapter: TypeAlias = Callable[[Conversation, str | None], Awaitable[Adapter | None]]
"""Which adapter answers in a conversation; the text is the channel's own choice, None where it made none."""

AdapterFailed: TypeAlias = Callable[[Adapter, Exception], Awaitable[None]]
"""Called with an adapter whose numbers overflow, so that another one is used."""

WINDOW = 40
"""Messages read back for a prompt; more than a 1,024-token context holds of real chat (about 15 tokens a turn)."""

RECALL_AMONG = 2_000
"""Newest exchanges with a member that are searched for related ones; 13 ms of processor time among 100,000 rows."""

RECALL_SHARE = 4
"""Recalled exchanges may take up to one part in so many of the prompt's tokens."""

RECALLED = "recalled"
"""Key in a reply's details of the rows of the exchanges that were recalled for it."""

ATTEMPTS = 3
"""Generations before a fixed sentence is posted in place of empty or copied replies, and before a reply with the wrong
sentiment is posted anyway."""
TEMPERATURE_STEP = 0.3
"""Added to the temperature with each further attempt: at 0.4 a model draws much the same again."""


class Composer:
    def __init__(
        self,
        *,
        memory: Memory,
        generator: Generator,
        select_adapter: SelectAdapter,
        adapter_failed: AdapterFailed | None = None,
        sampling: Sampling,
        persona: str = "",
        blocked: BlockedWords | None = None,
        forgotten: Forgotten | None = None,
        recall: bool = False,
        rng: random.Random,
        clock: Callable[[], datetime],
    ) -> None:
        self._memory = memory
        self._generator = generator
        self._select_adapter = select_adapter
        self._adapter_failed = adapter_failed
        self._sampling = sampling
        self._persona = persona
        self._blocked = blocked
        self._forgotten = forgotten
        self._recall = recall
        self._rng = rng
        self._clock = clock

    async def compose(
        self, message: Message, row: int, chosen: ChannelSettings, *, why: policy.Why, replacing: int | None = None
    ) -> Reply | None:
        """Answer the stored `message`, in place of the reply `replacing` where there is one, and store the answer.

        None where the message was deleted meanwhile. Raises GeneratorError, AdapterError, StorageError.
        """
        context = [said for said in await self._context(message, row) if said.row != replacing]
        if not any(said.row == row for said in context):
            return None
        turns = dialogue.project(said.message for said in context)
        sampling = self._sampling
        if chosen.temperature is not None:
            sampling = replace(sampling, temperature=chosen.temperature)
        budget = self._generator.context_length - sampling.max_new_tokens
        front: list[Exchange] = []
        if self._recall if chosen.recall is None else chosen.recall:
            front = await asyncio.to_thread(self._recalled, message, row, context, budget // RECALL_SHARE)
            budget -= self._tokens(front)
        kept = await asyncio.to_thread(dialogue.fit, turns, budget=budget, count=self._generator.count_tokens)
        given = await asyncio.to_thread(self._memory.answers, row) if replacing is not None else []
        request = _DrawRequest(
            prompt=dialogue.prompt([*(turn for each in front for turn in _turns(each)), *kept]),
            conversation=message.conversation,
            adapter_override=chosen.voice,
            sampling=sampling,
            persona=self._persona if chosen.persona is None else chosen.persona,
            # Earlier answers may be given again where nothing else comes, but not the one that is being replaced.
            said=[*(each.answer for each in front), *(each.message.text for each in context), *given[-1:]],
            given=given,
            asker=message.author_name,
        )
        drawn = await self._draw(request)
        if not isinstance(drawn, _Drawn):
            notice = message.conversation.kind is Kind.CHANNEL or drawn is _Fallback.BLOCKED
            return Reply(text=drawn, answers=message.id, notice=notice, question=message)
        completion = drawn.completion
        details = self._details(drawn, sampling, turns=len(kept), why=why)
        if front:  # by row, so that words forgotten later are not kept here
            details[RECALLED] = " ".join(str(each.row) for each in front)
        stored = await asyncio.to_thread(
            self._memory.remember_reply,
            drawn.text,
            answers=row,
            sent_at=self._clock(),
            adapter=completion.adapter,
            details=details,
            replaces=replacing,
            question=message.id,
        )
        if stored is None:
            return None
        return Reply(
            text=drawn.text,
            answers=message.id,
            row=stored,
            adapter=completion.adapter,
            details=details,
            question=message,
        )

    def _details(
        self, drawn: "_Drawn", sampling: Sampling, *, turns: int, why: policy.Why
    ) -> dict[str, str | int | float]:
        """How a reply was made, for “why?”."""
        completion = drawn.completion
        return {
            "model": self._generator.status().model,
            "adapter": completion.adapter or "none",
            "temperature": round(drawn.temperature, 2),
            "top_p": sampling.top_p,
            "repetition_penalty": sampling.repetition_penalty,
            "best of": sampling.best_of,
            "seed": completion.seed,
            "turns of context": turns,
            "prompt tokens": completion.prompt_tokens,
            "drawn": drawn.drawn,
            "seconds": round(completion.seconds, 2),
            "answered because": str(why),
        }

    def _recalled(self, message: Message, row: int, context: Sequence[Remembered], budget: int) -> list[Exchange]:
        """Earlier exchanges with the asker that are related to this message and not in its context, within a budget of
        tokens. Blocks."""
        in_view = {said.row for said in context}
        old = self._memory.exchanges_before(message, row, limit=RECALL_AMONG)
        found: list[Exchange] = []
        for each in recalled(message.text, [each for each in old if each.row not in in_view], now=message.sent_at):
            if self._tokens([*found, each]) <= budget:
                found.append(each)
        return found

    def _tokens(self, exchanges: Sequence[Exchange]) -> int:
        return self._generator.count_tokens(dialogue.render(turn for each in exchanges for turn in _turns(each)))

    async def _draw(self, request: "_DrawRequest") -> "_Drawn | _Fallback":
        """The best candidate that may be posted, or a fixed sentence where none may.

        Where the best one was given before, has the wrong sentiment or says a blocked word, candidates are drawn again
        at a higher temperature. Where nothing better comes, it is kept unless it says a blocked word.
        """
        sampling, kept, was_blocked = request.sampling, None, False
        best: tuple[bool, ...] = ()  # of what is kept: whether it is new, and whether its sentiment fits
        for _ in range(ATTEMPTS):
            completion = await self._generate(request, sampling)
            if completion is None:
                continue
            found = reranking.scored(request.prompt, completion.candidates)
            for candidate, _ in found:
                text = replies.clean(replies.with_asker_name(candidate.text, request.asker), said=request.said)
                if text and await self._is_blocked(text, request.conversation.platform):
                    was_blocked = True
                    continue
                fits = (
                    not replies.among(text, request.given),
                    not reranking.is_sentiment_mismatch(request.prompt, text),
                )
                if text and fits > best:
                    shown = reranking.describe_candidates(found)
                    kept, best = _Drawn(text, completion, sampling.temperature, shown), fits
            if best and all(best):
                break
            if request.given or kept is not None or was_blocked:
                sampling = replace(sampling, temperature=sampling.temperature + TEMPERATURE_STEP)
        if kept is None:
            return _Fallback.BLOCKED if was_blocked else _Fallback.WORDLESS
        return kept

    async def _is_blocked(self, text: str, platform: str) -> bool:
        """Whether a text says a word of the operator's list, or the name of a member who was forgotten."""
        if self._blocked is not None and self._blocked.find(text) is not None:
            return True
        return self._forgotten is not None and await asyncio.to_thread(self._forgotten.names_somebody, text, platform)

    async def _generate(self, request: "_DrawRequest", sampling: Sampling) -> Completion | None:
        """None where the adapter's numbers overflowed: that was reported, and another one is used from now on."""
        adapter = await self._select_adapter(request.conversation, request.adapter_override)
        try:
            return await self._generator.generate(
                request.prompt,
                sampling=replace(sampling, seed=self._rng.getrandbits(31)),
                adapter=adapter,
                conversation=request.conversation.key,
                persona=request.persona,
            )
        except NumericalError as error:
            if adapter is None or self._adapter_failed is None:
                raise
            await self._adapter_failed(adapter, error)
            return None

    async def _context(self, message: Message, row: int) -> list[Remembered]:
        """The reply chain or thread where there is one, else the conversation's recent messages since the last reset.

        A message that opens a thread belongs to the channel, so the channel is its context; later ones have the thread
        and the channel message that it started from. A message from before the last reset has no context.
        """
        where = message.conversation
        if message.reply_to is not None and where.kind is Kind.CHANNEL:
            chain = await asyncio.to_thread(self._memory.chain, row, WINDOW)
            if len(chain) > 1:
                return chain
        talk = await asyncio.to_thread(self._memory.window, where, limit=WINDOW, until=row)
        if not any(said.row == row for said in talk):
            return await asyncio.to_thread(self._memory.chain, row, 1)
        if where.kind is not Kind.THREAD or len(talk) >= WINDOW:
            return talk
        if message.id == where.thread:
            channel = replace(where, thread=None, kind=Kind.CHANNEL)
            before = await asyncio.to_thread(self._memory.window, channel, limit=WINDOW - len(talk), until=row)
            return [*before, *talk]
        root = await asyncio.to_thread(self._memory.root, where)
        return talk if root is None or any(said.row == root.row for said in talk) else [root, *talk]


def _turns(exchange: Exchange) -> list[dialogue.Turn]:
    return [
        dialogue.Turn(dialogue.Speaker.PERSON1, exchange.said),
        dialogue.Turn(dialogue.Speaker.PERSON2, exchange.answer),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _DrawRequest:
    """What is asked of the generator, and what the reply must not repeat."""

    prompt: str
    conversation: Conversation
    adapter_override: str | None
    """The adapter that the channel chose for itself (an id, `none` or `current`); None where it chose none."""
    sampling: Sampling
    persona: str
    said: list[str]
    given: list[str]
    asker: str
    """The asker's name, for a model that calls people by their tag (`core.replies.with_asker_name`)."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    text: str
    completion: Completion
    temperature: float
    drawn: str
    """The candidates it was chosen from, for “why?”."""


class _Fallback(StrEnum):
    """What is posted where no candidate may be."""

    WORDLESS = replies.LOST_FOR_WORDS
    BLOCKED = notices.UNSAYABLE
