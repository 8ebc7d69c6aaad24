"""The progress and the result of a run: values only."""

from dataclasses import dataclass
from pathlib import Path

from training.finetune.config import FinetuneConfig
from training.finetune.corpus import FileFault
from training.finetune.forecast import Forecast
from training.finetune.preferences import PreferenceScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a run after a step."""

    step: int
    steps: int
    loss: float | None
    """Of the newest logged steps, in nats a target token."""
    held_out: float | None
    """Bits per byte of held-out replies at the latest evaluation."""
    tokens_per_second: float
    """Of rows, since this process began to train."""
    forecast: Forecast | None = None
    """Given once, early in the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point of a training curve."""

    step: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a run."""

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
    """Training dialogues dropped because they are also held out."""
    rows: int
    fill: float
    """Share of the rows that is tokens and not padding."""
    tokens: int
    """In an epoch."""
    targets: int
    """Tokens of Person2's in an epoch."""
    steps: int
    """Optimizer steps done in all."""
    best_step: int
    """The step whose adapter was kept; 0 where none was better than the start, which is then kept."""
    seconds: float
    """Of training, evaluations included; of a resumed run over all its processes."""
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
    """Held-out reply bits per byte at each evaluation."""
    settings: FinetuneConfig
    preferred: PreferenceScore | None = None
    """Where preferences were learned."""

    @property
    def improved(self) -> bool:
        """Whether the adapter predicts held-out replies better than what training started from."""
        return self.best_step > 0
