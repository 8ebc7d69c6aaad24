"""The contents of an adapter's card: the base, the data, whose words, how it was trained, its scores.

Turns a finished run into a `core.adapters.Card`; trains nothing and writes nothing.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from core.adapters import Card
from training.finetune.outcome import Outcome


def make_card(outcome: Outcome, *, created_at: datetime, command: str = "", notes: str = "") -> Card:
    """The card of a finished run. `command` repeats it."""
    config: dict[str, Any] = {**asdict(outcome.settings), "seconds": round(outcome.seconds, 1), "command": command}
    config |= {"steps": outcome.steps, "best_step": outcome.best_step, "dialogues": outcome.train_dialogues}
    return Card(
        id=outcome.name,
        created_at=created_at,
        base=outcome.base,
        base_fingerprint=outcome.base_fingerprint,
        data_sha256=outcome.data_sha256,
        people=outcome.people,
        config=config,
        scores={
            "before": {"reply_bits_per_byte": outcome.before, "perplexity": outcome.perplexity_before},
            "new": {"reply_bits_per_byte": outcome.after, "perplexity": outcome.perplexity_after},
        },
        notes=notes,
    )
