"""Scores of earlier evaluations: of one model's weights, over one suite, with one version of the scoring.

The base and the current adapter are evaluated again beside every new adapter, mostly on the same held-out talk. Only
numbers are kept, a file in each run's folder, so they are deleted with the run when a member is forgotten; replies are
not kept, since they may repeat people's words.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.adapters.validation import CONFIG, weights_sha256
from core.atomic_io import write_atomically
from core.dialogue import render
from training.evaluation.likelihood import Likelihood
from training.evaluation.suite import EvalSuite, ModelCandidate
from training.finetune.base import wants_bf16

FILE = "scores.json"
VERSION = 1
"""Version of the scoring: increment it with every change that affects a score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownScores:
    """What does not depend on the other candidates."""

    whole: Likelihood
    replied: Likelihood
    found: NDArray[np.float64]
    """Of the first contexts, as many as were asked (`suite.EvalResult`)."""


class ScoreStore:
    """Reads the scores of the runs beside this one, and writes those of this one."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._taken: dict[str, Any] = {}

    def find(self, key: str) -> KnownScores | None:
        """The scores under a key, those with most contexts."""
        known = [scores for file in sorted(self._run.parent.glob(f"*/{FILE}")) for scores in _read(file, key)]
        return max(known, key=lambda scores: len(scores.found), default=None)

    def keep(self, key: str, scores: KnownScores) -> None:
        self._taken[key] = {
            "whole": _numbers(scores.whole),
            "replied": _numbers(scores.replied),
            "found": scores.found.tolist(),
        }
        write_atomically(self._run / FILE, json.dumps(self._taken))


def key_of(candidate: ModelCandidate, suite: EvalSuite, base_sha256: str) -> str:
    """Of the weights, the dialogues, the contexts drawn from them, and how numbers are computed on this machine."""
    digest = sha256(f"{VERSION} {suite.seed} {wants_bf16('auto', candidate.model.device)} {base_sha256}".encode())
    if candidate.adapter is not None:
        digest.update(weights_sha256(candidate.adapter.path).encode())
        digest.update((candidate.adapter.path / CONFIG).read_bytes())
    for turns in suite.dialogues:
        digest.update(f"{render(turns)}\n".encode())
    return digest.hexdigest()


def base_sha256(candidate: ModelCandidate) -> str:
    """Over all weights of the base, whatever adapters are attached to it."""
    digest = sha256()
    for name, weight in candidate.model.named_parameters():
        if "lora_" not in name:
            digest.update(name.replace(".base_layer", "").encode())
            digest.update(weight.detach().float().contiguous().cpu().numpy().data)
    return digest.hexdigest()


def _numbers(one: Likelihood) -> dict[str, list[float]]:
    return {"nats": one.nats.tolist(), "tokens": one.tokens.tolist(), "size": one.size.tolist()}


def _read(file: Path, key: str) -> Iterator[KnownScores]:
    """A file that cannot be read counts as empty: the scores are computed again."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))[key]
        yield KnownScores(
            whole=_likelihood(stored["whole"]),
            replied=_likelihood(stored["replied"]),
            found=np.array(stored["found"], dtype=np.float64),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return


def _likelihood(stored: Any) -> Likelihood:
    return Likelihood(
        nats=np.array(stored["nats"], dtype=np.float64),
        tokens=np.array(stored["tokens"], dtype=np.int64),
        size=np.array(stored["size"], dtype=np.int64),
    )
