"""Hear a message → remember → decide → prompt → generate → remember → reply.

The one door through which every platform, command and button enters. Knows memory and the generator by their faces and
no platform; what a platform shows while the bot thinks is passed in.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from typing import TypeAlias
from weakref import WeakValueDictionary

from core import dialogue, policy, replies
from core.errors import GeneratorError, NumericalError, Overloaded
from core.generator import Adapter, Generator, Sampling, choice
from core.memory import ChannelSettings, Memory, Remembered, Removed
from core.messages import Conversation, Kind, Message, Reply
from core.underway import Underway

log = logging.getLogger(__name__)

Thinking = Callable[[], AbstractAsyncContextManager[object]]
"""Makes what a platform shows while a reply is composed: a typing indicator, a status."""

VoiceOf = Callable[[Conversation, str | None], Awaitable[Adapter | None]]
"""Which adapter speaks in a conversation; the text is the channel's own choice, None where it made none."""
VoiceFailed = Callable[[Adapter, Exception], Awaitable[None]]
"""Told of an adapter whose numbers overflow, so that another one speaks."""

Locks: TypeAlias = "WeakValueDictionary[str, asyncio.Lock]"

WINDOW = 40
"""Messages read back for a prompt; more than a 1,024-token context holds of real chat (about 15 tokens a turn)."""

ATTEMPTS = 3
"""Generations before an empty or copied reply becomes a plain sentence, and a heartless one is said all the same."""
WARMER = 0.3
"""Added to the temperature with each further try at a better or another answer: a model drawn at 0.4 has few first
choices."""

TOO_FAST = "That was a lot at once: give me a minute, then ask again."
CROWDED = "A few people are ahead of you: try again in a moment."
WORDLESS = "I read text only: write me something and I'll answer."
BROKEN = "Something went wrong while I was thinking. Ask me again; if it keeps happening, tell my operator."


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    sampling: Sampling = field(default_factory=Sampling)
    rules: policy.Rules = field(default_factory=policy.Rules)
    user_rate: int = 12
    """Answers a member may ask for per minute; 0 for no limit."""


