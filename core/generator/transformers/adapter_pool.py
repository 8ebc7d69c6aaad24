"""LoRA adapters inside one base model, side by side, through peft.

`prepare` checks and reads an adapter (on any thread); `AdapterPool` holds those in the model (worker thread alone) and
computes with one adapter per row: peft's mixed batches (`adapter_names`) take one forward pass, however many adapters
the rows use. Knows nothing of queues, text or sampling.
"""

import logging
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import DynamicCache, PreTrainedModel

from core.adapters import CARD, Card
from core.adapters.validation import CONFIG, WEIGHTS, check, is_norm, same_base, shape_of, shapes, stamp
from core.errors import AdapterError, reason
from core.generator import INFORMATION, Adapter
from core.generator.families import layer_of
from core.generator.transformers.decoding import Row
from core.generator.transformers.loader import Base, quiet

log = logging.getLogger(__name__)

BARE = "__base__"
"""peft's own name for a row without an adapter."""

AdapterKey: TypeAlias = tuple[str, str, int]
"""An adapter's id, folder and version: rewritten weights are another adapter."""


def key_of(adapter: Adapter) -> AdapterKey:
    return adapter.id, str(adapter.path), stamp(adapter.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An adapter that fits the base, read into memory but not yet in the model."""

    key: AdapterKey
    folder: Path
    """Where its files are."""
    config: LoraConfig
    weights: dict[str, torch.Tensor]
    biases: dict[str, torch.Tensor]
    """Trained biases of the base's own layers (`bias="lora_only"`), by module name."""


def prepare(adapter: Adapter, base: Base) -> Prepared:
    """Read and check an adapter; one named `org/name` is downloaded from the Hugging Face hub unless cached.

    Raises AdapterError when it is missing, damaged, unsafe, of another kind or for another base.
    """
    folder = adapter.path if adapter.path.is_dir() else _fetch(adapter)
    check(folder)
    if any(map(is_norm, shapes(folder / WEIGHTS))):
        raise AdapterError(
            f'the adapter {adapter.id!r} trains layer norms (bias="all"), which only the engine supports: set'
            " PERSON2_GENERATOR=engine or train it without"
        )
    _fits(adapter.id, folder, base)
    try:
        config = LoraConfig.from_pretrained(str(folder))
        weights = load_file(folder / WEIGHTS)
    except Exception as error:  # peft and safetensors raise all kinds of errors for damaged files
        raise AdapterError(
            f"the adapter {adapter.id!r} cannot be read ({reason(error)}): copy or train it again"
        ) from error
    biases: dict[str, torch.Tensor] = {}
    for name in [name for name in weights if ".base_layer." in name]:
        biases[name.removeprefix("base_model.model.").split(".base_layer.")[0]] = weights.pop(name)
    config.inference_mode = True
    if biases:
        # peft would overwrite the base's own biases with these, for every adapter. As biases of the low-rank part they
        # belong to this adapter alone.
        config.bias = "none"
        config.lora_bias = True
    return Prepared(key=key_of(adapter), folder=folder, config=config, weights=weights, biases=biases)


def _fetch(adapter: Adapter) -> Path:
    missing = f"the adapter {adapter.id!r} is not in {adapter.path}: `person2 adapters list` lists them"
    if str(adapter.path) != adapter.id or adapter.id.count("/") != 1:
        raise AdapterError(missing)
    for local in (True, False):
        try:
            return Path(snapshot_download(adapter.id, allow_patterns=[CONFIG, WEIGHTS, CARD], local_files_only=local))
        except (OSError, ValueError, HfHubHTTPError) as error:
            if not local:
                raise AdapterError(
                    f"the adapter {adapter.id!r} is neither a folder nor available from the Hugging Face hub"
                    f" ({reason(error)}): check its name and the network"
                ) from error
    raise AdapterError(missing)  # pragma: no cover - the loop returns or raises


def _fits(adapter_id: str, folder: Path, base: Base) -> None:
    """Raises AdapterError, naming both bases, unless every tensor has the shape this base needs."""
    made_for, fingerprint = "another base", ""
    if (folder / CARD).is_file():
        card = Card.from_json((folder / CARD).read_text(encoding="utf-8"))
        made_for, fingerprint = card.base, card.base_fingerprint
    else:
        config = LoraConfig.from_pretrained(str(folder))
        made_for = config.base_model_name_or_path or made_for
    fits = same_base(fingerprint, base.fingerprint)
    for name, shape in shapes(folder / WEIGHTS).items():
        inputs, outputs = base.layers.get(layer_of(name) or "", (0, 0))
        wanted = {"lora_A.weight": (-1, inputs), "lora_B.weight": (0, outputs)}.get(".".join(name.split(".")[-2:]))
        fits = fits and inputs > 0 and (wanted is None or shape[wanted[0]] == wanted[1])
    if not fits:
        was = f" ({shape_of(fingerprint)})" if fingerprint else ""
        raise AdapterError(
            f"the adapter {adapter_id!r} was made for {made_for}{was}, and the base here is {base.name}"
            f" ({shape_of(base.fingerprint)}): set PERSON2_BASE_MODEL to its base or choose another adapter"
        )


class AdapterPool:
    """The adapters in the model; the least recently used one is removed when there are more than `limit`.

    Only `has`, `known` and `ids` may be called from other threads.
    """

    def __init__(self, base: Base, *, limit: int) -> None:
        self._base = base
        self._limit = limit
        self._names: OrderedDict[AdapterKey, str] = OrderedDict()
        self._count = 0
        self._peft: PeftModel | None = None

    def has(self, key: AdapterKey) -> bool:
        return key in self._names

    def known(self, key: AdapterKey) -> AdapterKey:
        """The key itself; where the folder has no files, as for one from the hub, the key of the loaded adapter."""
        if key[2] == 0:
            return next((loaded for loaded in list(self._names) if loaded[:2] == key[:2]), key)
        return key

    def ids(self) -> tuple[str, ...]:
        return tuple(sorted({key[0] for key in list(self._names)}))

    def keys(self, adapter_id: str) -> list[AdapterKey]:
        return [key for key in self._names if key[0] == adapter_id]

    def name(self, key: AdapterKey | None) -> str:
        """The name under which peft knows the adapter; marks it as used. Raises KeyError when it is not loaded."""
        if key is None:
            return BARE
        self._names.move_to_end(key)
        return self._names[key]

    def put(self, prepared: Prepared, *, in_use: Collection[AdapterKey]) -> None:
        """Add an adapter, and remove one that is not `in_use` where there are too many. Raises AdapterError, and then
        nothing is changed."""
        if self.has(prepared.key):
            return
        self._count += 1
        name = f"adapter{self._count}"  # peft's names may hold no dots, and an id may come back with other weights
        try:
            self._inject(name, prepared)
        except Exception as error:
            if self._peft is not None and name in self._peft.peft_config:
                self._peft.delete_adapter(name)
            if isinstance(error, AdapterError):
                raise
            raise AdapterError(
                f"the adapter {prepared.key[0]!r} does not fit the base model ({reason(error)})"
            ) from error
        self._names[prepared.key] = name
        self._activate()
        for key in [key for key in self._names if key not in in_use and key != prepared.key]:
            if len(self._names) <= self._limit:
                break
            self.remove(key)

    def remove(self, key: AdapterKey) -> None:
        name = self._names.pop(key, None)
        if name is not None and self._peft is not None:
            self._activate()
            self._peft.delete_adapter(name)

    def forward(
        self,
        input_ids: torch.Tensor,
        *,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        cache: DynamicCache,
        adapter_names: Sequence[str],
    ) -> torch.Tensor:
        """`(B, T) int64` and an adapter per row → the last column's logits, `(B, V) float32`; `cache` grows by T."""
        model, extra = self._model_for(adapter_names)
        with torch.inference_mode():
            output = model(
                input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **extra,
            )
            logits: torch.Tensor = output.logits[:, -1].float()
            return logits

    def information(self, rows: Sequence[Row]) -> list[float]:
        """The mutual information of each row's finished reply with its prompt, in nats
        (`core.generator.INFORMATION`)."""
        fronts: list[list[int]] = []
        for row in rows:
            prompt = row.ids[: row.prompt_tokens]
            last = self._base.encode(self._base.decode(prompt).rsplit("\n", 1)[-1]) or prompt[-1:]
            fronts += [prompt, [*self._base.start, *last]]
        replies = [row.ids[row.prompt_tokens :] for row in rows for _ in range(2)]
        width = max(len(front) + len(reply) for front, reply in zip(fronts, replies, strict=True)) - 1
        ids = torch.full((len(fronts), width), self._base.end)
        mask = torch.zeros_like(ids)
        for line, front, reply in zip(range(len(fronts)), fronts, replies, strict=True):
            known = [*front, *reply[:-1]]
            ids[line, width - len(known) :] = torch.tensor(known)
            mask[line, width - len(known) :] = 1
        model, extra = self._model_for([row.adapter_name for row in rows for _ in range(2)])
        device = self._base.model.device
        with torch.inference_mode():
            logits = model(
                ids.to(device),
                attention_mask=mask.to(device),
                position_ids=(mask.cumsum(1) - 1).clamp(min=0).to(device),
                use_cache=False,
                logits_to_keep=max(map(len, replies)),
                **extra,
            ).logits.float()
        sums = []
        for line, reply in enumerate(replies):
            own = logits[line, -len(reply) :].log_softmax(1)
            sums.append(float(own[torch.arange(len(reply)), torch.tensor(reply)].sum()))
        return [given - INFORMATION * bare for given, bare in zip(sums[::2], sums[1::2], strict=True)]

    def _model_for(self, adapter_names: Sequence[str]) -> tuple[PreTrainedModel | PeftModel, dict[str, Any]]:
        """The model, and the argument that gives each row its adapter where any is loaded."""
        if self._peft is None or not self._names:
            return self._base.model, {}
        return self._peft, {"adapter_names": list(adapter_names)}

    def _activate(self) -> None:
        """peft needs an active adapter, although each row names its own: make it one that stays."""
        if self._peft is not None and self._names:
            self._peft.set_adapter(next(reversed(self._names.values())))

    def _inject(self, name: str, prepared: Prepared) -> None:
        with quiet():
            if self._peft is None:
                self._peft = PeftModel(self._base.model, prepared.config, name, autocast_adapter_dtype=False)
            else:
                self._peft.add_adapter(name, prepared.config, autocast_adapter_dtype=False)
        result = set_peft_model_state_dict(self._peft, dict(prepared.weights), adapter_name=name)
        unknown = [key for key in getattr(result, "unexpected_keys", []) if "lora_" in key]
        if unknown:
            raise AdapterError(f"the adapter {prepared.key[0]!r} holds unknown weights ({unknown[0]}): train it again")
        modules = dict(self._base.model.named_modules())
        with torch.no_grad():
            for place, bias in prepared.biases.items():
                layer: Any = modules[place]
                added = layer.lora_B[name].bias
                own = layer.base_layer.bias
                added.copy_((bias.to(own.device, torch.float32) - own.float()) / layer.scaling[name])
        self._peft.eval()  # else the new layers' dropout would be active
