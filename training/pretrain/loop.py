"""The training loop: batches in, a trained network out, checkpoints that resume exactly.

Knows the network and the mixture of rows; knows no files but its checkpoints and its log. The clock is passed in.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from core.errors import TrainingError
from training.pretrain import contrast, devices, heldout
from training.pretrain import network as net
from training.pretrain.contrast import ContrastiveData, ContrastiveTask
from training.pretrain.heldout import HeldOutCorpus
from training.pretrain.rows import Mixture
from training.pretrain.schedule import Budget, Schedule

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
GLANCE = 40
"""Dialogues of each held-out corpus that are scored during training; all of them are scored at the end."""
GRADIENT_NORM = 1.0
MAY_CHANGE = ("contrast",)
"""What may differ in a resumed run: that task has no state, and the card lists every command."""
CONTRAST_SIZE = 0.75
"""A contrastive batch's tokens against another's: its rows are longer and read what they share once, so both take the
same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What must stay the same for a run to be resumed."""

    shape: net.NetworkShape = field(default_factory=net.NetworkShape)
    rates: net.Rates = field(default_factory=net.Rates)
    schedule: Schedule = field(default_factory=Schedule)
    row: int = 512
    """Tokens a row."""
    cool_row: int = 512
    """Tokens per row during the cool-down."""
    batch: int = 4_096
    """Tokens a step."""
    average: float = 0.998
    """Decay of the moving average of the weights."""
    seed: int = 0
    contrast: ContrastiveTask | None = None
    """Telling true replies from others, beside predicting tokens; none: not asked for."""
    start: str | None = None
    """sha256 of the weights that the run began with; none: random ones, from the seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds of training between checkpoints, evaluations and reports."""

    checkpoint: float = 300.0
    measure: float = 300.0
    report: float = 15.0


class Trainer:
    """One run: construct it, `resume` if there is a checkpoint, `run`, then use `network` or `average`."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        main: Mixture,
        cool: Mixture,
        contrastive: ContrastiveData | None = None,
        held_out: Sequence[HeldOutCorpus],
        folder: Path,
        clock: Callable[[], float],
        report: Callable[[str], None],
        device: torch.device,
        dtype: torch.dtype,
        start: Path | None = None,
    ) -> None:
        """`start`: a finished folder to go on from, of `recipe.shape` or fewer layers. Raises TrainingError."""
        self.recipe = recipe
        self.network: GPT2LMHeadModel = net.build(recipe.shape, seed=recipe.seed)
        if start is not None:
            net.take_over(self.network, start)
        devices.settle(self.network, device, dtype)
        self.network.train()
        self.optimizers = net.Optimizers(self.network, recipe.rates, dtype=dtype)
        self.average = net.Average(self.network, recipe.average)
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.cooled_from: int | None = None
        """The step at which the cool-down began."""
        self._main, self._cool, self._contrastive = main, cool, contrastive
        self._held_out = [corpus.first(GLANCE) for corpus in held_out]
        self._folder, self._clock, self._report = folder, clock, report
        self._device, self._dtype = device, dtype
        self.found: list[float] = []
        """Nats per reply of the latest contrastive batches; ln of the number of candidates at the start."""

    def run(self, budget: Budget, pace: Pace) -> None:
        """Train until the budget is spent. If interrupted, resume from the last checkpoint."""
        began, before = self._clock(), self.seconds
        due = {"checkpoint": before + pace.checkpoint, "measure": before, "report": before}
        loss_sum, loss_count = 0.0, 0
        while (progress := budget.progress(step=self.step, seconds=self.seconds)) < 1.0:
            loss, norm, factor = self.advance(progress)
            loss_sum, loss_count = loss_sum + loss, loss_count + 1
            self.seconds = before + self._clock() - began
            if self.seconds >= due["report"]:
                due["report"] = self.seconds + pace.report
                self._report(
                    f"step {self.step} · {progress:.0%} · {self.tokens / 1e6:.2f} M tokens · "
                    f"{self.tokens / max(1e-9, self.seconds):.0f} a second · loss {loss_sum / loss_count:.3f} · "
                    f"gradient {norm:.2f} · rate ×{factor:.2f}"
                    + (f" · contrastive {contrastive:.3f}" if (contrastive := self._mean_found()) is not None else "")
                )
                values: dict[str, object] = {
                    "loss": loss_sum / loss_count,
                    "gradient": norm,
                    "rate": factor,
                    "progress": progress,
                }
                self._log(values if contrastive is None else values | {"told_apart": contrastive})
                self.found.clear()
                loss_sum, loss_count = 0.0, 0
            if self.seconds >= due["measure"] and self._held_out:
                scores = self.measure(self._held_out)
                self._report("held out, bits per byte: " + ", ".join(f"{k} {v:.3f}" for k, v in scores.items()))
                self._log({"bits_per_byte": scores})
                due["measure"] = self.seconds + pace.measure
            if self.seconds >= due["checkpoint"]:
                self.save()
                due["checkpoint"] = self.seconds + pace.checkpoint
        self.save()

    def advance(self, progress: float) -> tuple[float, float, float]:
        """Loss in nats a token, the gradient's norm, the factor of the peak rate."""
        recipe = self.recipe
        cooling = recipe.schedule.cooling(progress)
        if cooling and self.cooled_from is None:
            self.cooled_from = self.step
        if (
            self._contrastive is not None
            and recipe.contrast is not None
            and (self.step + 1) % recipe.contrast.every == 0
        ):
            loss, value, count = self._compare_replies(self._contrastive, recipe.contrast)
        else:
            loss, value, count = self._predict_tokens(cooling=cooling)
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore] # torch
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM))
        if not math.isfinite(value) or not math.isfinite(norm):
            raise TrainingError(
                f"Training diverged at step {self.step} (the loss is {value}); lower the learning rates and resume."
            )
        factor = recipe.schedule.factor(step=self.step, progress=progress)
        self.optimizers.step(factor)
        self.average.update(self.network)
        self.step += 1
        self.tokens += count
        return value, norm, factor

    def _mean_found(self) -> float | None:
        return sum(self.found) / len(self.found) if self.found else None

    def _predict_tokens(self, *, cooling: bool) -> tuple[Tensor, float, int]:
        """A batch of the mixture: the loss, nats per token, number of tokens."""
        recipe = self.recipe
        length = recipe.cool_row if cooling else recipe.row
        mixture = self._cool if cooling else self._main
        rows = torch.from_numpy(mixture.batch(max(1, recipe.batch // length))).to(self._device)
        count = rows.shape[0] * (rows.shape[1] - 1)
        loss = net.nats(self.network, rows[:, :-1], rows[:, 1:], dtype=self._dtype) / count
        return loss, float(loss.detach()), count

    def _compare_replies(self, data: ContrastiveData, task: ContrastiveTask) -> tuple[Tensor, float, int]:
        """A contrastive batch, a function of the step alone: the loss, nats per token, number of dialogue tokens."""
        batch = data.batch(self.step, int(self.recipe.batch * CONTRAST_SIZE))
        loss, value, found, count = contrast.losses(self.network, batch, task, person2=data.person2, dtype=self._dtype)
        self.found.append(found)
        return loss, value, count

    def measure(self, corpora: Sequence[HeldOutCorpus], *, averaged: bool = False) -> dict[str, float]:
        """Bits per byte of each corpus, with the weights as they are or with their moving average."""
        with self.averaged() if averaged else nullcontext():
            return {
                corpus.name: heldout.bits_per_byte(
                    self.network,
                    corpus,
                    context=self.recipe.shape.context,
                    dtype=self._dtype,
                    device=self._device,
                )
                for corpus in corpora
            }

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network with its averaged weights, for as long as the block lasts."""
        own = {name: weight.detach().clone() for name, weight in self.network.named_parameters()}
        self._copy(self.average.weights)
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, weights: dict[str, torch.Tensor]) -> None:
        for name, weight in self.network.named_parameters():
            weight.copy_(weights[name])

    def save(self) -> None:
        """Write the checkpoint beside the old one, then replace it: a crash leaves one of them complete."""
        self._folder.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": plain(self.recipe),
            "network": dict(self.network.named_parameters()),
            "optimizers": self.optimizers.state(),
            "average": {"weights": self.average.weights, "updates": self.average.updates},
            "main": self._main.state(),
            "cool": self._cool.state(),
            "counts": {
                "step": self.step,
                "tokens": self.tokens,
                "seconds": self.seconds,
                "cooled_from": self.cooled_from,
            },
            "random": torch.get_rng_state(),
            "own_random": devices.own_random(self._device),
        }
        half = self._folder / f"{CHECKPOINT}.new"
        torch.save(state, half)
        half.replace(self._folder / CHECKPOINT)

    def resume(self) -> None:
        """Go on from the checkpoint in the run's folder. Raises TrainingError if it belongs to another recipe."""
        path = self._folder / CHECKPOINT
        if not path.is_file():
            raise TrainingError(f"There is no checkpoint in {self._folder}; leave out --resume to start a run.")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        theirs, ours = state["recipe"], plain(self.recipe)
        differing = sorted(key for key in ours if key not in MAY_CHANGE and theirs.get(key) != ours[key])
        if differing:
            raise TrainingError(
                f"The checkpoint in {self._folder} was made with another {', '.join(differing)}; "
                "resume with the same options, or start a new run in another folder."
            )
        self._main.restore(state["main"])
        self._cool.restore(state["cool"])
        self._copy(state["network"])
        self.optimizers.restore(state["optimizers"])
        self.average.restore(state["average"]["weights"], updates=state["average"]["updates"])
        counts = state["counts"]
        self.step, self.tokens, self.seconds = counts["step"], counts["tokens"], counts["seconds"]
        self.cooled_from = counts["cooled_from"]
        torch.set_rng_state(state["random"])
        devices.restore_own_random(state.get("own_random"), self._device)  # older checkpoints have none

    def _log(self, values: dict[str, object]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        line = {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 1), **values}
        with (self._folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as values that a checkpoint can hold and compare."""
    plain: dict[str, Any] = json.loads(json.dumps(recipe, default=_fields))
    return plain


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}
