"""Stand-ins one can read: a generator that says what the test wrote down, a clock that stands still."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from core.chat import Chat, ChatSettings
from core.composer import SelectAdapter
from core.generator import Adapter, Candidate, Completion, GeneratorStatus, Sampling
from core.memory import Memory, open_memory
from core.messages import Conversation, Kind, Message


@dataclass(kw_only=True)
class FakeGenerator:
    """Says `lines` in turn, then the last one over again; or what `speak` makes of the prompt. `one|two` are two
    candidates. Keeps the prompts."""

    lines: Sequence[str] = ("hello",)
    speak: Callable[[str], str] | None = None
    delay: float = 0.0
    """Seconds a reply takes; `slow` tests raise it."""
    gate: asyncio.Event | None = None
    """Nothing is said before this is set: for tests in which the reply must come after something else."""
    error: Exception | None = None
    """Raised instead of speaking."""
    prompts: list[str] = field(default_factory=list)
    adapters: list[Adapter | None] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)
    personas: list[str] = field(default_factory=list)
    closed: bool = False
    model: str = "fake"
    context_length: ClassVar[int] = 256

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def generate(
        self,
        prompt: str,
        *,
        sampling: Sampling,
        adapter: Adapter | None = None,
        conversation: str | None = None,
        persona: str = "",
    ) -> Completion:
        self.prompts.append(prompt)
        self.personas.append(persona)
        self.adapters.append(adapter)
        self.samplings.append(sampling)
        await asyncio.sleep(self.delay)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        spoken = self.speak(prompt) if self.speak else self.lines[min(len(self.prompts), len(self.lines)) - 1]
        return Completion(
            candidates=tuple(Candidate(text=f" {text}", finish="stop") for text in spoken.split("|")),
            prompt_tokens=self.count_tokens(prompt),
            new_tokens=self.count_tokens(spoken),
            seconds=self.delay,
            adapter=adapter.id if adapter else None,
            seed=sampling.seed or 0,
        )

    async def load(self, adapter: Adapter) -> None:
        pass

    async def unload(self, adapter_id: str) -> None:
        pass

    def status(self) -> GeneratorStatus:
        return GeneratorStatus(
            model=self.model, device="cpu", queued=0, running=0, completed=len(self.prompts), tokens=0
        )

    async def close(self) -> None:
        self.closed = True


@dataclass
class Clock:
    """Stands still until moved."""

    now: datetime = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for what other tasks bring about; fails when the time is over."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a list has no event to wait for
            await asyncio.sleep(0.001)


async def base_alone(conversation: Conversation, chosen: str | None) -> Adapter | None:
    """The bare base model speaks everywhere."""
    return None


def chat(
    generator: FakeGenerator | None = None,
    *,
    memory: Memory | None = None,
    settings: ChatSettings | None = None,
    clock: Callable[[], datetime] | None = None,
    select_adapter: SelectAdapter | None = None,
) -> Chat:
    """A chat over in-memory SQLite."""
    return Chat(
        memory=memory or open_memory("sqlite://"),
        generator=generator or FakeGenerator(),
        select_adapter=select_adapter or base_alone,
        settings=settings or ChatSettings(),
        clock=clock or Clock(),
    )


_SERIAL = iter(range(1, 1_000_000))


def said(
    text: str,
    *,
    author: str = "ann",
    kind: Kind = Kind.DIRECT,
    channel: str = "c1",
    thread: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's own name
    **more: bool | str | frozenset[str] | None,
) -> Message:
    """A message of Ann's, in a direct message with the bot unless the test says otherwise."""
    return Message(
        conversation=Conversation(platform="test", channel=channel, thread=thread, kind=kind),
        id=id or f"m{next(_SERIAL)}",
        author=author,
        author_name=author.title(),
        text=text,
        sent_at=datetime(2026, 1, 1, 12, tzinfo=UTC),
        **more,  # type: ignore[arg-type]  # the remaining fields of Message
    )
