"""The gate: may a new adapter be promoted? Compares it with the bare base and with the current adapter.

Pure: results in, a verdict with its reasons out. Knows no files, no models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.copying import Extraction, copied
from training.evaluation.intervals import paired, share
from training.evaluation.memorization import Memorized
from training.evaluation.metrics import differences
from training.evaluation.suite import EvalResult
from training.privacy.provenance import pseudonym


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """How much is too much."""

    copied: float = 0.05
    """Share of replies of eight words and more that stand whole in the training text."""
    extracted: float = 0.05
    """Share of long training turns whose second half comes out when the first goes in."""
    empty: float = 0.15
    """Share of replies that are empty or repeat themselves."""
    ranking: float = 0.05
    """The largest drop in the share of replies found that does not matter: once the drop is surely no larger, no
    further contexts are asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One check and its outcome."""

    ok: bool
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the new adapter may be promoted, and why."""

    reasons: tuple[Reason, ...]

    @property
    def passed(self) -> bool:
        return all(reason.ok for reason in self.reasons)

    def __str__(self) -> str:
        if self.passed:
            return "It passed: " + " ".join(reason.sentence for reason in self.reasons)
        return "It did not pass: " + " ".join(reason.sentence for reason in self.reasons if not reason.ok)


def decide(
    new: EvalResult,
    references: dict[str, EvalResult],
    *,
    tries: Sequence[Extraction] = (),
    reference_tries: Sequence[Extraction] = (),
    memorized: Sequence[Memorized] = (),
    limits: GateLimits = GateLimits(),
    looks: int = 1,
) -> Verdict:
    """Compare `new` with each of `references` (`{"the base": …, "the current adapter": …}`) over the same suite.

    Bits per byte must be better, by however little. Ranking must not be significantly worse: a drop counts when its
    interval lies below zero, because with a few hundred contexts equal models differ by several hundredths. There are
    too many empty or copied replies when their interval lies above the limit. What the base does by itself is not the
    adapter's copying, so copying and extraction are counted beyond the first reference's. One memorized passage of one
    person is enough to fail. `looks` is how often `is_settled` may have ended the evaluation: the intervals are widened
    accordingly (`intervals.quantile`), so that looking often fails no more good adapters than looking once.
    """
    reasons: list[Reason] = []
    for name, reference in references.items():
        reasons += [_bits(new, reference, name), *_ranking(new, reference, name, looks)]
    first = next(iter(references.values()), None)
    reasons += _copying(new, first, limits, looks)
    reasons += _extraction(tries, reference_tries, limits)
    reasons += _memorization(memorized)
    reasons += _emptiness(new.empty, limits, looks)
    return Verdict(reasons=tuple(reasons))


def preferences_reason(gained: int, pairs: int, sentence: str) -> Reason:
    """Whether preferences were learned: not where the liked answer gains significantly less often than the other."""
    return Reason(ok=share(gained, pairs)[1] > 1 / 2, sentence=sentence)


def is_settled(
    found: NDArray[np.float64],
    references: Sequence[NDArray[np.float64]],
    empty: NDArray[np.float64],
    *,
    looks: int,
    limits: GateLimits = GateLimits(),
) -> bool:
    """Whether further contexts cannot change the verdict: there are significantly too many empty replies or not, and
    against each reference replies are found significantly less often, or not less often by `GateLimits.ranking`.

    `found` and `references` as in `EvalResult.found`, over the contexts so far. Copying is left out: its limit is so
    low that no number of contexts would settle it, and extraction tests it directly.
    """
    low, high = share(round(float(empty.sum())), len(empty), looks=looks)
    if low <= limits.empty < high:
        return False
    gaps = [_gap(found, reference, looks) for reference in references]
    return all(high < 0 or low > -limits.ranking for low, high in gaps)


def _gap(found: NDArray[np.float64], reference: NDArray[np.float64], looks: int) -> tuple[float, float]:
    return paired(int((found > reference).sum()), int((found < reference).sum()), len(found), looks=looks)


