"""The supported model families, for serving and training: one row says what distinguishes each of them.

Knows names and shapes as `config.json` and the weights' files have them; computes nothing and needs no torch. A base of
another architecture is refused with an error that lists these.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from core.errors import ModelError

MAX_CONTEXT = 2_048
"""Tokens of prompt and reply together, whatever the base could take: about 150 lines of chat. Reading a longer prompt
takes a CPU many seconds, and its keys and values take many megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """An architecture. Tensor names are those of the transformers library, without `.weight` and `.bias`."""

    name: str
    """`model_type` in `config.json`, and `general.architecture` in a GGUF file."""
    models: str
    """The models that people know it by."""
    root: str
    """The prefix of every tensor except the head's: `transformer` or `model`."""
    blocks: str
    """The prefix of the blocks below it: `h` or `layers`."""
    embedding: str
    norms: tuple[str, str, str]
    """Before attention and before the feed-forward network, within a block; and the last one, below the root."""
    linear: tuple[str, ...]
    """The linear layers of a block in the order they are computed: what LoRA changes."""
    transposed: bool = False
    """Whether linear weights are stored as (inputs, outputs), GPT-2's Conv1D, instead of (outputs, inputs)."""
    norm: Literal["layer", "rms"] = "rms"
    """LayerNorm with a bias, or RMSNorm without one (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    positions: Literal["learned", "rotary"] = "rotary"
    """A table of positions (tensor `wpe`), or rotations of queries and keys (Su et al. 2021, arXiv:2104.09864)."""
    gated: bool = True
    """SwiGLU, down(silu(gate(x)) · up(x)) (Shazeer 2020, arXiv:2002.05202), or one activation between two layers."""
    biased: tuple[str, ...] = ()
    """Which of `linear` have a bias. Llama's have one where `config.json` says `attention_bias` or `mlp_bias`."""
    head_norms: tuple[str, ...] = ()
    """RMSNorms over each head of queries and keys, before the rotation."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """The names in `config.json` that differ from those of the other families."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The last part of the names in `linear`, each once: `target_modules` of peft."""
        return tuple(dict.fromkeys(name.rsplit(".", 1)[-1] for name in self.linear))

    def read(self, config: Mapping[str, Any], name: str, default: Any = None) -> Any:
        """A value of `config.json` by the name most families give it (`hidden_size`, `num_hidden_layers` …)."""
        found = config.get(self.keys.get(name, name))
        return default if found is None else found


_GPT2 = Family(
    name="gpt2",
    models="GPT-2, DistilGPT2, DialoGPT",
    root="transformer",
    blocks="h",
    embedding="wte",
    norms=("ln_1", "ln_2", "ln_f"),
    linear=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    transposed=True,
    norm="layer",
    positions="learned",
    gated=False,
    biased=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    keys={
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "intermediate_size": "n_inner",
    },
)
_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_LLAMA = Family(
    name="llama",
    models="SmolLM, SmolLM2, TinyLlama, Llama 3.2",
    root="model",
    blocks="layers",
    embedding="embed_tokens",
    norms=("input_layernorm", "post_attention_layernorm", "norm"),
    linear=(*_ATTENTION, "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
_QWEN2 = replace(_LLAMA, name="qwen2", models="Qwen2, Qwen2.5", biased=_ATTENTION)
_QWEN3 = replace(_LLAMA, name="qwen3", models="Qwen3", head_norms=("self_attn.q_norm", "self_attn.k_norm"))
FAMILIES: Mapping[str, Family] = MappingProxyType({row.name: row for row in (_GPT2, _LLAMA, _QWEN2, _QWEN3)})
"""By `model_type`."""

LINEAR = tuple(dict.fromkeys(target for family in FAMILIES.values() for target in family.targets))
"""Every layer that an adapter may change, in any family, by the last part of its name."""
_LAYER = re.compile(
    r"(?:^|\.)(?:"
    + "|".join(
        rf"{blocks}\.\d+\.(?:{'|'.join(re.escape(name) for name in linear)})"
        for blocks, linear in dict.fromkeys((family.blocks, family.linear) for family in FAMILIES.values())
    )
    + r")(?=\.)"
)
_ROOTS = {family.blocks: family.root for family in FAMILIES.values()}


def family_of(config: Mapping[str, Any], base: str) -> Family:
    """The family of a `config.json`. Raises ModelError, naming `base` and the families there are, for another one."""
    kind = str(config.get("model_type", "gpt2"))
    if kind not in FAMILIES:
        known = "; ".join(f"{family.name} ({family.models})" for family in FAMILIES.values())
        raise ModelError(
            f"{base} is a {kind} model, and Person2 works with {known}: set PERSON2_BASE_MODEL to one of these families"
        )
    return FAMILIES[kind]


def layer_of(tensor: str) -> str | None:
    """The linear layer that an adapter's tensor belongs to, as the base names it, or None.

    `base_model.model.model.layers.0.mlp.up_proj.lora_A.weight` → `model.layers.0.mlp.up_proj`.
    """
    match = _LAYER.search(tensor)
    if match is None:
        return None
    layer = match[0].removeprefix(".")
    return f"{_ROOTS[layer.split('.', 1)[0]]}.{layer}"


def context_of(config: Mapping[str, Any], family: Family) -> int:
    """Most tokens of prompt and reply together: what the base was trained for, `MAX_CONTEXT` at most."""
    return min(int(family.read(config, "max_position_embeddings", MAX_CONTEXT)), MAX_CONTEXT)
