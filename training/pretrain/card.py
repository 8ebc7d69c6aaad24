"""The finished folder: weights in half precision, tokenizer, configuration, and the card that says how it was made.

`from_pretrained` loads it. Knows what a model card needs; measures nothing and trains nothing.
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
README = "README.md"
SAID = "said.md"
"""What the model says to people, where somebody wrote it down beside the weights; it closes the card."""

CONVENTION = (
    "Bits per byte over whole dialogues: −log₂ p of every token of the rendered text (speaker tags and newlines "
    "included, the first token given; the end of text is not counted), over the text's UTF-8 bytes; windows of a "
    "context that overlap by half where a dialogue is longer."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What no program can know about a model: its name, the licences of what it learned from, its limits."""

    title: str = "A small GPT-2 for talk"
    licence: str = "mit"
    """Of the weights; an SPDX id in lower case, as model hubs want it."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Corpus → licence and where it comes from."""
    decoding: Mapping[str, float] = field(default_factory=dict)
    """Sampling settings for `generation_config.json`, as `core.generator.defaults` reads them."""
    summary: str = ""
    """Markdown behind the first line of the card: what a reader wants to know before anything else."""
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
    """How often the run saw it."""
    held_out: int
    """Dialogues kept aside by the tenth rule."""
    dropped: int
    """Dialogues left out as junk."""
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Everything needed to make the model again, and what it scored. Plain values, as JSON."""

    commands: tuple[str, ...]
    """Of each session of the run, oldest first."""
    recipe: Mapping[str, Any]
    parameters: int
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
    before: Mapping[str, Any] | None
    """What the run began with, where not with random weights; see `earlier`."""
    ingredients: tuple[Ingredient, ...]
    held_out_files: Mapping[str, str]
    """File → sha256."""
    bits_per_byte: Mapping[str, float]
    convention: str = CONVENTION
    decoding: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def read_about(path: Path) -> About:
    """An `About` from TOML. Raises TrainingError."""
    try:
        return About(**tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except (tomllib.TOMLDecodeError, TypeError) as error:
        known = ", ".join(About.__slots__)
        raise TrainingError(f"{path} is no description of a model ({error}); it is TOML with {known}.") from error


EARLIER = ("commands", "steps", "tokens", "seconds", "ingredients", "before")


def earlier(folder: Path) -> dict[str, Any]:
    """How the model in `folder`, with which a run begins, was made itself: from its card. Raises TrainingError."""
    path = folder / CARD
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        return {key: made.get(key) for key in EARLIER}
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); --start names a folder that this tool wrote.") from error


def _runs(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The runs that made the weights, oldest first."""
    before = card.get("before")
    return [*(_runs(before) if before else []), card]


def export(folder: Path, network: GPT2LMHeadModel, tokenizer: Tokenizer, card: Card, about: About) -> None:
    """Write the whole folder. Weights are float16 on disk and load as any dtype one asks for."""
    folder.mkdir(parents=True, exist_ok=True)
    # lm_head is tied to wte: named_parameters names the pair once, and from_pretrained ties it again
    weights = {
        name: weight.detach().to("cpu", torch.float16).contiguous() for name, weight in network.named_parameters()
    }
    path = folder / "model.safetensors"
    save_file(weights, str(path), metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes files that only their owner reads
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
    describe(folder, card, about)


def describe(folder: Path, card: Card, about: About) -> None:
    """Write what is known about the model in `folder`: the card as JSON, as people read it, and how to draw from it."""
    _write(folder / CARD, asdict(card))
    _write(
        folder / "generation_config.json",
        {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "do_sample": True, **about.decoding},
    )
    said = folder / SAID
    heard = said.read_text(encoding="utf-8").strip() if said.is_file() else ""
    (folder / README).write_text(readme(card, about) + (f"\n{heard}\n" if heard else ""), encoding="utf-8")


def read_card(folder: Path) -> Card:
    """The card that `describe` wrote. Raises TrainingError."""
    path = folder / CARD
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        return Card(**made | {"ingredients": tuple(Ingredient(**item) for item in made["ingredients"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); name a folder that this tool wrote.") from error


def readme(card: Card, about: About) -> str:
    """The model card as people and model hubs read it."""
    runs = _runs({"before": card.before, "steps": card.steps, "tokens": card.tokens, "seconds": card.seconds})
    shape, rates = card.recipe["shape"], card.recipe["rates"]
    optimizer = f"Muon (peak rate {rates['muon']}) and AdamW ({rates['adam']})" if rates["muon"] else "AdamW"
    cooled = "" if card.cooled_from is None else f"; the cool-down began at step {card.cooled_from:,}"
    data = [
        f"| {item.name} | {item.texts:,} | {item.tokens / 1e6:.2f} M | {item.passes:.2f} | {item.licence} |"
        for item in card.ingredients
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
        f"A GPT-2 of {card.parameters / 1e6:.1f} M parameters ({shape['layers']} layers, {shape['width']} wide, "
        f"{shape['vocabulary']:,} tokens, context {shape['context']}), trained from scratch"
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
        f"Hashes of the files, weights and seeds stand in `{CARD}`.",
        "",
        "## Made how",
        "",
        f"{card.steps:,} steps, {card.tokens / 1e6:.2f} M tokens, {card.seconds / 60:.0f} minutes{cooled}. "
        f"{optimizer}. The weights are {'a moving average' if card.averaged else 'the last step’s'}"
        f"{_blended(card)}."
        f"{_told_apart(card)}",
        "",
        *_earlier_commands(runs[:-1]),
        *_folded(card.commands),
        "",
        about.notes.strip(),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _told_apart(card: Card) -> str:
    lesson = card.recipe.get("lesson")
    if not lesson:
        return ""
    return (
        f" Of {lesson['every']} steps one told true replies from others (`training/pretrain/contrast.py`): "
        f"{lesson['candidates']} candidates, temperature {lesson['temperature']}, weight {lesson['weight']}."
    )


def _blended(card: Card) -> str:
    if not card.start_share:
        return ""
    share = card.start_share
    return f", moved {share:.0%} of the way back to those the run began with (`--start-share {share:g}`)"


def _earlier_commands(runs: list[Mapping[str, Any]]) -> list[str]:
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
    """Commands with every corpus and weight in them are longer than a screen, and few readers want them."""
    return ["<details><summary>Its command</summary>", "", "```sh", *commands, "```", "", "</details>"]


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
