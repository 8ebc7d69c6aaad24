"""A GGUF file (llama.cpp's format) → a folder as transformers saves it, made once and kept in the user's cache.

The engine, transformers, training and merging then read one kind of thing, and a start does not unpack the weights
again. Unpacking is the transformers library's: it knows each family's names, undoes llama.cpp's order of the rows of
queries and keys, and reads Q4_0, Q4_1, Q8_0, the K-quants, F16, BF16 and F32 through the `gguf` package.
"""

import hashlib
import logging
import tempfile
from collections import Counter
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from core.errors import ModelError, reason
from core.generator.families import FAMILIES

log = logging.getLogger(__name__)

SUFFIX = ".gguf"
_SAMPLED = 1 << 20
"""Bytes from each end of a file that its key in the cache is made of: the vocabulary, and the last weights."""


def unpacked(file: Path, *, cache: Path | None = None) -> Path:
    """The folder of a GGUF file's model, in bfloat16 or float32 where the file is, else in float16.

    `cache` is the user's own unless given. Takes some seconds for a file it has not met. Raises ModelError.
    """
    if not file.is_file():
        raise ModelError(f"there is no file {file}: set BASE_MODEL to an existing GGUF file, a folder or a hub name")
    bases = (cache or user_cache_path("person2", appauthor=False)) / "bases"
    folder = bases / f"{file.stem}-{_key(file)}"
    if folder.is_dir():
        return folder
    log.info("unpacking %s into %s, this once", file.name, folder)
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
        digest.update(raw.read(_SAMPLED))
        raw.seek(max(0, size - _SAMPLED))
        digest.update(raw.read())
    return digest.hexdigest()[:12]


def _unpack(file: Path, folder: Path) -> None:
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    try:
        reader: Any = GGUFReader(str(file))
        family = str(reader.fields["general.architecture"].contents())
        kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise ModelError(f"{file} is no whole GGUF file ({reason(error)}): download it again") from error
    if family not in FAMILIES:
        known = "; ".join(f"{one.name} ({one.models})" for one in FAMILIES.values())
        raise ModelError(f"{file} is a {family} model, and Person2 works with {known}: choose one of these families")
    dtype = {"BF16": torch.bfloat16, "F32": torch.float32}.get(kinds.most_common(1)[0][0], torch.float16)
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
        AutoTokenizer.from_pretrained(str(file.parent), **where).save_pretrained(str(folder))
        with redirect_stderr(StringIO()):  # a bar that cannot be switched off
            model: Any = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=dtype, **where)
        model.hf_quantizer = None  # its weights are plain by now
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(str(folder))
    except (ValueError, KeyError, TypeError, RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"{file} cannot be unpacked ({reason(error)}): take one in Q4_0, Q4_1, Q8_0, F16 or BF16"
        ) from error
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
