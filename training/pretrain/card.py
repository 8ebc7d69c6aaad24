"""The finished folder: weights in half precision, tokenizer, configuration, and model card.

`from_pretrained` loads it. Knows what a model card needs; evaluates nothing and trains nothing.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from core.errors import TrainingError
from core.generator import END_OF_TEXT

CARD = "card.json"
"""What the model is and scores: parameters, held-out bits per byte, decoding."""
RUNS = "runs.json"
"""How it was made: the runs that led to the weights, oldest first, with commands and hashes."""
README = "README.md"

CONVENTION = (
    "Bits per byte over whole dialogues: −log₂ p of every token of the rendered text (speaker tags and newlines "
    "included, the first token given; the end of text is not counted), over the text's UTF-8 bytes; windows of a "
    "context that overlap by half where a dialogue is longer."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What only the author knows about a model: its name, the licences of its data, its limits."""

    title: str = "A small GPT-2 for talk"
    licence: str = "mit"
    """Of the weights; an SPDX id in lower case, as model hubs want it."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Corpus → licence and where it comes from."""
    decoding: Mapping[str, float] = field(default_factory=dict)
    """Sampling settings for `generation_config.json`, as `core.generator.defaults` reads them."""
    summary: str = ""
    """Markdown after the first line of the card: what a reader wants to know first."""
    notes: str = ""
    """Markdown that ends the model card."""

    def licence_of(self, corpus: str) -> str:
        return self.licences.get(corpus, "not stated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredient:
    """One file that was learned from."""

    name: str
    file: str
    sha256: str
    """Of the file as it lies on disk."""
    weight: float
    cool_weight: float
    """0: not read during the cool-down."""
    texts: int
    tokens: int
    passes: float
    """How often it was read in the run."""
    held_out: int
    """Dialogues held out by the rule of every tenth."""
    dropped: int
    """Dialogues left out as junk."""
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything needed to repeat one training run. Plain values, as JSON."""

    commands: tuple[str, ...]
    """Of each session of the run, oldest first."""
    recipe: Mapping[str, Any]
    steps: int
    cooled_from: int | None
    """The step at which the cool-down began."""
    tokens: int
    """Read in training, repeats included."""
    seconds: float
    averaged: bool
    """The exported weights are the moving average."""
    start_share: float = 0.0
    """How far the exported weights lie back towards those the run began with (`--start-share`)."""
    ingredients: tuple[Ingredient, ...]
    held_out_files: Mapping[str, str]
    """File → sha256."""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What the model is and scores. Plain values, as JSON."""

    parameters: int
    shape: Mapping[str, Any]
    tokens: int
    """Read in training by all runs, repeats included."""
    bits_per_byte: Mapping[str, float]
    convention: str = CONVENTION
    decoding: Mapping[str, float] = field(default_factory=dict)


def read_about(path: Path) -> About:
    """An `About` from TOML. Raises TrainingError."""
    try:
        return About(**tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except (tomllib.TOMLDecodeError, TypeError) as error:
        known = ", ".join(About.__slots__)
        raise TrainingError(f"{path} is not a description of a model ({error}); it is TOML with {known}.") from error


def earlier(folder: Path) -> list[dict[str, Any]]:
    """The runs that made the model in `folder`, oldest first; none where they are not recorded.

    Raises TrainingError for a folder or file that this tool did not write.
    """
    path = folder / RUNS
    if not (folder / CARD).is_file():
        raise TrainingError(f"{folder} has no {CARD}; --start names a folder that this tool wrote.")
    try:
        runs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        return [{key: run[key] for key in Run.__slots__} for run in runs]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); --start names a folder that this tool wrote.") from error


def export(
    folder: Path,
    network: GPT2LMHeadModel,
    tokenizer: Tokenizer,
    card: ModelCard,
    runs: Sequence[Mapping[str, Any]],
    about: About,
) -> None:
    """Write the whole folder; `runs`, oldest first, are those that led to the weights.

    Weights are float16 on disk and load as any dtype.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # lm_head is tied to wte: named_parameters names the pair once, and from_pretrained ties it again
    weights = {
        name: weight.detach().to("cpu", torch.float16).contiguous() for name, weight in network.named_parameters()
    }
    path = folder / "model.safetensors"
    save_file(weights, str(path), metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes files that only their owner can read
    config = network.config.to_dict()
    config |= {"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "dtype": "float16"}
    _write(folder / "config.json", config)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "GPT2TokenizerFast",
            **{f"{role}_token": END_OF_TEXT for role in ("bos", "eos", "unk", "pad")},
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": network.config.n_positions,
        },
    )
    _write(folder / CARD, asdict(card))
    _write(folder / RUNS, list(runs))
    _write(
        folder / "generation_config.json",
        {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "do_sample": True, **about.decoding},
    )
    (folder / README).write_text(readme(card, runs, about), encoding="utf-8")


def readme(card: ModelCard, runs: Sequence[Mapping[str, Any]], about: About) -> str:
    """The model card as people and model hubs read it."""
    run = runs[-1]
    rates = run["recipe"]["rates"]
    optimizer = f"Muon (peak rate {rates['muon']}) and AdamW ({rates['adam']})" if rates["muon"] else "AdamW"
    cooled = "" if run["cooled_from"] is None else f"; the cool-down began at step {run['cooled_from']:,}"
    data = [
        f"| {item['name']} | {item['texts']:,} | {item['tokens'] / 1e6:.2f} M | {item['passes']:.2f} |"
        f" {item['licence']} |"
        for item in run["ingredients"]
    ]
    scores = [f"| {name} | {score:.3f} |" for name, score in card.bits_per_byte.items()]
    lines = [
        "---",
        "language: en",
        f"license: {about.licence}",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [gpt2, dialogue, person2]",
        "---",
        "",
        f"# {about.title}",
        "",
        f"A GPT-2 of {card.parameters / 1e6:.1f} M parameters ({card.shape['layers']} layers, "
        f"{card.shape['width']} wide, "
        f"{card.shape['vocabulary']:,} tokens, context {card.shape['context']}), trained from scratch"
        f"{f' in {len(runs)} runs' if len(runs) > 1 else ''}.",
        "",
        *([about.summary.strip(), ""] if about.summary else []),
        "## Held out",
        "",
        card.convention,
        "",
        "| corpus | bits per byte |",
        "|---|---|",
        *scores,
        "",
        "## Made from",
        "",
        "| corpus | texts | tokens | passes | licence |",
        "|---|---|---|---|---|",
        *data,
        "",
        f"Hashes of the files, weights and seeds are in `{RUNS}`.",
        "",
        "## Made how",
        "",
        f"{run['steps']:,} steps, {run['tokens'] / 1e6:.2f} M tokens, {run['seconds'] / 60:.0f} minutes{cooled}. "
        f"{optimizer}. The weights are {'a moving average' if run['averaged'] else 'the last step’s'}"
        f"{_blended(run)}."
        f"{_contrasted(run)}",
        "",
        *_earlier_commands(runs[:-1]),
        *_folded(run["commands"]),
        "",
        about.notes.strip(),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _contrasted(run: Mapping[str, Any]) -> str:
    task = run["recipe"].get("contrast") or run["recipe"].get("lesson")  # its name in older runs
    if not task:
        return ""
    return (
        f" Of {task['every']} steps one told true replies from others (`training/pretrain/contrast.py`): "
        f"{task['candidates']} candidates, temperature {task['temperature']}, weight {task['weight']}."
    )


def _blended(run: Mapping[str, Any]) -> str:
    share = run["start_share"]
    if not share:
        return ""
    return f", moved {share:.0%} of the way back to those the run began with (`--start-share {share:g}`)"


def _earlier_commands(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The runs before the last, each with its length and its commands."""
    lines: list[str] = []
    for number, run in enumerate(runs, 1):
        lines += [
            f"It went on from the weights of run {number}: {run['steps']:,} steps, {run['tokens'] / 1e6:.2f} M tokens, "
            f"{run['seconds'] / 60:.0f} minutes.",
            "",
            *_folded(run["commands"]),
            "",
        ]
    return [*lines, "And the last run:", ""] if lines else []


def _folded(commands: Sequence[str]) -> list[str]:
    """Commands, collapsed: they list every corpus and weight and are longer than a screen."""
    return ["<details><summary>Its command</summary>", "", "```sh", *commands, "```", "", "</details>"]


def _write(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
