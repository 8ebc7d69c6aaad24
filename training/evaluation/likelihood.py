"""How well a model predicts dialogues: nats per dialogue, and bits per byte.

The convention for every figure of this project: `bits_per_byte` is over whole dialogues: it counts every token of the
rendered dialogue (`Person1: …\\nPerson2: …\\n`) but the first, which has no context and is the same in every dialogue,
over the UTF-8 bytes of the whole text. The end of text after a dialogue is not counted: a bot is never asked for it,
and fine-tuning does not teach it. `reply_bits_per_byte` counts what follows `Person2:`, newline included, over those
bytes. Bytes do not depend on the tokenizer, so models with different vocabularies compare. A dialogue longer than the
context is read in windows that overlap by half; each token is counted once. Sums over a corpus, not means over
dialogues: long ones weigh more.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from core.dialogue import Dialogue, Speaker, render
from training.finetune.base import casting
from training.finetune.dataset import IGNORE, Rows, Window, collate, encode_rows, pack, windows
from training.finetune.encoder import Encoder, Targets
from training.finetune.model import MaskedLossModel, target_nats

BLOCK = 1_024
"""Tokens of a window when scoring, where the model's context allows: GPT-2's own length."""
ROWS_AT_ONCE = 8_192
"""Tokens in a scoring batch; a bound on memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """Sums by dialogue, (D,) each, so that intervals can be drawn over dialogues."""

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]
    size: NDArray[np.int64]
    """UTF-8 bytes."""

    @classmethod
    def joined(cls, parts: "Sequence[Likelihood]") -> "Likelihood":
        """Several corpora as one."""
        return cls(
            nats=np.concatenate([part.nats for part in parts]),
            tokens=np.concatenate([part.tokens for part in parts]),
            size=np.concatenate([part.size for part in parts]),
        )

    @property
    def bits_per_byte(self) -> float:
        return float(self.nats.sum() / math.log(2) / max(1, self.size.sum()))

    @property
    def perplexity(self) -> float:
        """Per token of this model's own vocabulary: not to be compared across vocabularies."""
        return float(np.exp(self.nats.sum() / max(1, self.tokens.sum())))


def byte_counts(dialogues: Sequence[Dialogue], targets: Targets) -> NDArray[np.int64]:
    """UTF-8 bytes of what is scored, (D,)."""
    if targets is Targets.EVERYTHING:
        return np.array([len(render(turns).encode()) for turns in dialogues], dtype=np.int64)
    return np.array(
        [
            sum(len(f" {turn.text}\n".encode()) for turn in turns if turn.speaker is Speaker.PERSON2)
            for turns in dialogues
        ],
        dtype=np.int64,
    )


def nats_of_targets(
    model: MaskedLossModel, rows: Rows, *, end: int, bf16: bool = False
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Batch by batch the owner of each target in `rows` (`Window.dialogue`) and its nats, (targets,) each; those of a
    window follow one another in order."""
    where = model.device
    learning = model.training
    model.train(False)
    try:
        # Rows of similar length together, so that there is little padding.
        order = np.argsort(-rows.lengths, kind="stable").tolist()
        step = max(1, ROWS_AT_ONCE // rows.block)
        for at in range(0, len(order), step):
            batch = collate([rows[index] for index in order[at : at + step]], end=end, owners=True)
            owner = batch.pop("owners")[:, 1:][batch["labels"][:, 1:] != IGNORE].numpy()
            with torch.inference_mode(), casting(where, bf16):
                losses = target_nats(model, {name: tensor.to(where) for name, tensor in batch.items()})
            yield owner, losses.double().cpu().numpy()
    finally:
        model.train(learning)


def sum_by_dialogue(
    model: MaskedLossModel, rows: Rows, *, dialogues: int, end: int, bf16: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Nats and tokens of the targets in `rows`, by dialogue, (dialogues,) each."""
    nats = np.zeros(dialogues, dtype=np.float64)
    tokens = np.zeros(dialogues, dtype=np.int64)
    for owner, losses in nats_of_targets(model, rows, end=end, bf16=bf16):
        np.add.at(nats, owner, losses)
        np.add.at(tokens, owner, 1)
    return nats, tokens


def likelihood(
    model: MaskedLossModel,
    encoder: Encoder,
    dialogues: Sequence[Dialogue],
    *,
    targets: Targets,
    bf16: bool = False,
) -> Likelihood:
    """How well `model` predicts `dialogues`; in fp32 by default."""
    block = min(BLOCK, model.context_length)
    rows = encode_rows(dialogues, encoder, block=block, seed=0, targets=targets)
    nats, tokens = sum_by_dialogue(model, rows, dialogues=len(dialogues), end=encoder.end, bf16=bf16)
    return Likelihood(nats=nats, tokens=tokens, size=byte_counts(dialogues, targets))


def whole_and_replied(
    model: MaskedLossModel, encoder: Encoder, dialogues: Sequence[Dialogue]
) -> tuple[Likelihood, Likelihood]:
    """How well `model` predicts whole dialogues, and the replies in them, from one reading in fp32."""
    block = min(BLOCK, model.context_length)
    windows_of: list[tuple[int, NDArray[np.bool_]]] = []  # the dialogue, and which targets are part of a reply

    def stream() -> Iterator[Window]:
        encoded = zip(*(encoder.encode(dialogues, targets) for targets in Targets), strict=True)
        for index, (replies, everything) in enumerate(encoded):
            is_reply, done = replies.target[everything.target], 0
            for window in windows(everything, block=block):
                # A window's first token has no context to be predicted from.
                count, unseen = int(window.target.sum()), int(window.target[0])
                target = np.concatenate([[False], window.target[1:]])
                yield replace(window, target=target, dialogue=len(windows_of))
                windows_of.append((index, is_reply[done + unseen : done + count]))
                done += count

    rows = Rows(pack(stream(), block=block, seed=0), block=block)
    sums = {targets: (np.zeros(len(dialogues)), np.zeros(len(dialogues), dtype=np.int64)) for targets in Targets}
    for owner, losses in nats_of_targets(model, rows, end=encoder.end):
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        is_reply = np.concatenate([windows_of[number][1] for number in owner[first]])
        dialogue = np.array([windows_of[number][0] for number in owner])
        for targets, (nats, tokens) in sums.items():
            here = is_reply if targets is Targets.REPLIES else np.ones(len(owner), dtype=np.bool_)
            np.add.at(nats, dialogue[here], losses[here])
            np.add.at(tokens, dialogue[here], 1)
    whole, replied = (
        Likelihood(nats=sums[targets][0], tokens=sums[targets][1], size=byte_counts(dialogues, targets))
        for targets in (Targets.EVERYTHING, Targets.REPLIES)
    )
    return whole, replied
