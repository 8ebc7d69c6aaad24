"""LoRA training: dialogue files and a base in, an adapter and its held-out figures out.

Knows peft and the Hugging Face trainer; knows neither the shelf's rules for promotion nor how anything is printed.
A run lives in one folder and may be killed at any moment: `resume=True` goes on from its newest whole checkpoint.
"""

from training.finetune.knobs import Settings
from training.finetune.logs import LogTo
from training.finetune.outcome import Outcome, Point, Progress
from training.finetune.run import finetune, with_lora

__all__ = ["LogTo", "Outcome", "Point", "Progress", "Settings", "finetune", "with_lora"]
