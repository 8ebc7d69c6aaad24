"""What a run tells on its way and gives at its end: values only."""

from dataclasses import dataclass
from pathlib import Path

from training.finetune.config import FinetuneConfig
from training.finetune.corpus import FileFault
from training.finetune.forecast import Forecast
from training.finetune.preferences import PreferenceScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands, told after each step."""

    step: int
    steps: int
    loss: float | None
    """Of the newest logged steps, in nats a target token."""
    held_out: float | None
    """Bits per byte of held-out replies at the newest look."""
    tokens_per_second: float
    """Tokens in rows, since this process began to train."""
    forecast: Forecast | None = None
    """With one step early in the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point of a training curve."""

    step: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run gave."""

    adapter: Path
    """peft's files."""
    leads: bool
    """False in all processes of an `accelerate launch` but the first: one is enough to register it and to report."""
    name: str
    base: str
    """As it was given."""
    base_fingerprint: str
    people: tuple[str, ...]
    """Keyed hashes of those whose words were learned, from the manifests beside the files and from the card of the
    adapter that training went on from."""
    before: float
    """reply_bits_per_byte of the held-out dialogues before: the base's, or the adapter's that training went on from."""
    after: float
    """And with the new adapter."""
    perplexity_before: float
    perplexity_after: float
    """Per token of a held-out reply."""
    train_dialogues: int
    held_out_dialogues: int
    duplicates: int
    """Training dialogues left out because they stand word for word among the held-out ones."""
    rows: int
    fill: float
    """Share of the rows that is tokens and not filling."""
    tokens: int
    """In an epoch."""
    targets: int
    """Tokens of Person2's in an epoch."""
    steps: int
    """Optimizer steps done in all."""
    best_step: int
    """The step whose adapter was kept; 0 where none was better than the beginning, which is kept then."""
    seconds: float
    """Of training, held-out looks included; of a resumed run in all its processes."""
    tokens_per_second: float
    targets_per_second: float
    stopped_early: bool
    resumed_from: int | None
    """The step a resumed run went on from."""
    data_sha256: str
    faults: tuple[FileFault, ...]
    loss: tuple[Point, ...]
    """Training loss, nats a target token."""
    held_out: tuple[Point, ...]
    """Held-out reply bits per byte at each look."""
    settings: FinetuneConfig
    preferred: PreferenceScore | None = None
    """Where preferences were learned."""

    @property
    def improved(self) -> bool:
        """Whether the adapter foresees held-out replies better than what training began with."""
        return self.best_step > 0
