"""How a model is usually drawn from: what its maker wrote into its folder, and where they wrote nothing, our own.

`generation_config.json` is transformers' file for this; `best_of` in it is ours, and others pass over it.
"""

import json
from pathlib import Path

from core.errors import GeneratorError, ModelError
from core.generator import Sampling, validate

FILE = "generation_config.json"
SAMPLING = Sampling(best_of=4)
"""Read with GPT-2 in mind: four draws mend half of the replies that miss what was said, and eight take a small machine
nearly twice the time of four. The starter's own choice stands in its card."""
READ = ("temperature", "top_p", "repetition_penalty", "best_of")


def sampling_of(base: str | Path) -> Sampling:
    """The usual sampling of the model in a folder; a hub name, or a folder that says nothing, gets ours.

    Raises ModelError where the folder says nonsense.
    """
    path = Path(base) / FILE
    if not path.is_file():
        return SAMPLING
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        own = {name: told[name] for name in READ if told.get(name) is not None}
        sampling = Sampling(**{"best_of": SAMPLING.best_of, **own})
        validate(sampling)
    except (OSError, ValueError, TypeError, AttributeError, GeneratorError) as error:
        raise ModelError(f"{path} cannot be used ({error}); correct or remove it.") from error
    return sampling
