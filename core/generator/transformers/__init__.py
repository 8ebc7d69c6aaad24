"""Base models and LoRA adapters through the libraries transformers and peft: the reference, and the GPU path.

`load` builds a `TransformersGenerator`; one thread owns the model, everybody else talks to it through a queue. The
files: `loader` (get a model), `adapter_pool` (adapters in one model), `decoding` (rows, one token at a time),
`sampling` (choose it), `worker` (queue, thread, port). This is the only face; only `person2/app.py` imports it.
"""

from core.generator.transformers.worker import TransformersGenerator, load

__all__ = ["TransformersGenerator", "load"]
