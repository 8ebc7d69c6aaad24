"""The network, its loss and its optimizers: transformers' GPT-2, with passes in any dtype and weights in float32.

Knows torch and transformers; knows no files, no corpora and no schedule.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from core.errors import TrainingError
from training.pretrain.muon import Muon

WEIGHTS = "model.safetensors"
LOSS_CHUNK = 512
"""Positions whose logits exist at once: (512, vocabulary) in float32 stays in the processor's caches."""

HEAD_WIDTH = 64
"""Of each attention head, as in every GPT-2."""

IGNORED = -100
"""A target that does not count."""

BLOCK = re.compile(r"transformer\.h\.(\d+)\.")
"""What the names of a layer's weights begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkShape:
    """The size of the network."""

    width: int = 256
    layers: int = 6
    context: int = 512
    vocabulary: int = 8_192
    dropout: float = 0.0


def build(shape: NetworkShape, *, seed: int) -> GPT2LMHeadModel:
    """An untrained network in float32; the same seed gives the same one. End of text is token 0."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=shape.context,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=max(1, shape.width // HEAD_WIDTH),
        # the same function as GPT-2's gelu_new in one kernel; `export` writes gelu_new
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=shape.dropout,
        embd_pdrop=shape.dropout,
        attn_pdrop=shape.dropout,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=True,
    )
    return GPT2LMHeadModel(config)


def take_over(network: GPT2LMHeadModel, folder: Path) -> None:
    """Give `network` the weights of a folder that `card.export` wrote. Raises TrainingError if their shapes differ.

    `network` may have more layers: it then computes the same function at first.
    """
    path = folder / WEIGHTS
    try:
        found = load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); name a folder that this tool wrote.") from error
    own = dict(network.named_parameters())
    found = deepened(found, layers=network.config.n_layer)
    if {name: weight.shape for name, weight in found.items()} != {name: weight.shape for name, weight in own.items()}:
        raise TrainingError(
            f"The weights in {folder} have another shape; start with its width and context, and no fewer layers."
        )
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(found[name])


