"""The port: text in, text out. No torch here, so that importing it costs nothing.

Implementations: `transformers` (with peft: the reference and the GPU path), `engine` (the fast CPU engine) and
`openai` (an OpenAI-compatible server). Only `person2/app.py` imports one of them.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from core.errors import GeneratorError, Overloaded

END_OF_TEXT = "<|endoftext|>"
"""GPT-2's end of text: separates dialogues in training and ends a generation."""

INFORMATION = 0.5
"""λ of log P(reply | prompt) − λ log P(reply | the prompt's last line alone), the score of a candidate: maximum mutual
information (Li et al. 2016, arXiv:1510.03055). 0 prefers stock phrases, 1 and more prefers odd ones; 0.5 was chosen by
reading what the starter says (its README tells what 0.7 said)."""

MAX_BEST_OF = 16
"""Candidates drawn for one request at most."""
SEED_STEP = 0x9E3779B9
"""Difference between the seeds of candidates: large, so that requests with adjacent seeds do not draw the same
replies."""

STOPPED = "the generator is stopped: start the program again"
"""What Unavailable says after `close`."""

NOT_FINITE = "the model's numbers are not finite: its weights or the adapter's are damaged"
"""What NumericalError says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen. `temperature=0` is greedy."""

    temperature: float = 0.7
    top_p: float = 0.9
    """Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751); 1 switches it off."""
    top_k: int = 0
    """0 switches it off."""
    repetition_penalty: float = 1.1
    """Divides the logits of tokens already in the prompt or the reply (Keskar et al. 2019, arXiv:1909.05858), as
    transformers does; 1 switches it off."""
    max_new_tokens: int = 60
    seed: int | None = None
    """Same seed, prompt, adapter and settings: same text, whoever shares the batch. None draws a fresh one."""
    stop: str = "\n"
    """The generation ends before this text, or at the end-of-text token."""
    best_of: int = 1
    """Candidates drawn side by side, for the caller to choose among (`core.reranking`). The first is what `best_of=1`
    would give. A generator may draw fewer, where it has too little memory or its server draws only one."""


def validate(sampling: Sampling) -> None:
    """Raises GeneratorError for values out of range."""
    for name, value, right, should in (
        ("temperature", sampling.temperature, 0 <= sampling.temperature < math.inf, "0 (greedy) or more"),
        ("top_p", sampling.top_p, 0 < sampling.top_p <= 1, "above 0 and at most 1"),
        ("top_k", sampling.top_k, sampling.top_k >= 0, "0 (off) or more"),
        ("repetition_penalty", sampling.repetition_penalty, 0 < sampling.repetition_penalty < math.inf, "above 0"),
        ("max_new_tokens", sampling.max_new_tokens, sampling.max_new_tokens >= 1, "1 or more"),
        ("best_of", sampling.best_of, 1 <= sampling.best_of <= MAX_BEST_OF, f"from 1 to {MAX_BEST_OF}"),
    ):
        if not right:
            raise GeneratorError(f"{name} is {value}; it must be {should}")


def overloaded(waiting: int) -> Overloaded:
    """The error for a full queue of `waiting` requests."""
    return Overloaded(f"{waiting} requests are waiting already: please try again in a moment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter that a generator can load: a name for logs and caches, and peft's own folder."""

    id: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One of the replies drawn for a request."""

    text: str
    """Without the prompt and without the stop text; not cleaned."""
    finish: Literal["stop", "length"]
    information: float | None = None
    """Its mutual information with the prompt, in nats (`INFORMATION`); None where it was not scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    candidates: tuple[Candidate, ...]
    """At least one, in the order of their seeds."""
    prompt_tokens: int
    new_tokens: int
    """Of the first candidate."""
    seconds: float
    """From the request's arrival to its last token, waiting in the queue included."""
    adapter: str | None
    seed: int

    @property
    def text(self) -> str:
        """The text of the first candidate."""
        return self.candidates[0].text

    @property
    def finish(self) -> Literal["stop", "length"]:
        return self.candidates[0].finish


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorStatus:
    """Counters since start; for `status` and the logs."""

    model: str
    device: str
    queued: int
    running: int
    completed: int
    tokens: int
    cached_tokens: int = 0
    """Prompt tokens whose keys and values were cached."""
    adapters: tuple[str, ...] = ()
    advice: str = ""
    """What would make it much faster on this machine; empty where nothing would."""


class Generator(Protocol):
    """Generates replies. Ready to use once built; `close` ends it. All methods may be called from any asyncio task."""

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and reply together."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` for this model; special tokens inside it count as plain text."""
        ...

    async def generate(
        self,
        prompt: str,
        *,
        sampling: Sampling,
        adapter: Adapter | None = None,
        conversation: str | None = None,
        persona: str = "",
    ) -> Completion:
        """Continue `prompt`. A prompt over the context loses its oldest tokens.

        `persona` says who Person2 is (`core.generator.persona`). A base with a chat template is prompted through it
        where no adapter is used, with the persona as the system message.

        `conversation` names the conversation of the prompt, so that an implementation may keep its keys and values.
        They are reused as far as the next prompt begins with the same tokens: a sliding window is cheapest when it
        drops many turns now and then rather than one every time.
        Cancelling the awaiting task withdraws the request. Raises Overloaded when the queue is full, Unavailable
        after `close` or when a remote server is down, AdapterError when the adapter cannot be used.
        """
        ...

    async def load(self, adapter: Adapter) -> None:
        """Load an adapter beside those in use, while requests continue. Raises AdapterError."""
        ...

    async def unload(self, adapter_id: str) -> None:
        """Drop an adapter once no request in flight uses it; unknown ids are ignored."""
        ...

    def status(self) -> GeneratorStatus: ...

    async def close(self) -> None:
        """Finish what is running, refuse the rest, free the model."""
        ...
