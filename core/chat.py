"""A message is heard → stored → decided on → answered → posted → the ids of its posts are stored.

Every platform, command and button enters here. Knows the interface of memory and no platform; what a platform shows
while the bot thinks is passed in.

What a platform does, and all it has to do:

- `hear(message)` for what is said, `edited(message)` for an edit, in the order in which they happened: a call takes its
  place in the channel's order at once, so a platform looks nothing up before the call (names are looked up by
  `complete`, after the message is stored). `reworded`, `removed`, `closed`, `feedback` and `reset`
  keep the same order. No platform needs a lock of its own, nor to know which threads we are in.
- A `Reply` is posted and ends in `posted(reply, conversation, ids)`. No ids means that it could not be posted: it is
  forgotten, and the platform tells the asker in whatever way is left. Where it was posted but the platform does not
  tell the ids, pass `stands=True`. None in place of a Reply means that nothing is to be posted, even after a typing
  indicator was shown.
- Once it can post, it asks for `unanswered(platform)` and passes each question to `resume`, whose reply is posted and
  noted like any other. Where `reply.resumed` is set, the platform first checks whether it was posted already.
- When the process is told to stop, `drain` is awaited first, while the platform still posts. `hear` then stores
  messages but answers none; they are answered after the next start.
- Failures are logged by `core.failures.log_failure`; `core.notices.apology` is what the member reads.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from core import dialogue, notices, policy
from core.activity import ActivityTracker
from core.blocked_words import BlockedWords
from core.bursts import Bursts
from core.changes import Changes
from core.composer import AdapterFailed, Composer, SelectAdapter
from core.earlier_process import ANSWER_WITHIN, EarlierProcess
from core.forgotten import Forgotten, Hash
from core.generator import Generator, Sampling
from core.lookups import Lookups
from core.memory import ChannelSettings, Memory, Remembered, Unanswered
from core.messages import Conversation, Kind, Message, Reply
from core.openings import LookUp, Openings
from core.policy import Why
from core.responder import Responder, Thinking

log = logging.getLogger(__name__)

RESET = "reset"
"""Said to the bot alone in a thread, this is the command: not every platform takes commands in threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    sampling: Sampling = field(default_factory=Sampling)
    rules: policy.Rules = field(default_factory=policy.Rules)
    blocked: BlockedWords | None = None
    """Words that the bot must not say."""
    recall: bool = False
    """Whether related earlier exchanges are put before the prompt, unless the channel sets it otherwise."""
    people_hash: Hash | None = None
    """The keyed hash by which members who were forgotten, and their names, are recognised."""
    user_rate: int = 12
    """Answers a member may ask for per minute; 0 for no limit."""
    persona: str = ""
    """Who the bot is (`core.generator.persona`), unless the channel sets another."""
    retention_days: int | None = None
    """Days after which messages are purged, unless the channel sets another number."""
    burst: float = 0.0
    """Seconds without another message after which somebody is answered; 0 answers each message at once."""


