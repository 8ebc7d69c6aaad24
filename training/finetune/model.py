"""A base for training and scoring: the language-model head is computed only where there is a target.

Knows the loss; knows no data and no files. The head is a large part of a small model (a third of the starter's
multiplications, two fifths of gpt2's), and in a dialogue about half of the tokens are not targets.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers import (
    GenerationMixin,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)
from transformers.modeling_outputs import CausalLMOutput

from core.generator.families import context_of, family_of
from training.finetune.dataset import IGNORE, Batch

HEAD_ROWS = 512
"""Targets whose logits exist at a time: 512 × 50,257 in fp32 are 103 MB."""
HEAD_SIZES = 64
"""Rows are padded to a multiple of it, since oneDNN caches kernels for every number of rows."""


def nats_with_gradients(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """−log P of each target under a frozen head, (N,) fp32, and its gradient with respect to `hidden`, (N, d).

    The gradient, (softmax − one-hot) · W, is computed with the loss, so the logits of a slice of targets are gone
    before the next one comes (after Liger Kernel's fused linear cross-entropy, Hsu et al. 2024, arXiv:2410.10989; here
    without a weight gradient, because LoRA leaves the head alone). `weight` (V, d), `targets` (N,) int64.
    """
    nats = hidden.new_empty(len(hidden), dtype=torch.float32)
    gradient = torch.empty_like(hidden)
    matrix = weight.to(hidden.dtype)
    for at in range(0, len(hidden), HEAD_ROWS):
        here = slice(at, at + HEAD_ROWS)
        rows = len(targets[here])
        more = -rows % HEAD_SIZES
        logits = (nn.functional.pad(hidden[here], (0, 0, 0, more)) @ matrix.T).float()
        gold = nn.functional.pad(targets[here], (0, more))[:, None]
        normal = logits.logsumexp(-1, keepdim=True)
        nats[here] = (normal - logits.gather(-1, gold))[:rows, 0]
        logits.sub_(normal).exp_()
        logits.scatter_add_(-1, gold, logits.new_full(gold.shape, -1.0))
        gradient[here] = (logits.to(hidden.dtype) @ matrix)[:rows]
    return nats, gradient


class FrozenHeadLoss(torch.autograd.Function):
    """Sum of cross-entropies of a frozen head, whose gradient is computed with it."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """`hidden` (N, d), `weight` (V, d), `targets` (N,) int64 → () fp32."""
        nats, gradient = nats_with_gradients(hidden, weight, targets)
        ctx.save_for_backward(gradient)
        return nats.sum()

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0].to(gradient.dtype), None, None


if TYPE_CHECKING:

    class _CausalLM(PreTrainedModel, GenerationMixin): ...
else:  # at run time the classes below get these from transformers' own
    _CausalLM = object


class MaskedLossModel(_CausalLM):
    """A model whose loss is computed over targets only. Weights, names and folders are those of transformers' class."""

    accepts_loss_kwargs = True
    lm_head: nn.Linear

    @property
    def context_length(self) -> int:
        """The most tokens that are read at once."""
        config = self.config.to_dict()
        return context_of(config, family_of(config, "this base"))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **others: Any,
    ) -> Any:
        """Without labels as the parent; with labels the mean loss over `num_items_in_batch` targets (or all here).

        With labels an attention mask is refused, because with one, dialogues of a row would see each other.
        `input_ids`, `position_ids`, `labels`: (B, T) int64.
        """
        if labels is None:
            return super().forward(
                input_ids=input_ids,
                position_ids=position_ids,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                **others,
            )
        if attention_mask is not None:
            raise ValueError("packed rows are told apart by position ids, and an attention mask would undo that")
        hidden, targets = self.predicting(input_ids, position_ids, labels)
        if self.lm_head.weight.requires_grad or not torch.is_grad_enabled():
            total = nn.functional.cross_entropy(self.lm_head(hidden).float(), targets, reduction="sum")
        else:
            device = hidden.device.type
            if torch.is_autocast_enabled(device):
                hidden = hidden.to(torch.get_autocast_dtype(device))
            with torch.autocast(device, enabled=False):
                total = cast("torch.Tensor", FrozenHeadLoss.apply(hidden, self.lm_head.weight, targets))  # type: ignore[no-untyped-call] # so in torch
        count = targets.numel() if num_items_in_batch is None else num_items_in_batch
        return CausalLMOutput(loss=total / max(1, count) if isinstance(count, int) else total / count.clamp(min=1))

    def predicting(
        self, input_ids: torch.Tensor | None, position_ids: torch.Tensor | None, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The hidden states that predict a target, (N, d), and the targets, (N,) int64, in row order."""
        states = self.base_model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, packed=True
        ).last_hidden_state
        wanted = labels[:, 1:] != IGNORE
        return states[:, :-1][wanted], labels[:, 1:][wanted]


class _Gpt2(MaskedLossModel, GPT2LMHeadModel): ...


class _Llama(MaskedLossModel, LlamaForCausalLM): ...


class _Qwen2(MaskedLossModel, Qwen2ForCausalLM): ...


class _Qwen3(MaskedLossModel, Qwen3ForCausalLM): ...


LEARNERS: Mapping[str, type[MaskedLossModel]] = MappingProxyType(
    {"gpt2": _Gpt2, "llama": _Llama, "qwen2": _Qwen2, "qwen3": _Qwen3}
)
"""By the name of the family (`core.generator.families`)."""


@torch.no_grad()
def target_nats(model: MaskedLossModel, batch: Batch) -> torch.Tensor:
    """−log P of every target of a batch in row order, (N,) fp32, in nats. The model should be in eval mode."""
    hidden, targets = model.predicting(batch["input_ids"], batch["position_ids"], batch["labels"])
    pieces = []
    for at in range(0, len(hidden), HEAD_ROWS):
        here = slice(at, at + HEAD_ROWS)
        logits = model.lm_head(hidden[here]).float()
        pieces.append(nn.functional.cross_entropy(logits, targets[here], reduction="none"))
    return torch.cat(pieces) if pieces else hidden.new_zeros(0, dtype=torch.float32)
