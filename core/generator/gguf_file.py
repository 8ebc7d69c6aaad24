"""A GGUF file (llama.cpp's format) → a folder as transformers saves it, made once and kept in the user's cache.

So the engine, transformers, training and merging read one format, and a start does not unpack the weights again. The
`gguf` package reads Q4_0, Q4_1, Q8_0, the K-quants, F16, BF16 and F32; the vocabulary is left to the transformers
library.
"""

import hashlib
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from core.errors import ModelError, reason
from core.generator.families import FAMILIES, Family

log = logging.getLogger(__name__)

SUFFIX = ".gguf"
ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_HASHED_BYTES = 1 << 20
"""Bytes from each end of a file that are hashed for its key in the cache: the vocabulary, and the last weights."""


def unpacked(file: Path, *, cache: Path | None = None) -> Path:
    """The folder of a GGUF file's model, in bfloat16 or float32 where the file is, else in float16.

    `cache` is the user's own unless given. Takes some seconds for a new file. Raises ModelError.
    """
    if not file.is_file():
        raise ModelError(
            f"there is no file {file}: set PERSON2_BASE_MODEL to an existing GGUF file, a folder or a hub name"
        )
    bases = (cache or user_cache_path("person2", appauthor=False)) / "bases"
    folder = bases / f"{file.stem}-{_key(file)}"
    if folder.is_dir():
        return folder
    log.info("unpacking %s into %s, once", file.name, folder)
    try:
        bases.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=bases, prefix=".new-") as scratch:
            made = Path(scratch) / folder.name
            _unpack(file, made)
            if not folder.is_dir():  # another process may have been quicker
                made.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise ModelError(
                f"{file} cannot be unpacked into {bases} ({reason(error)}): check the space left"
            ) from error
    return folder


def _key(file: Path) -> str:
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as raw:
        digest.update(raw.read(_HASHED_BYTES))
        raw.seek(max(0, size - _HASHED_BYTES))
        digest.update(raw.read())
    return digest.hexdigest()[:12]


def _unpack(file: Path, folder: Path) -> None:
    import torch
    from gguf import GGUFReader
    from safetensors.torch import save_file
    from transformers import AutoTokenizer
    from transformers.utils import logging as transformers_logging

    try:
        reader: Any = GGUFReader(str(file))
        name = str(reader.fields["general.architecture"].contents())
        kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise ModelError(f"{file} is not a complete GGUF file ({reason(error)}): download it again") from error
    if name not in FAMILIES:
        known = "; ".join(f"{one.name} ({one.models})" for one in FAMILIES.values())
        raise ModelError(f"{file} is a {name} model, and Person2 works with {known}: choose one of these families")
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        config = _config(reader, FAMILIES[name])
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)
        tokenizer.save_pretrained(str(folder))
        kind = kinds.most_common(1)[0][0]
        dtype = {"BF16": torch.bfloat16, "F32": torch.float32}.get(kind, torch.float16)
        weights = {place: torch.from_numpy(values).to(dtype) for place, values in _tensors(reader, config)}
    except (ValueError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        raise ModelError(
            f"{file} cannot be unpacked ({reason(error)}): use a file in Q4_0, Q4_1, Q8_0, F16 or BF16"
        ) from error
    finally:
        transformers_logging.set_verbosity(level)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _config(reader: Any, family: Family) -> dict[str, Any]:
    """`config.json` of the model in a file. Raises KeyError for what is missing."""

    def told(key: str, default: Any = None) -> Any:
        field = reader.fields.get(f"{family.name}.{key}")
        if field is None and default is None:
            raise KeyError(f"{family.name}.{key}")
        return default if field is None else field.contents()

    def token(key: str) -> int | None:
        field = reader.fields.get(f"tokenizer.ggml.{key}_token_id")
        return None if field is None else int(field.contents())

    names = {tensor.name: tensor for tensor in reader.tensors}
    width, heads = int(told("embedding_length")), int(told("attention.head_count"))
    shared = {
        "hidden_size": width,
        "num_hidden_layers": int(told("block_count")),
        "num_attention_heads": heads,
        "max_position_embeddings": int(told("context_length")),
        "intermediate_size": int(told("feed_forward_length")),
    }
    config: dict[str, Any] = {
        "model_type": family.name,
        "architectures": [ARCHITECTURES[family.name]],
        **{family.keys.get(name, name): value for name, value in shared.items()},
        "vocab_size": int(names["token_embd.weight"].shape[1]),
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": token("bos"),
        "eos_token_id": token("eos"),
    }
    if family.norm == "layer":
        return {**config, "layer_norm_epsilon": float(told("attention.layer_norm_epsilon"))}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(told("rope.freq_base", 10_000.0))}
    if "rope_freqs.weight" in names:
        rope |= _llama3_scaling(names["rope_freqs.weight"].data, rope["rope_theta"])
    return {
        **config,
        "hidden_act": "silu",
        "head_dim": int(told("attention.key_length", width // heads)),
        "num_key_value_heads": int(told("attention.head_count_kv", heads)),
        "rms_norm_eps": float(told("attention.layer_norm_rms_epsilon")),
        "rope_parameters": rope,
        "attention_bias": family.name == "llama" and "blk.0.attn_q.bias" in names,
        "mlp_bias": "blk.0.ffn_up.bias" in names,
    }


def _llama3_scaling(factors: NDArray[np.float32], theta: float) -> dict[str, Any]:
    """Llama 3's position scaling, from the factors in the file that divide each frequency.

    Raises ValueError for factors other than those of Meta's models.
    """
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"factor": float(factors.max()), "original_max_position_embeddings": 8_192}
    config = LlamaConfig(head_dim=2 * len(factors), rope_parameters={**scaling, "rope_theta": theta})
    found, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = theta ** (-np.arange(len(factors)) / len(factors))
    if not np.allclose(plain / found.numpy(), factors, rtol=1e-3):
        raise ValueError("its position scaling is not supported")
    return scaling


def _tensors(reader: Any, config: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The weights under transformers' names and in its layout, float32."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
    from gguf.quants import dequantize

    family = FAMILIES[config["model_type"]]
    layers = int(family.read(config, "num_hidden_layers"))
    architecture = next(kind for kind, name in MODEL_ARCH_NAMES.items() if name == family.name)
    places = get_tensor_name_map(architecture, layers)
    block = [*family.linear, *family.norms[:2], *family.head_norms]
    ours = [f"{family.root}.{family.blocks}.{layer}.{name}" for layer in range(layers) for name in block]
    ours += [f"{family.root}.{name}" for name in (family.embedding, "wpe", family.norms[2])] + ["lm_head"]
    known = {
        place: name
        for each in ours
        for suffix in (".weight", ".bias")
        if (place := places.get_name(name := f"{each}{suffix}", try_suffixes=(".weight", ".bias"))) is not None
    }
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        name = known[tensor.name]
        values: NDArray[np.float32] = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if family.transposed and values.ndim == 2 and name.removesuffix(".weight").endswith(family.linear):
            values = np.ascontiguousarray(values.T)
        for module, key in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if family.name == "llama" and f".{module}." in name:
                values = deinterleaved(values, int(config[key]))
        yield name, np.ascontiguousarray(values)


def deinterleaved(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo llama.cpp's row order in queries and keys: it interleaves the two halves of a head that rotate together."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
