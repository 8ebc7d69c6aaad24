"""A run's folder: the plan of the run, and whether another run may resume in it.

Knows files and checkpoints; knows no model.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from core.atomic_io import write_atomically
from core.errors import TrainingError, reason
from training.finetune import checkpoints
from training.privacy.run_registry import PLAN


def open_run(run: Path, plan: dict[str, Any], *, resume: bool, leads: bool) -> Path | None:
    """Make the run's folder, write the plan, and find the checkpoint to resume from.

    Of several processes the first one writes; the others read afterwards.
    """
    if not leads:
        return checkpoints.newest(run) if resume else None
    text = json.dumps(plan, indent=1, sort_keys=True)
    try:
        run.mkdir(parents=True, exist_ok=True)
        if resume:
            checkpoint = checkpoints.newest(run)
            known = (run / PLAN).read_text(encoding="utf-8") if (run / PLAN).exists() else ""
            if checkpoint and known != text:
                raise TrainingError(
                    f"The run in {run} was started with {_differing(known, plan)}; use the same options, "
                    "or start again without --resume."
                )
        else:
            checkpoint = None
            checkpoints.clear(run)
        write_atomically(run / PLAN, text)
    except OSError as error:
        raise TrainingError(f"The folder {run} cannot be written ({reason(error)}); choose another one.") from error
    return checkpoint


def _differing(known: str, plan: dict[str, Any]) -> str:
    try:
        old = json.loads(known)
    except ValueError:
        return "a plan that cannot be read"
    names = [key for key in plan if key != "settings" and old.get(key) != plan[key]]
    now, then = plan["settings"], old.get("settings", {})
    names += [key for key in now if then.get(key) != now[key]]
    return "another " + " and another ".join(name.replace("_", " ") for name in names)


def begun(run: Path) -> bool:
    """Whether a run, or a part of its learning curve, was begun here."""
    return any(run.rglob(PLAN))


def unfinished(runs: Path, finished: Collection[str]) -> Path | None:
    """The latest run under `runs` that did not finish."""
    plans = [plan for run in runs.glob("*") if run.name not in finished for plan in run.rglob(PLAN)]
    newest = max(plans, key=lambda plan: plan.stat().st_mtime, default=None)
    return runs / newest.relative_to(runs).parts[0] if newest else None
