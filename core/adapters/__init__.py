"""LoRA adapters on the disk: which there are, whether their files can be used, which one is active.

`registry` keeps them, `card` describes each, `validation` checks their files, `selection` follows promotions while a
bot runs, and `trials` and `judge` try one beside the current one. No torch, no peft.
"""

from core.adapters.card import CARD, Card
from core.adapters.registry import CURRENT, NONE, AdapterRegistry, check_name
from core.adapters.validation import check

__all__ = ["CARD", "CURRENT", "NONE", "AdapterRegistry", "Card", "check", "check_name"]
