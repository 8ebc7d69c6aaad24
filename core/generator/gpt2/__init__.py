"""GPT-2 + LoRA through transformers and peft: the reference, and the GPU path.

`load` builds a `Gpt2Generator`; one thread owns the model, everybody else talks to it through a queue. The files:
`base` (get a model), `lora` (adapters in one model), `decoding` (rows, one token at a time), `sampling` (choose it),
`owner` (queue, thread, port). This is the only face; only `person2/wiring.py` imports it.
"""

from core.generator.gpt2.owner import Gpt2Generator, load

__all__ = ["Gpt2Generator", "load"]