class Chat:
    """The bot itself, over one memory and one generator; shared by every platform of a process."""

    def __init__(
        self,
        *,
        memory: Memory,
        generator: Generator,
        select_adapter: SelectAdapter,
        settings: ChatSettings,
        adapter_failed: AdapterFailed | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        self.memory = memory
        self.generator = generator
        self.settings = settings
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - chance of ambient talk and sampling seeds, no secret
        forgotten = Forgotten(memory, settings.people_hash) if settings.people_hash is not None else None
        composer = Composer(
            memory=memory,
            generator=generator,
            select_adapter=select_adapter,
            adapter_failed=adapter_failed,
            sampling=settings.sampling,
            persona=settings.persona,
            blocked=settings.blocked,
            forgotten=forgotten,
            recall=settings.recall,
            rng=self._rng,
            clock=clock,
        )
        self._responder = Responder(memory=memory, composer=composer, clock=clock)
        self._pending = self._responder.pending
        self._lookups = Lookups(memory)
        self._activity = ActivityTracker(settings.rules, user_rate=settings.user_rate, rng=self._rng, clock=clock)
        self._bursts = Bursts(settings.burst)
        self._changes = changes = Changes(memory, self._pending, clock)
        self._openings = Openings(
            memory, self._activity, changes, retention_days=settings.retention_days, forgotten=forgotten, clock=clock
        )
        self.reset, self.reworded, self.removed = changes.reset, changes.reworded, changes.removed
        self.closed, self.moved = changes.closed, changes.moved
        self.feedback, self.reply_of, self.newest_reply = changes.feedback, changes.reply_of, changes.newest_reply
        self._earlier = EarlierProcess(memory, clock)
        self.unanswered = self._earlier.unanswered
        self.draining = False
        """The process is about to stop: no answer is begun any more."""

    # What is said

    async def hear(
        self,
        message: Message,
        *,
        thinking: Thinking = nullcontext,
        heard: Callable[[], object] | None = None,
        complete: Callable[[], Awaitable[Message]] | None = None,
        opening: LookUp | None = None,
    ) -> Reply | None:
        """Take in one message of a channel and answer it if the policy says so.

        None where nothing is to be posted: not addressed, already heard (redelivered events are harmless), not allowed
        here, deleted meanwhile. A Reply with `notice` tells the asker alone that the bot cannot answer now. `heard` is
        called once the message is stored. `complete` gives the message with what takes a while to look up (names);
        it is awaited before anything is answered, not before the message is stored. `opening` looks up what opened the
        thread; it is asked once, where the bot is new to a thread. Raises StorageError where the message could not be
        stored.
        """
        async with self._changes.ingest(message.conversation):
            chosen, message = await self._looked_up(message)
            if self._changes.was_removed(message):
                return None
            self._activity.heard(message)
            decision = self._activity.decide(message, chosen)
            if decision.why is Why.EMPTY:
                return self._wordless(message, chosen)
            if decision.why is Why.NO_DIRECT and not self.draining:
                return self._responder.notice(notices.NO_DIRECT, message)
            if not decision.remember:
                return None
            if decision.answer and _says_reset(message):
                await asyncio.to_thread(self.memory.reset, message.conversation)
                return Reply(text=notices.LEFT, answers=message.id, notice=True)
            row = await self._remember(message, decision)
        if row is None:
            log.debug("received twice, answered once: %s %s", message.conversation.key, message.id)
            return None
        if heard is not None:
            heard()
        burst = self._bursts.take(message, decision)
        if complete is not None:
            message = await self._lookups.complete(message, row, complete)
        why: Why = decision.why
        if not decision.answer and await self._answers_us_after_all(message, row):
            why = Why.REPLY
        elif burst is not None:
            if not await burst.ends_with(message):
                return await self._responder.give_up(row, None)  # answered with what came after
            if not decision.answer:
                why = burst.why
                await asyncio.to_thread(self.memory.ask, row, str(why))
        elif not decision.answer:
            return None
        if why is Why.AMBIENT:
            self._activity.answers_unasked(message)
        elif not self.draining and self._activity.too_fast(message):
            return await self._responder.give_up(row, self._responder.notice(notices.TOO_FAST, message))
        return await self._answer(message, row, chosen, why=why, thinking=thinking, opening=opening)

    async def edited(
        self, message: Message, *, thinking: Thinking = nullcontext, opening: LookUp | None = None
    ) -> Reply | None:
        """Store a message as it reads after an edit on the platform; `opening` is that of `hear`.

        An edit to nothing deletes it. One that makes a message of the last minutes address the bot is answered, once;
        what was answered, or is being answered, is not answered again.
        """
        if not dialogue.one_line(message.text):
            await self._changes.remove(message.conversation, [message.id])
            return None
        async with self._changes.ingest(message.conversation):
            chosen, message = await self._looked_up(message)
            if not self._activity.allowed(message, chosen) or self._changes.was_removed(message):
                return None
            known = await asyncio.to_thread(self.memory.edit_message, message)
            recent = self._clock() - message.sent_at <= ANSWER_WITHIN
            named = message.mentions_bot or message.replies_to_bot
            if not named or (known is None and not recent) or (known is not None and known[1]):
                return None
            decision = self._activity.decide(message, chosen)
            if not decision.answer:
                return None
            if known is None:  # a picture that was given words
                row = await self._remember(message, decision)
            else:
                row = known[0]
                await asyncio.to_thread(self.memory.ask, row, str(decision.why))
        if row is None:
            return None
        if not self.draining and self._activity.too_fast(message):
            return await self._responder.give_up(row, self._responder.notice(notices.TOO_FAST, message))
        return await self._answer(message, row, chosen, why=decision.why, thinking=thinking, opening=opening)

    async def ask(
        self,
        message: Message,
        *,
        thinking: Thinking = nullcontext,
        heard: Callable[[], object] | None = None,
        complete: Callable[[], Awaitable[Message]] | None = None,
    ) -> Reply | None:
        """Answer a question put by command: no policy but the allowlist and the rate. None for a redelivered one, and
        for one deleted meanwhile. `heard` and `complete` are those of `hear`. Raises StorageError."""
        if not dialogue.one_line(message.text):
            return Reply(text=notices.NO_QUESTION, notice=True)
        async with self._changes.ingest(message.conversation):
            chosen, message = await self._looked_up(message)
            if why := self._activity.refused(message, chosen):
                return Reply(text=notices.REFUSED[why], notice=True)
            self._activity.heard(message)
            row = await self._remember(message, policy.Decision(Why.COMMAND))
        if row is None:
            return None
        if heard is not None:
            heard()
        if complete is not None:
            message = await self._lookups.complete(message, row, complete)
        if self.draining:
            return await self._responder.give_up(row, Reply(text=notices.RESTARTING, answers=message.id, notice=True))
        if self._activity.too_fast(message):
            return await self._responder.give_up(row, Reply(text=notices.TOO_FAST, answers=message.id, notice=True))
        return await self._answer(message, row, chosen, why=Why.COMMAND, thinking=thinking)

    async def again(
        self,
        asker: Message,
        *,
        admin: bool = False,
        post: str | None = None,
        whole_channel: bool = False,
        thinking: Thinking = nullcontext,
    ) -> tuple[Reply, tuple[str, ...]]:
        """Another answer in place of the one posted as `post`, or to the asker's newest question here; with
        `whole_channel` also in a thread of the channel. An answer still on its way is waited for.

        `asker` says who wants it and where. Members may have their own questions answered again; `admin`, who may
        manage the channel, anybody's. Gives the new reply and the ids of the posts it replaces, none where the question
        has no answer yet. The old reply leaves the context (and counts as disliked when it comes to learning). No
        answer to the question is repeated while something else comes, and the replaced one, if it is long, never.
        """
        where = asker.conversation
        chosen = await asyncio.to_thread(self.memory.channel_settings, where)
        if why := self._activity.refused(asker, chosen):
            return Reply(text=notices.REFUSED[why], notice=True), ()
        async with self._changes.ingest(where):
            pass  # a question said just before is to be found
        if post is None:
            own = asker.author
            found = await asyncio.to_thread(self.memory.newest_question, where, author=own, whole_channel=whole_channel)
            if found is None and admin:
                found = await asyncio.to_thread(self.memory.newest_question, where, whole_channel=whole_channel)
        else:
            found = await asyncio.to_thread(self.memory.question_of, where, post)
            if found is None:
                await self._pending.settled(where)
                found = await asyncio.to_thread(self.memory.question_of, where, post)
        if found is None:
            return Reply(text=notices.NOTHING_ASKED if post is None else notices.NOT_MINE, notice=True), ()
        anyone = admin or chosen.again_by == "anyone" or where.kind is Kind.DIRECT
        if found.message.author != asker.author and not anyone:
            return Reply(text=notices.NOT_YOURS, notice=True), ()
        if self.draining:
            return Reply(text=notices.RESTARTING, notice=True), ()
        if self._activity.too_fast(asker):
            return Reply(text=notices.TOO_FAST, notice=True), ()
        reply, replaced = await self._responder.again(found, chosen, thinking=thinking)
        return reply or Reply(text=notices.DELETED, notice=True), replaced

    def known_as(self, platform: str, name: str) -> None:
        """Set the name that a platform shows for the bot, which answers to it where a channel sets so."""
        self._activity.known_as(platform, name)

    def typing(self, conversation: Conversation, member: str) -> None:
        """A member is typing: their last messages are not answered until they have finished."""
        self._bursts.typing(conversation, member)

    # After a restart, and before one

    async def resume(self, question: Unanswered, *, thinking: Thinking = nullcontext) -> Reply | None:
        """The reply to a question that an earlier process left: the one it composed, else a new one, else an apology.
        None where nothing is to be posted any more."""

        async def chosen() -> ChannelSettings | None:
            here = await asyncio.to_thread(self.memory.channel_settings, question.message.conversation)
            return here if self._activity.allowed(question.message, here) else None

        return await self._responder.resume(question, chosen, thinking=thinking)

    async def drain(self, seconds: float) -> bool:
        """Take on nothing more, and wait until every reply on its way is posted; False where that takes longer."""
        self.draining = True
        return await self._pending.drained(seconds)

    # After posting

    async def posted(
        self, reply: Reply, conversation: Conversation, posts: Sequence[str], *, stands: bool | None = None
    ) -> None:
        """Remember under which message ids a platform posted a reply: replies, reactions and `again` name them.

        Every reply must end here: until then whoever asks for the channel's posts is made to wait. `stands` says
        whether people can read it, by default whether it has ids: a reply that nobody saw is neither context nor
        training data, and the reply that it was to replace is restored.
        """
        if reply.row is None:
            return
        seen = bool(posts) if stands is None else stands
        await self._responder.posted(reply.row, conversation, posts, stands=seen)
        if seen:
            self._activity.posted(reply.question.conversation if reply.question else conversation)

    # Private

    async def _looked_up(self, message: Message) -> tuple[ChannelSettings, Message]:
        """What the channel chose, and the message with what only memory knows of it."""
        await self._earlier.newest_row()
        where, memory = message.conversation, self.memory
        joined = message.joined_thread or self._pending.in_conversation(where)

        def look_up() -> tuple[ChannelSettings, Message]:
            in_thread = where.kind is Kind.THREAD and (joined or memory.in_thread(where))
            ours = message.replies_to_bot or (
                message.reply_to is not None and memory.reply_of(where, message.reply_to) is not None
            )
            known = replace(message, joined_thread=in_thread, replies_to_bot=ours)
            return memory.channel_settings(where), known

        return await asyncio.to_thread(look_up)

    async def _answers_us_after_all(self, message: Message, row: int) -> bool:
        """Whether an unaddressed message answers a post of ours that the platform had not confirmed when it came."""
        where, post = message.conversation, message.reply_to
        if post is None or await self.reply_of(where, post) is None:
            return False
        await asyncio.to_thread(self.memory.ask, row, str(Why.REPLY))
        return True

    async def _remember(self, message: Message, decision: policy.Decision) -> int | None:
        why = str(decision.why) if decision.answer else None
        owed = decision.answer and decision.why is not Why.AMBIENT  # nobody waits for an ambient answer
        return await asyncio.to_thread(self.memory.remember, message, why=why, owed=owed)

    def _wordless(self, message: Message, chosen: ChannelSettings) -> Reply | None:
        """A notice that only text is read, for a bare mention, a picture or a sticker; None where the bot was not
        addressed or may not answer."""
        addressed = message.mentions_bot or message.replies_to_bot or message.conversation.kind is Kind.DIRECT
        if not addressed or self.draining or not self._activity.allowed(message, chosen):
            return None
        return None if self._activity.too_fast(message) else self._responder.notice(notices.WORDLESS, message)

    async def _answer(
        self,
        message: Message,
        row: int,
        chosen: ChannelSettings,
        *,
        why: Why,
        thinking: Thinking,
        opening: LookUp | None = None,
    ) -> Reply | None:
        if self.draining:
            return None  # it is owed, and the next start gives it

        async def ready() -> None:
            if opening is not None:
                await self._openings.learn(message, chosen, opening)
            await self._lookups.done(message.conversation)

        question = Remembered(row=row, message=message)
        return await self._responder.answer(question, chosen, why=why, ready=ready, thinking=thinking)


def _says_reset(message: Message) -> bool:
    """Whether a message tells the bot to leave the thread it is in."""
    in_thread = message.conversation.kind is Kind.THREAD and message.mentions_bot
    return in_thread and dialogue.one_line(message.text).casefold() == RESET