def deepened(weights: Mapping[str, Tensor], *, layers: int) -> dict[str, Tensor]:
    """The same function in `layers` layers; `weights` as they are where they have as many or more.

    New layers are spread among the old, each a copy of the one below whose two output projections are zero, so it is an
    identity (block expansion of Wu et al. 2024, arXiv:2401.02415).
    """
    old = 1 + max((int(block[1]) for name in weights if (block := BLOCK.match(name))), default=-1)
    if layers <= old:
        return dict(weights)
    grown: dict[str, Tensor] = {}
    for name, weight in weights.items():
        block = BLOCK.match(name)
        if block is None:
            grown[name] = weight
            continue
        first, *copies = (place for place in range(layers) if place * old // layers == int(block[1]))
        rest = name[block.end() :]
        grown[f"transformer.h.{first}.{rest}"] = weight
        for place in copies:
            grown[f"transformer.h.{place}.{rest}"] = torch.zeros_like(weight) if ".c_proj." in name else weight
    return grown


def blend(network: GPT2LMHeadModel, folder: Path, share: float) -> None:
    """Move `network`, in place, by `share` of the way back to the weights of `folder`. Raises TrainingError.

    A run that starts from a finished model stays in the same loss basin: between the two the loss is lower than at
    either end (Wortsman et al. 2022, arXiv:2109.01903).
    """
    ends = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    take_over(network, folder)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.lerp_(ends[name], 1 - share)


def states(network: GPT2LMHeadModel, inputs: Tensor, *, dtype: torch.dtype, **more: Tensor) -> Tensor:
    """The input of the output head: (B × T, width) of `dtype`. `inputs`: (B, T) int64; `more` goes to the network.

    The weights are cast to `dtype` for the pass; gradients come back in float32.
    """
    body = network.transformer
    weights = {name: weight.to(dtype) for name, weight in body.named_parameters()}
    output = torch.func.functional_call(body, weights, (), {"input_ids": inputs, "use_cache": False, **more})
    hidden: Tensor = output.last_hidden_state
    return hidden.reshape(-1, hidden.shape[-1])


def nats(network: GPT2LMHeadModel, inputs: Tensor, targets: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Σ −ln p(target): () float32, differentiable. `inputs`, `targets`: (B, T) int64.

    Targets of `IGNORED` do not count.
    """
    targets = targets.reshape(-1)
    hidden, table = states(network, inputs, dtype=dtype), network.transformer.wte.weight
    if torch.is_grad_enabled():
        return weighted_nats(hidden, table, targets, (targets != IGNORED).float())
    return token_nats(hidden, table, targets).sum()


def weighted_nats(hidden: Tensor, table: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Σ −w ln p(target): () float32, differentiable by `hidden` and `table`, not by `weights`, (N,) float32.

    `hidden`: (N, width) of the pass's dtype; `table`: (vocabulary, width) float32; `targets`: (N,) int64.
    """
    total: Tensor = _TiedLoss.apply(hidden, table, targets, weights)  # type: ignore[no-untyped-call]
    return total


@torch.no_grad()
def token_nats(hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """−ln p(target) of each token, (N,) float32; 0 where it is `IGNORED`."""
    cast, parts = table.to(hidden.dtype), []
    for at in range(0, len(targets), LOSS_CHUNK):
        logits = (hidden[at : at + LOSS_CHUNK] @ cast.t()).float()
        parts.append(
            functional.cross_entropy(logits, targets[at : at + LOSS_CHUNK], ignore_index=IGNORED, reduction="none")
        )
    return torch.cat(parts)


class _TiedLoss(torch.autograd.Function):
    """`weighted_nats` with its gradient made in the same pass, chunk by chunk: softmax − one-hot is at hand while the
    logits are, so they are neither kept nor made a second time (as Hsu et al. 2024, arXiv:2410.10989, do on GPUs)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        cast = table.to(hidden.dtype)
        of_hidden, of_table = torch.empty_like(hidden), torch.zeros_like(table)
        total = hidden.new_zeros((), dtype=torch.float32)
        for at in range(0, len(targets), LOSS_CHUNK):
            inputs, chunk = hidden[at : at + LOSS_CHUNK], targets[at : at + LOSS_CHUNK, None]
            share = weights[at : at + LOSS_CHUNK, None]
            chunk = chunk.clamp(min=0)  # an ignored one weighs nothing
            logits = (inputs @ cast.t()).float()
            logarithms = torch.log_softmax(logits, dim=1)
            given = logarithms.gather(1, chunk)
            total -= (given * share).sum()
            errors = logarithms.exp_()
            errors.scatter_add_(1, chunk, torch.full_like(given, -1.0))
            # One weight for all, as in a row of the mixture, leaves the errors as they are.
            if not bool((share == 1).all()):
                errors *= share
            small = errors.to(hidden.dtype)
            torch.mm(small, cast, out=of_hidden[at : at + LOSS_CHUNK])
            of_table += small.t() @ inputs
        ctx.save_for_backward(of_hidden, of_table)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_hidden, of_table = ctx.saved_tensors
        return of_hidden * outer[0].to(of_hidden.dtype), of_table * outer[0], None, None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Peak learning rates. The matrices inside the blocks learn by Muon, everything else by AdamW."""

    muon: float = 0.01
    """On the scale of AdamW's (see `training.pretrain.muon`). 0: AdamW for the matrices too."""
    adam: float = 0.003
    weight_decay: float = 0.05


class Optimizers:
    """Muon for the blocks' matrices (Jordan et al. 2024) and AdamW for embeddings, norms and biases, as one."""

    def __init__(self, network: nn.Module, rates: Rates, *, dtype: torch.dtype = torch.float32) -> None:
        """`dtype`: of Muon's products."""
        matrices = [(name, weight) for name, weight in network.named_parameters() if _is_matrix(name, weight)]
        others = [(name, weight) for name, weight in network.named_parameters() if not _is_matrix(name, weight)]
        if rates.muon == 0:
            matrices, others = [], matrices + others
        decayed = [weight for _, weight in others if weight.ndim > 1]
        plain = [weight for _, weight in others if weight.ndim <= 1]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [{"params": decayed, "weight_decay": rates.weight_decay}, {"params": plain, "weight_decay": 0.0}],
                lr=rates.adam,
                betas=(0.9, 0.95),
                fused=True,
            )
        ]
        if matrices:
            self._parts.append(
                Muon([weight for _, weight in matrices], lr=rates.muon, weight_decay=rates.weight_decay, dtype=dtype)
            )
        self._peaks = [[float(group["lr"]) for group in part.param_groups] for part in self._parts]

    def step(self, factor: float) -> None:
        """Learn from the gradients at `factor` of the peak rates, then clear them."""
        for part, peaks in zip(self._parts, self._peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, object]]:
        return [part.state_dict() for part in self._parts]

    def restore(self, state: list[dict[str, object]]) -> None:
        for part, saved in zip(self._parts, state, strict=True):
            part.load_state_dict(saved)


def _is_matrix(name: str, weight: Tensor) -> bool:
    return weight.ndim == 2 and not name.endswith(("wte.weight", "wpe.weight"))


class Average:
    """An exponential moving average of the weights: nearly as good as a cool-down, at any moment of the run."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: weight.detach().clone() for name, weight in _weights(network)}
        self.updates = 0

    def restore(self, weights: Mapping[str, Tensor], *, updates: int) -> None:
        """Go on from a checkpoint's, wherever they lie."""
        for name, own in self.weights.items():
            own.copy_(weights[name])
        self.updates = updates

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Short memory at first, so that the average forgets where it began."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, weight in _weights(network):
            self.weights[name].lerp_(weight, 1 - decay)


def _weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
