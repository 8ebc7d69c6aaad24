"""A transformers model → one GGUF file, which llama.cpp, llama-cpp-python and Ollama load.

Knows the format through the `gguf` package, and where llama.cpp's layout differs from transformers': Conv1D's weights
are transposed, and the rows of Llama's queries and keys are in another order. Matrices are written as F16 or Q8_0,
vectors as F32. The prompt stays Person2's own (`Person1:`, `Person2:`): whoever serves the file completes texts.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.errors import AdapterError
from core.generator.families import FAMILIES
from core.generator.vocabulary import end_tokens

Kind: TypeAlias = Literal["F16", "Q8_0"]
KINDS: tuple[Kind, ...] = ("F16", "Q8_0")
_BLOCK = 32  # numbers that share a scale in Q8_0


def write_gguf(model: PreTrainedModel, tokenizer: Tokenizer, file: Path, *, kind: Kind, name: str) -> None:
    """Raises AdapterError for a vocabulary that is not a byte-level BPE, and OSError."""
    family = FAMILIES[model.config.model_type]
    writer = gguf.GGUFWriter(str(file), family.name)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if kind == "F16" else gguf.LlamaFileType.MOSTLY_Q8_0)
    _shape(writer, model)
    _vocabulary(writer, tokenizer, model)
    for place, values in _tensors(model):
        if values.ndim == 1:
            writer.add_tensor(place, values.astype(np.float32))
        elif kind == "Q8_0" and values.shape[-1] % _BLOCK == 0:
            quantized = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(place, gguf.quants.quantize(values, quantized), raw_dtype=quantized)
        else:
            writer.add_tensor(place, values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _shape(writer: Any, model: PreTrainedModel) -> None:
    config: Any = model.config
    heads = int(config.num_attention_heads)
    writer.add_context_length(int(config.max_position_embeddings))
    writer.add_embedding_length(int(config.hidden_size))
    writer.add_block_count(int(config.num_hidden_layers))
    writer.add_feed_forward_length(int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size))
    writer.add_head_count(heads)
    writer.add_vocab_size(int(config.vocab_size))
    family = FAMILIES[config.model_type]
    if family.norm == "layer":
        writer.add_layer_norm_eps(float(config.layer_norm_epsilon))
        return
    depth = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    writer.add_head_count_kv(int(config.num_key_value_heads))
    writer.add_key_length(depth)
    writer.add_value_length(depth)
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    writer.add_rope_dimension_count(depth)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """llama.cpp's names and layouts; a head tied to the embedding is left out."""
    config: Any = model.config
    family = FAMILIES[config.model_type]
    places = gguf.get_tensor_name_map(
        next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == family.name), config.num_hidden_layers
    )
    transposed = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        place = places.get_name(name, try_suffixes=(".weight", ".bias"))
        if place is None:
            raise AdapterError(f"the base's tensor {name} has no place in a GGUF file: merge it without --gguf")
        values: NDArray[np.float32] = weight.float().numpy()
        if name in transposed:
            values = values.T.copy()
        if family.name == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            count = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            values = _interleaved(values, int(count))
        yield place, values
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") == "llama3":
        scaled: torch.Tensor = model.base_model.rotary_emb.inv_freq.float()  # type: ignore[assignment, union-attr]
        plain = rope["rope_theta"] ** (-torch.arange(len(scaled)) / len(scaled))
        yield "rope_freqs.weight", (plain / scaled).numpy()


def _interleaved(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Each head's two halves, which are rotated against each other, row by row in turn."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _vocabulary(writer: Any, tokenizer: Tokenizer, model: PreTrainedModel) -> None:
    whole = json.loads(tokenizer.to_str())
    if whole["model"].get("type") != "BPE" or "ByteLevel" not in json.dumps(whole.get("pre_tokenizer")):
        raise AdapterError("only byte-level vocabularies can be written as GGUF: merge it without --gguf")
    config: Any = model.config
    tokens = {number: token for token, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    special = {added["id"] for added in whole.get("added_tokens", ()) if added.get("special")}
    kinds, texts = [], []
    for number in range(int(config.vocab_size)):
        texts.append(tokens.get(number, f"[PAD{number}]"))
        known = gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL
        kinds.append(known if number in tokens else gguf.TokenType.UNUSED)
    ends = end_tokens(tokenizer, config.to_dict())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(json.dumps(whole["pre_tokenizer"])))
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in whole["model"]["merges"]])
    writer.add_eos_token_id(min(ends))
    if isinstance(config.bos_token_id, int):
        writer.add_bos_token_id(config.bos_token_id)
    writer.add_add_bos_token(False)


def _pre_tokenizer(described: str) -> str:
    """llama.cpp's name of the pre-tokenizer."""
    if "{1,3}" in described:
        return "llama-bpe"
    if "Split" in described:
        return "qwen2"
    return "smollm" if "Digits" in described else "gpt-2"
