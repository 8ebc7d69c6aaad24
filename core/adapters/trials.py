"""An adapter on trial beside the current one: which conversations it answers in, and when members have decided.

Kept in one file in the registry's folder, replaced atomically. Knows no database (`core.adapters.judge` counts
judgements) and no model.
"""

import hashlib
import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import msgspec

from core.atomic_io import read_text, write_atomically
from core.errors import AdapterError
from core.messages import Conversation

log = logging.getLogger(__name__)

FILE = "trial"
"""Name of the file beside the adapters' folders."""

MIN_JUDGED = 20
"""Judged answers of each adapter before anything is decided."""

Z = 2.576
"""Of a two-sided interval of 99 %, because it is looked at repeatedly: of two equal adapters the new one was promoted
in 3 of 100 simulated trials of 400 judged answers, and in 13 with an interval of 95 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Answers that members judged."""

    liked: int = 0
    disliked: int = 0
    """A dislike outweighs likes, and an answer that `again` replaced counts as disliked."""

    @property
    def total(self) -> int:
        return self.liked + self.disliked


class TrialVerdict(StrEnum):
    """What becomes of the challenger."""

    UNDECIDED = "undecided"
    BETTER = "is now active"
    WORSE = "retired"
    EXPIRED = "retired without a decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    challenger: str
    champion: str
    """What was current when the trial began; `none` for the bare base."""
    share: float
    """0 to 1: the share of conversations that the challenger answers in."""
    started_at: datetime
    """UTC."""
    days: int
    """Days after which the challenger is retired without a decision."""
    ended_at: datetime | None = None
    outcome: str = ""
    """How it ended, in a sentence; empty while it runs."""

    @property
    def running(self) -> bool:
        return self.ended_at is None

    def takes(self, conversation: Conversation) -> bool:
        """Whether the challenger answers there, which does not change while the trial runs."""
        seed = f"{self.challenger}/{self.started_at.isoformat()}/{conversation.key}"
        drawn = int.from_bytes(hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64
        return drawn < self.share

    def verdict(self, challenger: Judged, champion: Judged, now: datetime) -> TrialVerdict:
        """The decision by the judgements so far."""
        if min(challenger.total, champion.total) >= MIN_JUDGED:
            low, high = difference(challenger, champion)
            if low > 0:
                return TrialVerdict.BETTER
            if high < 0:
                return TrialVerdict.WORSE
        return TrialVerdict.EXPIRED if now - self.started_at >= timedelta(days=self.days) else TrialVerdict.UNDECIDED


def difference(one: Judged, other: Judged, *, z: float = Z) -> tuple[float, float]:
    """The interval of the difference between two shares of liked answers, neither of none: the hybrid score interval
    without continuity correction of R. G. Newcombe, “Interval estimation for the difference between independent
    proportions: comparison of eleven methods”, Statistics in Medicine 17 (1998), method 10."""
    (p, low_p, high_p), (q, low_q, high_q) = _score(one, z), _score(other, z)
    return p - q - math.hypot(p - low_p, high_q - q), p - q + math.hypot(high_p - p, q - low_q)


def _score(judged: Judged, z: float) -> tuple[float, float, float]:
    """A share and its score interval (E. B. Wilson, Journal of the American Statistical Association 22, 1927)."""
    n, share = judged.total, judged.liked / judged.total
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return share, middle - half, middle + half


def describe_trial(trial: Trial, challenger: Judged, champion: Judged) -> str:
    """The state of a trial in a sentence."""
    if not trial.running:
        return trial.outcome
    return (
        f"{trial.challenger} is on trial in {trial.share:.0%} of conversations since {trial.started_at:%Y-%m-%d}: "
        f"{challenger.liked} of its {challenger.total} judged answers liked, {champion.liked} of {champion.total} of "
        f"{trial.champion}; {TrialVerdict.UNDECIDED}"
    )


class Trials:
    """The trial of one registry. `locked` is its lock over all processes."""

    def __init__(
        self, root: Path, *, locked: Callable[[], AbstractContextManager[None]], clock: Callable[[], datetime]
    ) -> None:
        self._file = root / FILE
        self._locked = locked
        self._clock = clock

    def read(self) -> Trial | None:
        """The trial that runs, or the one that ran last. Raises AdapterError for a damaged file."""
        text = read_text(self._file)
        try:
            return msgspec.json.decode(text, type=Trial) if text else None
        except (msgspec.MsgspecError, ValueError) as error:
            raise AdapterError(f"the trial in {self._file} cannot be read ({error}): delete that file") from error

    def begin(self, challenger: str, champion: str, *, share: float, days: int) -> Trial:
        """Start a trial. Raises AdapterError where one runs, or where the two are the same."""
        if challenger == champion:
            raise AdapterError(f"{challenger!r} is already the current adapter: choose another one")
        with self._locked():
            running = self.read()
            if running is not None and running.running:
                raise AdapterError(f"{running.challenger} is on trial already: `person2 adapters trial --stop` ends it")
            started = self._clock().replace(microsecond=0)
            trial = Trial(challenger=challenger, champion=champion, share=share, started_at=started, days=days)
            self._write(trial)
            return trial

    def end(self, trial: Trial, outcome: str) -> bool:
        """Store how a trial ended, in place of an earlier outcome; False where another one began meanwhile."""
        with self._locked():
            return self._end(trial, outcome)

    def promoted(self, adapter_id: str) -> None:
        """End the trial where another adapter became current. The caller holds the lock."""
        trial = self._running()
        if trial is not None and adapter_id != trial.champion:
            self._end(trial, f"the trial of {trial.challenger} ended: {adapter_id} was made current")

    def withdrawn(self, adapter_id: str) -> None:
        """End the trial where its challenger went out of service. The caller holds the lock."""
        trial = self._running()
        if trial is not None and adapter_id == trial.challenger:
            self._end(trial, f"the trial of {adapter_id} ended: it is out of service")

    def _running(self) -> Trial | None:
        """The running trial; a damaged file is only logged, so that adapters can still be promoted and withdrawn."""
        try:
            trial = self.read()
        except AdapterError as error:
            log.warning("%s", error)
            return None
        return trial if trial is not None and trial.running else None

    def _end(self, trial: Trial, outcome: str) -> bool:
        found = self.read()
        if found is None or (found.challenger, found.started_at) != (trial.challenger, trial.started_at):
            return False
        self._write(replace(trial, ended_at=self._clock(), outcome=outcome))
        return True

    def _write(self, trial: Trial) -> None:
        write_atomically(self._file, msgspec.json.encode(trial).decode() + "\n")
