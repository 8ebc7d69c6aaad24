"""A training of two processes, for `accelerate launch` in a test: `launched.py BASE TALK RUN`."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, os.getcwd())  # noqa: PTH109  # launched as a file, so the checkout is not on the path

from tests.training.test_finetune import QUICK
from training.finetune.run import finetune

if __name__ == "__main__":
    torch.set_num_threads(1)
    base, talk, run = sys.argv[1:]
    outcome = finetune([Path(talk)], run=Path(run), base=base, settings=replace(QUICK, epochs=4.0))
    if outcome.leads:
        print(json.dumps({"before": outcome.before, "after": outcome.after, "steps": outcome.steps}))  # noqa: T201
