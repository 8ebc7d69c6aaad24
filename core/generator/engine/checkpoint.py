"""A GPT-2 folder on disk → its shape and its tensors, without transformers (importing that takes seconds).

Knows file names and tensor names, and which variations of GPT-2 the engine computes; knows nothing of how.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.errors import ModelError

FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json", "vocab.json", "merges.txt"]
"""What is taken from a hub repository; `pytorch_model.bin` only where it has no safetensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    vocabulary: int
    context: int
    """Positions the model knows: most tokens of prompt and reply together."""
    width: int
    layers: int
    heads: int
    inner: int
    """Width of the feed-forward layer, usually 4 × width."""
    epsilon: float
    activation: str
    end_of_text: int

    @property
    def head_width(self) -> int:
        return self.width // self.heads


ReadTensor = Callable[[str], Tensor]
"""A tensor by its name without the `transformer.` prefix, as (…) float32; raises ModelError when it is missing."""


def find(base: str | Path) -> Path:
    """The folder of a model: itself, or the hub's cache of that name, downloaded when it is not there."""
    folder = Path(base)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or str(base).startswith("."):
        raise ModelError(f"there is no model folder at {base}: check BASE_MODEL")
    from huggingface_hub import snapshot_download  # only a hub name pays for this import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    for offline in (True, False):  # what is cached starts without asking the network
        try:
            found = Path(snapshot_download(str(base), allow_patterns=FILES, local_files_only=offline))
            if not any(found.glob("*.safetensors")) and not (found / "pytorch_model.bin").exists():
                wanted = [*FILES, "pytorch_model.bin"]
                found = Path(snapshot_download(str(base), allow_patterns=wanted, local_files_only=offline))
        except LocalEntryNotFoundError:
            continue
        except HFValidationError as error:
            raise ModelError(f"{str(base)!r} is neither a folder nor a hub name: check BASE_MODEL") from error
        except (HfHubHTTPError, OSError) as error:
            raise ModelError(f"the model {base} could not be downloaded ({error}): check its name") from error
        if any(found.glob("*.safetensors")) or (found / "pytorch_model.bin").exists():
            return found
    raise ModelError(f"the model {base} is not cached and the hub cannot be reached: download it or give a folder")


def read_config(folder: Path) -> ModelConfig:
    """The shape written in `config.json`. Raises ModelError for what the engine does not compute."""
    config = read_json(folder / "config.json")
    if config.get("model_type", "gpt2") != "gpt2":
        raise ModelError(
            f"{folder} holds a {config['model_type']} model, and the engine speaks GPT-2 only: choose another base"
        )
    for key, usual in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        if config.get(key, usual) != usual:
            raise ModelError(f"{folder} sets {key}={config[key]}, which the engine lacks: set GENERATOR=transformers")
    activation = str(config.get("activation_function", "gelu_new"))
    if activation not in {"gelu_new", "gelu_pytorch_tanh", "gelu", "relu"}:
        raise ModelError(f"{folder} uses {activation}, which the engine lacks: set GENERATOR=transformers")
    try:
        width = int(config["n_embd"])
        end = config.get("eos_token_id", 50256)
        return ModelConfig(
            vocabulary=int(config["vocab_size"]),
            context=int(config["n_positions"]),
            width=width,
            layers=int(config["n_layer"]),
            heads=int(config["n_head"]),
            inner=int(config.get("n_inner") or 4 * width),
            epsilon=float(config.get("layer_norm_epsilon", 1e-5)),
            activation="gelu_new" if activation == "gelu_pytorch_tanh" else activation,
            end_of_text=int(end[0] if isinstance(end, list) else end if end is not None else -1),
        )
    except KeyError as error:
        raise ModelError(f"{folder / 'config.json'} lacks {error}: give a folder that holds a GPT-2 model") from error


@contextmanager
def opened(folder: Path) -> Iterator[ReadTensor]:
    """The tensors of a folder for as long as the block lasts; files stay mapped, so nothing is read twice."""
    index = folder / "model.safetensors.index.json"
    legacy = folder / "pytorch_model.bin"
    with ExitStack() as stack:
        where: dict[str, Callable[[str], Any]] = {}
        try:
            if index.exists():
                files = sorted(set(read_json(index)["weight_map"].values()))
            else:
                files = sorted(file.name for file in folder.glob("*.safetensors"))
            for file in files:
                part = stack.enter_context(safe_open(folder / file, framework="pt"))
                where.update(dict.fromkeys(part.keys(), part.get_tensor))
            if not files and legacy.exists():
                state = torch.load(legacy, map_location="cpu", weights_only=True, mmap=True)
                where.update(dict.fromkeys(state, state.__getitem__))
        except (SafetensorError, OSError, RuntimeError, KeyError) as error:
            raise ModelError(f"the weights in {folder} are damaged ({error}): fetch them again") from error
        if not where:
            raise ModelError(f"there are no weights in {folder}: it needs model.safetensors")

        def take(name: str) -> Tensor:
            for known in (f"transformer.{name}", name):
                if known in where:
                    tensor: Tensor = where[known](known)
                    return tensor.to(torch.float32, copy=True)  # a view would keep the whole file mapped
            raise ModelError(f"{folder} lacks the tensor {name}: give a folder that holds a whole GPT-2 model")

        yield take


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"there is no {path.name} in {path.parent}: give a whole model folder") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}): fetch it again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object: fetch it again")
    return found