class Chat:
    """A running conversation partner over one memory and one generator; shared by every bot of a process."""

    def __init__(
        self,
        *,
        memory: Memory,
        generator: Generator,
        voice: VoiceOf,
        settings: ChatSettings,
        voice_failed: VoiceFailed | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        dice: random.Random | None = None,
    ) -> None:
        self.memory = memory
        self.generator = generator
        self.settings = settings
        self._voice = voice
        self._voice_failed = voice_failed
        self._clock = clock
        self._dice = dice or random.Random()  # noqa: S311 - chance of ambient talk and sampling seeds, no secret
        self._ears: Locks = WeakValueDictionary()
        self._mouths: Locks = WeakValueDictionary()
        self._asked: dict[tuple[str, str], deque[datetime]] = {}
        self._last_ambient: dict[str, datetime] = {}
        self._in_a_row: dict[str, int] = {}
        self._said_wordless: deque[tuple[str, str]] = deque(maxlen=1000)
        self._underway = Underway()

    async def hear(
        self, message: Message, *, thinking: Thinking = nullcontext, heard: Callable[[], object] | None = None
    ) -> Reply | None:
        """Take in one message of a channel and answer it if the policy says so.

        None where nothing is to be posted: not addressed, already heard (redelivered events are harmless), not allowed
        here. A Reply with `notice` tells the asker alone that the bot cannot answer now. `heard` is called once the
        message is stored, so that a platform can take in a burst in order without waiting for the answers. Raises
        StorageError.
        """
        conversation = message.conversation
        # A channel's messages are stored in the order they arrived in, its threads' among them: a thread's first
        # message is said into the channel's talk.
        async with self._lock(self._ears, replace(conversation, thread=None)):
            chosen = await asyncio.to_thread(self.memory.channel_settings, conversation)
            decision = self._decide(message, chosen)
            if not decision.remember:
                return self._wordless(message, chosen) if decision.why is policy.Why.EMPTY else None
            row = await asyncio.to_thread(self.memory.remember, message)
        if row is None:
            log.debug("heard twice, answered once: %s %s", conversation.key, message.id)
            return None
        if heard is not None:
            heard()
        if not message.from_bot:
            self._in_a_row[conversation.key] = 0
        if not decision.answer:
            return None
        if decision.why is policy.Why.AMBIENT:
            self._last_ambient[conversation.key] = message.sent_at
        elif self._too_fast(message):
            return Reply(text=TOO_FAST, answers=message.id, notice=True)
        return await self._answer(message, row, chosen, why=decision.why, thinking=thinking)

    async def ask(self, message: Message, *, thinking: Thinking = nullcontext) -> Reply | None:
        """Answer a question put by command: no policy but the allowlist and the rate. None for a redelivered one."""
        chosen = await asyncio.to_thread(self.memory.channel_settings, message.conversation)
        if not dialogue.one_line(message.text):
            return Reply(text="Ask me something: the question was empty.", notice=True)
        if not policy.allowed(message, self._rules(chosen)):
            return Reply(text="I am not allowed to talk in this channel; ask its admins.", notice=True)
        row = await asyncio.to_thread(self.memory.remember, message)
        if row is None:
            return None
        self._in_a_row[message.conversation.key] = 0
        if self._too_fast(message):
            return Reply(text=TOO_FAST, answers=message.id, notice=True)
        return await self._answer(message, row, chosen, why=policy.Why.COMMAND, thinking=thinking)

    async def again(
        self,
        conversation: Conversation,
        *,
        post: str | None = None,
        whole_channel: bool = False,
        thinking: Thinking = nullcontext,
    ) -> tuple[Reply, tuple[str, ...]]:
        """Another answer in place of the one posted as `post`, or of the last one here; with `whole_channel` also of
        the last one in a thread of the channel. An answer still on its way is waited for.

        Gives the new reply and the ids of the posts it replaces; the old reply leaves the context (and counts as
        disliked when it comes to learning). No answer to the question is repeated while something else comes, and
        the replaced one, if it is long, never.
        """
        if post is None:
            await self._underway.settled(conversation, thinking=True, threads=whole_channel)
        else:
            await self._underway.settled(conversation)
        found = await asyncio.to_thread(self.memory.last_reply, conversation, post, whole_channel=whole_channel)
        if found is None:
            return Reply(text="There is nothing of mine here to answer again.", notice=True), ()
        question, old, posts = found
        chosen = await asyncio.to_thread(self.memory.channel_settings, conversation)
        reply = await self._answer(
            question.message, question.row, chosen, why=policy.Why.COMMAND, thinking=thinking, replacing=old
        )
        return reply, posts if not reply.notice else ()

    async def reset(self, conversation: Conversation, *, whole_channel: bool = False) -> None:
        """Begin a new conversation here, with `whole_channel` in the channel's threads too: what was said stays stored
        but is no longer context. A message being stored belongs to the old one."""
        async with self._lock(self._ears, replace(conversation, thread=None)):
            await asyncio.to_thread(self.memory.reset, conversation, whole_channel=whole_channel)

    async def edited(self, conversation: Conversation, message: str, text: str) -> bool:
        """Take over a message edited on the platform; False if it is not stored. One being stored is waited for."""
        async with self._lock(self._ears, replace(conversation, thread=None)):
            return await asyncio.to_thread(self.memory.edit, conversation, message, text)

    async def removed(self, conversation: Conversation, messages: Sequence[str]) -> Removed:
        """Forget messages deleted on the platform; a post of ours takes the stored reply with it, once it stands."""
        async with self._lock(self._ears, replace(conversation, thread=None)):
            pass  # one being stored gets to be stored, but an answer being posted must not hold up the channel
        await self._underway.settled(conversation)
        return await asyncio.to_thread(self.memory.remove, conversation, messages)

    async def closed(self, conversation: Conversation) -> Removed:
        """Forget all that was said in a thread deleted on the platform, or in a channel with its threads."""
        async with self._lock(self._ears, replace(conversation, thread=None)):
            pass
        await self._underway.settled(conversation)
        return await asyncio.to_thread(self.memory.remove_place, conversation)

    async def feedback(
        self, conversation: Conversation, post: str, member: str | None, liked: bool | None, *, was: bool | None = None
    ) -> bool:
        """A member's 👍 (True), 👎 (False) or their taking it back (None; with `was` only that one) on a post of ours;
        False if it is none. Without a member everybody's are taken back. A post may be judged before the platform
        confirmed it to us."""
        await self._underway.settled(conversation)
        return await asyncio.to_thread(self.memory.feedback, conversation, post, member, liked, self._clock(), was=was)

    async def reply_of(self, conversation: Conversation, post: str) -> int | None:
        """The row of the reply posted as `post`; None if that is no post of ours."""
        await self._underway.settled(conversation)
        return await asyncio.to_thread(self.memory.reply_of, conversation, post)

    async def posted(self, reply: Reply, conversation: Conversation, posts: Sequence[str]) -> None:
        """Remember under which message ids a platform posted a reply: replies, reactions and `again` name them.

        Every reply must end here, with no posts where it could not be posted: until then whoever asks for the
        channel's posts is made to wait.
        """
        if reply.row is None:
            return
        try:
            if posts:
                await asyncio.to_thread(self.memory.posted, reply.row, conversation, posts)
        finally:
            self._underway.posted(reply.row)

    def _lock(self, locks: Locks, conversation: Conversation) -> asyncio.Lock:
        """One lock a conversation, first come first served; gone when nobody holds or awaits it."""
        return locks.setdefault(conversation.key, asyncio.Lock())

    def _rules(self, chosen: ChannelSettings) -> policy.Rules:
        rules = self.settings.rules
        if chosen.allowed is not None:
            rules = replace(rules, allowed_here=chosen.allowed)
        if chosen.ambient_chance is not None:
            rules = replace(rules, ambient_chance=chosen.ambient_chance)
        return rules

    def _decide(self, message: Message, chosen: ChannelSettings) -> policy.Decision:
        key = message.conversation.key
        recent = policy.Recent(last_ambient=self._last_ambient.get(key), in_a_row=self._in_a_row.get(key, 0))
        local: time = self._clock().astimezone().time()
        return policy.decide(message, self._rules(chosen), recent, roll=self._dice.random(), local_time=local)

    def _wordless(self, message: Message, chosen: ChannelSettings) -> Reply | None:
        """A bare mention, a picture, a sticker: say once that we read text, where we may speak and were addressed."""
        addressed = message.mentions_bot or message.replies_to_bot or message.conversation.kind is Kind.DIRECT
        known = (message.conversation.key, message.id)
        if not addressed or known in self._said_wordless or not policy.allowed(message, self._rules(chosen)):
            return None
        self._said_wordless.append(known)
        return None if self._too_fast(message) else Reply(text=WORDLESS, answers=message.id, notice=True)

    def _too_fast(self, message: Message) -> bool:
        """Count this question of the member; true when it is over the rate."""
        limit = self.settings.user_rate
        if limit <= 0:
            return False
        now = self._clock()
        asked = self._asked.setdefault((message.conversation.platform, message.author), deque())
        while asked and now - asked[0] > timedelta(minutes=1):
            asked.popleft()
        if len(asked) >= limit:
            return True
        asked.append(now)
        if len(self._asked) > 10_000:  # members of the last minute are few; keep the table from growing for ever
            self._asked = {
                who: times for who, times in self._asked.items() if times and now - times[-1] < timedelta(minutes=1)
            }
        return False

    async def _answer(
        self,
        message: Message,
        row: int,
        chosen: ChannelSettings,
        *,
        why: policy.Why,
        thinking: Thinking,
        replacing: int | None = None,
    ) -> Reply:
        conversation = message.conversation
        turn = self._underway.begin(conversation)
        try:
            async with thinking(), self._lock(self._mouths, conversation):
                reply = await self._compose(message, row, chosen, why=why, replacing=replacing)
        except Overloaded as error:
            reply = Reply(text=str(error) or CROWDED, answers=message.id, notice=True)
        except GeneratorError as error:
            log.exception("no reply in %s", conversation.key)
            reply = Reply(text=str(error) or BROKEN, answers=message.id, notice=True)
        except BaseException:
            self._underway.end(turn)
            raise
        self._underway.said(turn, reply.row)
        return reply

    async def _compose(
        self, message: Message, row: int, chosen: ChannelSettings, *, why: policy.Why, replacing: int | None
    ) -> Reply:
        conversation = message.conversation
        context = [said for said in await self._context(message, row) if said.row != replacing]
        turns = dialogue.project(said.message for said in context)
        sampling = self.settings.sampling
        if chosen.temperature is not None:
            sampling = replace(sampling, temperature=chosen.temperature)
        budget = self.generator.context_length - sampling.max_new_tokens
        kept = await asyncio.to_thread(dialogue.fit, turns, budget=budget, count=self.generator.count_tokens)
        prompt = dialogue.prompt(kept)
        adapter = await self._voice(conversation, chosen.voice)
        said = [turn.text for turn in turns]
        given = await asyncio.to_thread(self.memory.answers, row) if replacing is not None else []
        said += given[-1:]  # the one replaced; of the earlier ones one may come back where nothing else comes
        text = ""
        best: tuple[bool, ...] = ()  # whether what is kept is new, and whether it shares the feeling
        for _ in range(ATTEMPTS):
            try:
                drawn = await self.generator.generate(
                    prompt,
                    sampling=replace(sampling, seed=self._dice.getrandbits(31)),
                    adapter=adapter,
                    conversation=conversation.key,
                )
            except NumericalError as error:
                if adapter is None or self._voice_failed is None:
                    raise
                await self._voice_failed(adapter, error)
                adapter = await self._voice(conversation, chosen.voice)
                continue
            if clean := choice.without_strangers(prompt, replies.clean(drawn.text, said=said)):
                fits = (not replies.among(clean, given), not choice.is_heartless(prompt, clean))
                if fits > best:
                    text, completion, temperature, best = clean, drawn, sampling.temperature, fits
                if all(fits):
                    break
            if given or clean:
                sampling = replace(sampling, temperature=sampling.temperature + WARMER)
        if not text:
            return Reply(text=replies.LOST_FOR_WORDS, answers=message.id, notice=conversation.kind is Kind.CHANNEL)
        details: dict[str, str | int | float] = {
            "model": self.generator.status().model,
            "adapter": completion.adapter or "none",
            "temperature": round(temperature, 2),
            "top_p": sampling.top_p,
            "repetition_penalty": sampling.repetition_penalty,
            "best of": sampling.best_of,
            "seed": completion.seed,
            "turns of context": len(kept),
            "prompt tokens": completion.prompt_tokens,
            "seconds": round(completion.seconds, 2),
            "answered because": str(why),
        }
        stored = await asyncio.to_thread(
            self.memory.remember_reply,
            text,
            answers=row,
            sent_at=self._clock(),
            adapter=completion.adapter,
            details=details,
            replaces=replacing,
            question=message.id,
        )
        self._in_a_row[conversation.key] = self._in_a_row.get(conversation.key, 0) + 1
        return Reply(
            text=text,
            answers=message.id,
            row=stored,
            adapter=completion.adapter,
            details=details,
            question=message,
        )

    async def _context(self, message: Message, row: int) -> list[Remembered]:
        """The reply chain or thread where there is one, else the conversation's recent talk since the last reset.

        A message that opens a thread is said into the channel's talk, so that is its context; later ones have the
        thread, with the message of the channel it hangs from.
        """
        where = message.conversation
        if message.reply_to is not None:
            await self._underway.settled(where)  # what it answers may have been posted a moment ago
        if message.reply_to is not None and where.kind is Kind.CHANNEL:
            chain = await asyncio.to_thread(self.memory.chain, row, WINDOW)
            if len(chain) > 1:
                return chain
        talk = await asyncio.to_thread(self.memory.window, where, limit=WINDOW, until=row)
        if where.kind is not Kind.THREAD or len(talk) >= WINDOW:
            return talk
        if message.id == where.thread:
            channel = replace(where, thread=None, kind=Kind.CHANNEL)
            before = await asyncio.to_thread(self.memory.window, channel, limit=WINDOW - len(talk), until=row)
            return [*before, *talk]
        root = await asyncio.to_thread(self.memory.root, where)
        return talk if root is None or any(said.row == root.row for said in talk) else [root, *talk]
