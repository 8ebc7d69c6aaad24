"""Members' judgements → the end of a trial: the better adapter becomes current, the other is retired.

Knows the registry; the function that counts judgements is passed in. No database, no model.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

from core.adapters.registry import NONE, AdapterRegistry
from core.adapters.trials import Judged, Trial, TrialVerdict, describe_trial
from core.errors import Person2Error

log = logging.getLogger(__name__)

JUDGE_EVERY = 300.0
"""Seconds between two counts."""

Count: TypeAlias = Callable[[str | None, datetime], tuple[int, int]]
"""How many answers of an adapter (None for the bare base) since then were liked, and how many disliked."""


class TrialJudge:
    def __init__(
        self, registry: AdapterRegistry, count: Count, *, clock: Callable[[], datetime], every: float = JUDGE_EVERY
    ) -> None:
        self._registry = registry
        self._count = count
        self._clock = clock
        self._every = every

    def standing(self) -> str:
        """The state of the trial, or how the last one ended, in a sentence; empty where there was none. Blocks. Raises
        AdapterError and StorageError."""
        trial = self._registry.trials.read()
        return describe_trial(trial, *self._counts(trial)) if trial is not None else ""

    def judge(self) -> TrialVerdict | None:
        """Count once, and end the trial where it is decided; None where none runs. Blocks, and raises as `standing`."""
        trial = self._registry.trials.read()
        if trial is None or not trial.running:
            return None
        counts = challenger, champion = self._counts(trial)
        verdict = trial.verdict(*counts, self._clock())
        if verdict is TrialVerdict.UNDECIDED:
            return verdict
        stays = "" if verdict is TrialVerdict.BETTER else f" and {trial.champion} stays active"
        outcome = (
            f"{trial.challenger} {verdict}{stays}: {challenger.liked} of its {challenger.total} judged answers were "
            f"liked, {champion.liked} of {champion.total} of {trial.champion}"
        )
        if verdict is TrialVerdict.BETTER:
            self._registry.use(trial.challenger, by_force=True)  # its card says so if it did not pass the gate
        self._registry.trials.end(trial, outcome)
        log.info("the trial is over: %s", outcome)
        return verdict

    async def keep_judging(self) -> None:
        """Judge now and every few minutes, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.judge)
            except Person2Error as error:
                log.warning("the adapter on trial could not be judged: %s", error)
            await asyncio.sleep(self._every)

    def _counts(self, trial: Trial) -> tuple[Judged, Judged]:
        def counted(adapter: str) -> Judged:
            liked, disliked = self._count(None if adapter == NONE else adapter, trial.started_at)
            return Judged(liked=liked, disliked=disliked)

        return counted(trial.challenger), counted(trial.champion)
