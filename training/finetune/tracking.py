"""`--log-to`: curves in TensorBoard or W&B, whose files are kept in the run's folder.

Both are optional packages; neither is a dependency.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from core.errors import TrainingError

LogTo: TypeAlias = Literal["none", "tensorboard", "wandb"]


def check_log_to(log_to: LogTo) -> None:
    packages = {"none": (), "tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}
    if log_to not in packages:
        raise TrainingError(f"--log-to {log_to} is unknown; choose tensorboard or wandb.")
    wanted = packages[log_to]
    if wanted and not any(find_spec(package) for package in wanted):
        raise TrainingError(f"--log-to {log_to} needs the package {log_to}; run pip install {log_to}.")


@contextmanager
def tracked(log_to: LogTo, run: Path) -> Iterator[None]:
    """W&B writes into the run's folder and counts the run as one of its own.

    WANDB_DIR and WANDB_PROJECT in the environment take precedence. W&B has no other way to set the folder.
    """
    if log_to != "wandb":
        yield
        return
    import wandb  # type: ignore[import-not-found, unused-ignore] # `check_log_to` found it; it is not a dependency

    before = {name: os.environ.get(name) for name in ("WANDB_DIR", "WANDB_PROJECT")}
    os.environ.setdefault("WANDB_DIR", str(run))
    os.environ.setdefault("WANDB_PROJECT", "person2")
    try:
        yield
    finally:
        wandb.finish()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
