"""What is known of an adapter, and the file beside its weights that contains it."""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from core.adapters.validation import CONFIG, peft_config
from core.atomic_io import read_text
from core.errors import AdapterError

CARD = "card.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What is known of an adapter. Written when it is registered; only withdrawal and forced promotion rewrite it."""

    id: str
    created_at: datetime
    """UTC."""
    base: str
    """The base model as it was typed: a hub name, `starter` or a folder."""
    base_fingerprint: str = ""
    """`validation.fingerprint` of that base; empty when unknown."""
    data_sha256: str = ""
    """Of the dialogues it was trained on; empty when unknown."""
    weights_sha256: str = ""
    """Of the weights that were evaluated; others are never promoted under this card. Empty when unknown."""
    people: tuple[str, ...] = ()
    """Keyed hashes of the members on whose messages it was trained."""
    config: dict[str, Any] = field(default_factory=dict)
    """How it was trained: every option, and the command that repeats it."""
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Its scores beside those of the others: `{"new": {"bits_per_byte": 1.9}, "base": {…}}`."""
    passed: bool | None = None
    """Whether it passed the gate; None when it was never evaluated."""
    promoted_by_force: bool = False
    notes: str = ""
    withdrawn: str = ""
    """Why it was taken out of service; empty while it may be used."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Fields of a newer version of this program: kept, but not used."""

    def __post_init__(self) -> None:
        moment = self.created_at if self.created_at.tzinfo else self.created_at.replace(tzinfo=UTC)
        object.__setattr__(self, "created_at", moment.astimezone(UTC))

    def to_json(self) -> str:
        known = {name: value for name, value in asdict(self).items() if name != "extra"}
        known["created_at"] = self.created_at.isoformat()
        return json.dumps({**known, **self.extra}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Card":
        """Raises AdapterError when a field is missing or of the wrong kind."""
        try:
            raw = json.loads(text)
            names = {item.name for item in fields(cls)} - {"extra"}
            known = {name: value for name, value in raw.items() if name in names}
            extra = {name: value for name, value in raw.items() if name not in names}
            return msgspec.convert({**known, "extra": extra}, cls)
        except (ValueError, AttributeError) as error:  # msgspec's ValidationError is a ValueError
            raise AdapterError(
                f"the card cannot be read ({error}): train the adapter again or correct {CARD}"
            ) from error


def read_card(folder: Path) -> Card:
    """The folder's card, or one made from peft's configuration where somebody copied an adapter there without a
    card."""
    text = read_text(folder / CARD)
    if text:
        return replace(Card.from_json(text), id=folder.name)
    made = datetime.fromtimestamp((folder / CONFIG).stat().st_mtime, UTC)
    base = str(peft_config(folder).get("base_model_name_or_path") or "unknown")
    return Card(id=folder.name, created_at=made, base=base, notes="found without a card")