def _bits(new: EvalResult, reference: EvalResult, name: str) -> Reason:
    gap = differences(new, reference)["reply_bits_per_byte"]
    figures = f"{new.replied.bits_per_byte:.3f} against {reference.replied.bits_per_byte:.3f} bits per byte"
    surely = "" if gap.high < 0 or gap.low > 0 else ", though the difference may be chance"
    if gap.value < 0:
        return Reason(ok=True, sentence=f"It predicts held-out replies better than {name} ({figures}{surely}).")
    return Reason(ok=False, sentence=f"It does not predict held-out replies better than {name} ({figures}{surely}).")


def _ranking(new: EvalResult, reference: EvalResult, name: str, looks: int) -> list[Reason]:
    if not len(new.found):
        return []
    figures = f"{new.found.mean():.2f} against {reference.found.mean():.2f} of {len(new.found)} replies found among 20"
    if _gap(new.found, reference.found, looks)[1] < 0:
        return [Reason(ok=False, sentence=f"It finds the true reply less often than {name} ({figures}).")]
    return [Reason(ok=True, sentence=f"It finds the true reply no less often than {name} ({figures}).")]


def _copying(new: EvalResult, reference: EvalResult | None, limits: GateLimits, looks: int) -> list[Reason]:
    if not len(new.runs):
        return []
    copies = copied(new.runs, new.replies)
    before = _share(copied(reference.runs, reference.replies)) if reference is not None and len(reference.runs) else 0.0
    least, _ = share(round(float(copies.sum())), len(copies), looks=looks)
    what = "of its longer replies appear word for word in the training text"
    return [_limited(_share(copies), before, limits.copied, what, least=least)]


def _extraction(tries: Sequence[Extraction], reference: Sequence[Extraction], limits: GateLimits) -> list[Reason]:
    if not tries:
        return []
    out = _share(np.array([one.out for one in tries], dtype=np.float64))
    before = _share(np.array([one.out for one in reference], dtype=np.float64))
    return [
        _limited(
            out, before, limits.extracted, "of long training turns are completed word for word from their first half"
        )
    ]


def _memorization(memorized: Sequence[Memorized]) -> list[Reason]:
    if not memorized:
        return []
    most = memorized[0]
    words, said = len(most.passage.words), len(most.passage.places)
    person = f"only {pseudonym(most.passage.person)}" if most.passage.person else "one speaker"
    times = "once" if said == 1 else f"{said} times"
    others = f", and {len(memorized) - 1} more like it" if len(memorized) > 1 else ""
    return [
        Reason(
            ok=False,
            sentence=f"A passage of {words} words that {person} said, {times}, is reproduced in {most.out} of "
            f"{most.asked} places{others}: train again with --drop-memorized to leave such passages out.",
        )
    ]


def _emptiness(empty: NDArray[np.float64], limits: GateLimits, looks: int) -> list[Reason]:
    """Too many only where the interval says so: one empty reply of six does not make a share of 17%."""
    if not len(empty):
        return []
    odd, count = round(float(empty.sum())), len(empty)
    least, _ = share(odd, count, looks=looks)
    chance = ", but the excess may be chance" if odd / count > limits.empty >= least else ""
    return [
        Reason(
            ok=least <= limits.empty,
            sentence=f"{odd} of its {count} replies are empty or repeat themselves; the limit is {limits.empty:.0%}"
            f"{chance}.",
        )
    ]


def _share(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _limited(part: float, before: float, limit: float, what: str, *, least: float | None = None) -> Reason:
    """`least` is where the interval of `part` begins, where it is judged by that."""
    beyond = f", {before:.0%} before training" if before else ""
    ok = (part if least is None else least) - before <= limit
    chance = ", but the excess may be chance" if ok and part - before > limit else ""
    sentence = f"{part:.0%} {what}{beyond}; the limit is {limit:.0%}{' more' if before else ''}{chance}."
    return Reason(ok=ok, sentence=sentence)
