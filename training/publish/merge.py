"""Base + adapter → one plain folder that vLLM, CTranslate2 and transformers load, with a GGUF file for llama.cpp.

Knows peft's merge and the files such a folder has; neither the registry nor the network.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoTokenizer

from core.errors import AdapterError, reason
from core.generator import END_OF_TEXT, Adapter
from core.generator.transformers.adapter_pool import prepare
from core.generator.transformers.loader import Base, load_base, quiet
from training.publish.gguf_export import Kind, write_gguf


def merge(base: str | Path, adapter: Adapter, out: Path, *, kind: Kind | None = None) -> Path:
    """Write `base` with `adapter` merged into its weights to the new folder `out`, in float32.

    The folder is written completely or not at all. It holds config.json, model.safetensors and the tokenizer, GPT-2's
    also in its original files, for readers that know no other tokenizer class; with `kind` also a GGUF file,
    `<adapter>-<kind>.gguf`. Raises AdapterError for an adapter that does not fit or an `out` that is not empty,
    ModelError for a base that cannot be loaded.
    """
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AdapterError(f"{out} is not empty: give a new folder")
    loaded = load_base(base, device="cpu")
    prepared = prepare(adapter, loaded)
    with quiet():
        model: Any = PeftModel.from_pretrained(loaded.model, str(prepared.folder)).merge_and_unload()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
            folder = Path(scratch) / out.name
            with quiet():
                model.save_pretrained(folder)
                if loaded.family.name == "gpt2":
                    write_tokenizer(loaded, folder)
                else:
                    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
            if kind is not None:
                file = folder / f"{Path(adapter.id).name}-{kind}.gguf"
                write_gguf(model, loaded.tokenizer, file, kind=kind, name=adapter.id)
            if out.is_dir():
                out.rmdir()  # empty: rename would not take its place on Windows
            folder.rename(out)
    except OSError as error:
        raise AdapterError(f"{out} cannot be written ({reason(error)}): give another folder") from error
    return out


def write_tokenizer(base: Base, folder: Path) -> None:
    """GPT-2's files for a byte-level BPE: tokenizer.json, vocab.json with merges.txt, and the class that reads them.

    Raises AdapterError for a tokenizer that is not a BPE.
    """
    whole = json.loads(base.tokenizer.to_str())
    model = whole["model"]
    if model.get("type") != "BPE":
        raise AdapterError(
            f"the tokenizer of {base.name} is a {model.get('type')}, not GPT-2's BPE: merge another base"
        )
    whole["truncation"] = whole["padding"] = None
    vocabulary = {**model["vocab"], **{token["content"]: token["id"] for token in whole.get("added_tokens", [])}}
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "model_max_length": base.context_length,
        **dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT),
    }
    for name, text in (
        ("tokenizer.json", json.dumps(whole, ensure_ascii=False)),
        ("vocab.json", json.dumps(vocabulary, ensure_ascii=False)),
        ("merges.txt", "#version: 0.2\n" + "".join(f"{pair}\n" for pair in pairs)),
        ("tokenizer_config.json", json.dumps(config, indent=2)),
    ):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
