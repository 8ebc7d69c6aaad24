"""Which base models are on this machine, and how much memory they take to chat and to train.

Reads the headers of weights, never the weights; downloads nothing and needs no torch.
"""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from core.generator.bases import SMOLLM2, SMOLLM2_HUB, SMOLLM2_PACKAGE, STARTER
from core.generator.families import FAMILIES
from core.generator.gguf_file import SUFFIX

WELL_KNOWN = {
    "distilgpt2": 82_000_000,
    "gpt2": 124_000_000,
    SMOLLM2: 135_000_000,
    "gpt2-medium": 355_000_000,
    "HuggingFaceTB/SmolLM2-360M": 362_000_000,
    "Qwen/Qwen2.5-0.5B": 494_000_000,
    "Qwen/Qwen3-0.6B-Base": 596_000_000,
    "gpt2-large": 774_000_000,
    "TinyLlama/TinyLlama_v1.1": 1_100_000_000,
    "gpt2-xl": 1_558_000_000,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_000_000,
}
"""Bases that people use, and their parameters; each belongs to a family that is served."""
TALKING = 300_000_000, 6
"""Bytes, and bytes per parameter, while a base is loaded, which is the peak: the process of the bundled model reached
354 MB, that of SmolLM2 1,019 MB."""
LEARNING = 1_700_000_000, 10
"""Likewise for training: a gigabyte of activations (`training.finetune.config`), and each weight read in float32, kept
in bfloat16 and once more merged with the adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledBase:
    name: str
    """As for PERSON2_BASE_MODEL."""
    parameters: int

    @property
    def talking(self) -> int:
        """Approximate bytes of memory to chat with it."""
        return memory_needed(self.parameters, TALKING)

    @property
    def learning(self) -> int:
        """Approximate bytes of memory to train an adapter for it."""
        return memory_needed(self.parameters, LEARNING)


def memory_needed(parameters: int, costs: tuple[int, int]) -> int:
    fixed, each = costs
    return fixed + each * parameters


def installed_bases(starter: Path) -> list[InstalledBase]:
    """The bundled model, SmolLM2 where it is installed, and the hub's models in the local cache; smallest first."""
    found = {STARTER: _parameters(starter)}
    found |= dict(_cached())
    if SMOLLM2_HUB in found:
        found[SMOLLM2] = found.pop(SMOLLM2_HUB)
    with suppress(PackageNotFoundError):
        if any(entry.suffix == SUFFIX for entry in files(SMOLLM2_PACKAGE) or []):
            found[SMOLLM2] = WELL_KNOWN[SMOLLM2]
    return sorted(
        (InstalledBase(name=name, parameters=count) for name, count in found.items() if count),
        key=lambda base: base.parameters,
    )


def _cached() -> Iterator[tuple[str, int]]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repository in repositories:
        newest = max(repository.revisions, key=lambda revision: revision.last_modified, default=None)
        if repository.repo_type == "model" and newest is not None and _is_served(newest.snapshot_path):
            yield repository.repo_id, _parameters(newest.snapshot_path)


def _is_served(folder: Path) -> bool:
    try:
        told: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return told.get("model_type") in FAMILIES
    except (OSError, ValueError, AttributeError):
        return False


def _parameters(folder: Path) -> int:
    """Parameters in the safetensors files of a folder, by their headers; 0 where none can be read."""
    count = 0
    for file in folder.glob("*.safetensors"):
        try:
            with file.open("rb") as weights:
                header = json.loads(weights.read(int.from_bytes(weights.read(8), "little")))
            count += sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
        except (OSError, ValueError, KeyError, TypeError, MemoryError):
            return 0
    return count
