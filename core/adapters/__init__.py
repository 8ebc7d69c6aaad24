"""LoRA adapters on the disk: which there are, whether their files may be used, which one speaks.

`registry` keeps them, `card` says what is known of each, `validation` judges their files, and `selection` follows what
is promoted while a bot runs. No torch, no peft.
"""

from core.adapters.card import CARD, Card
from core.adapters.registry import CURRENT, NONE, AdapterRegistry, check_name
from core.adapters.validation import check

__all__ = ["CARD", "CURRENT", "NONE", "AdapterRegistry", "Card", "check", "check_name"]
