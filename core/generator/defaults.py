"""The default sampling of a model: what its folder says, else our own.

`generation_config.json` is transformers' file for this; `best_of` in it is our own key, which other programs ignore.
"""

import json
from pathlib import Path

from core.errors import GeneratorError, ModelError
from core.generator import Sampling, validate

FILE = "generation_config.json"
SAMPLING = Sampling(best_of=4)
"""Chosen for GPT-2: four candidates fix half of the replies that miss the point, and eight take a small machine nearly
twice as long as four. The starter's own values are in its folder."""
READ = ("temperature", "top_p", "repetition_penalty", "best_of")


def sampling_of(base: str | Path) -> Sampling:
    """The default sampling of the model in a folder; ours for a hub name, or a folder without the file.

    Raises ModelError for an invalid file.
    """
    path = Path(base) / FILE
    if not path.is_file():
        return SAMPLING
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        own = {name: config[name] for name in READ if config.get(name) is not None}
        sampling = Sampling(**{"best_of": SAMPLING.best_of, **own})
        validate(sampling)
    except (OSError, ValueError, TypeError, AttributeError, GeneratorError) as error:
        raise ModelError(f"{path} cannot be used ({error}); correct or remove it.") from error
    return sampling
