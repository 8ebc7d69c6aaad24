"""Base models and LoRA adapters through the libraries transformers and peft: the reference, and the GPU path.

`load` builds a `TransformersGenerator`, whose worker thread alone uses the model and takes requests from a queue. The
files: `loader` (reads a model), `adapter_pool` (adapters in one model), `decoding` (rows, one token at a time),
`worker` (thread and port). The queue in front and the choice of a token are `request_queue` and `sampling`, one folder
up. Only `person2/app.py` imports this package; training imports the loader.
"""

from core.generator.transformers.worker import TransformersGenerator, load

__all__ = ["TransformersGenerator", "load"]
