"""Alternatives to the engine, each doing the same work: 40 greedy tokens after a prompt.

A peer that is not installed is left out, by name. Nothing here is imported by the program.
"""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from core.generator.families import FAMILIES, context_of
from training.publish.gguf_export import write_gguf


class Peer(Protocol):
    name: str

    def reply(self, prompts: Sequence[Sequence[int]], tokens: int) -> int:
        """Generate exactly `tokens` tokens after each prompt, all of them at once; returns how many were made."""
        ...


class Transformers:
    """fp32, left-padded, keys and values kept within a reply."""

    name = "transformers"

    def __init__(self, folder: Path) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()

    def reply(self, prompts: Sequence[Sequence[int]], tokens: int) -> int:
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            made = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                pad_token_id=0,
            )
        return int(made.shape[0] * (made.shape[1] - width))


class CTranslate2:
    """int8, its own batching."""

    name = "CTranslate2 int8"

    def __init__(self, folder: Path, *, threads: int) -> None:
        import ctranslate2

        made = folder.with_name(folder.name + "-ctranslate2")
        if not (made / "model.bin").exists():
            converter = ctranslate2.converters.TransformersConverter(str(folder))
            converter.convert(str(made), quantization="int8", force=True)
        self._generator: Any = ctranslate2.Generator(str(made), compute_type="int8", intra_threads=threads)
        vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        self._words = {number: word for word, number in vocabulary.items()}

    def reply(self, prompts: Sequence[Sequence[int]], tokens: int) -> int:
        results = self._generator.generate_batch(
            [[self._words[token] for token in prompt] for prompt in prompts],
            max_length=tokens,
            min_length=tokens,
            sampling_topk=1,
            beam_size=1,
            include_prompt_in_result=False,
            max_batch_size=len(prompts),
        )
        return sum(len(result.sequences_ids[0]) for result in results)


class LlamaCpp:
    """Q8_0, with the prompt's common prefix kept between replies, as llama-cpp-python does; one stream."""

    name = "llama.cpp Q8_0"

    def __init__(self, folder: Path, *, threads: int) -> None:
        import llama_cpp

        made = folder.with_name(folder.name + "-q8_0.gguf")
        if not made.exists():
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            write_gguf(model, tokenizer, made, kind="Q8_0", name=folder.name)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        context = context_of(config, FAMILIES[config["model_type"]])
        self._model: Any = llama_cpp.Llama(
            str(made), n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def reply(self, prompts: Sequence[Sequence[int]], tokens: int) -> int:
        made = 0
        for prompt in prompts:
            stream = self._model.generate(list(prompt), top_k=1, temp=0.0, repeat_penalty=1.0)
            for _, _ in zip(range(tokens), stream, strict=False):
                made += 1
        return made


def installed(folder: Path, *, threads: int, slow: bool = True) -> tuple[list[Peer], list[str]]:
    """The peers there are, transformers among them if `slow`, and the names of those that are not."""
    peers: list[Peer] = [Transformers(folder)] if slow else []
    missing: list[str] = []
    if find_spec("ctranslate2"):
        peers.append(CTranslate2(folder, threads=threads))
    else:
        missing.append(CTranslate2.name)
    if find_spec("llama_cpp") and find_spec("gguf"):
        peers.append(LlamaCpp(folder, threads=threads))
    else:
        missing.append(LlamaCpp.name)
    return peers, missing
