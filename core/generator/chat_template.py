"""A base's chat template (Jinja, as transformers stores it) → the tokens of a conversation that the base continues.

Text by people is never read as control tokens: the template is rendered with placeholders, and only the text around
them may contain control tokens.
"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from core.dialogue import turns_of
from core.errors import ModelError, reason
from core.generator.persona import messages

_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")
"""A placeholder for a message, of private-use characters, which no template contains."""


class ChatTemplate:
    """Encodes conversations; may be used from any thread."""

    def __init__(self, source: str, tokenizer: Tokenizer, **tokens: str) -> None:
        """`tokenizer` encodes special tokens inside a text as plain text. `tokens` are those that a template may name:
        `bos_token`, `eos_token` … Raises ModelError for a broken template."""
        self._plain = tokenizer
        self._with_controls = Tokenizer.from_str(tokenizer.to_str())
        self._with_controls.encode_special_tokens = False
        self._tokens = tokens
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["strftime_now"] = lambda form: datetime.now(UTC).strftime(form)
        environment.globals["raise_exception"] = _raise_exception
        environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ModelError(f"the base's chat template cannot be read ({reason(error)}): use another base") from error

    def encode(self, prompt: str, persona: str, limit: int) -> list[int]:
        """Tokens of the conversation in a prompt, followed by what starts the model's answer.

        The oldest turns are dropped until it has at most `limit` tokens; a last turn over that loses its oldest tokens.
        Raises ModelError where the template refuses the conversation.
        """
        turns = turns_of(prompt)
        while True:
            ids = self._ids(messages(turns, persona))
            if len(ids) <= limit or len(turns) <= 1:
                return ids[-limit:]
            turns = turns[max(1, len(turns) // 4) :]

    def _ids(self, said: list[dict[str, str]]) -> list[int]:
        placeholders = [{**message, "content": f"\ue000{number}\ue001"} for number, message in enumerate(said)]
        try:
            text = self._template.render(messages=placeholders, add_generation_prompt=True, **self._tokens)
        except TemplateError as error:
            raise ModelError(
                f"the base's chat template refuses this conversation ({reason(error)}): choose an adapter"
            ) from error
        ids: list[int] = []
        for number, part in enumerate(_PLACEHOLDER.split(text)):
            tokenizer, piece = (self._plain, said[int(part)]["content"]) if number % 2 else (self._with_controls, part)
            ids += tokenizer.encode(piece, add_special_tokens=False).ids
        return ids


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def read_chat_template(folder: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template of a base's folder, or None where it has none. Raises ModelError for a broken one."""
    try:
        config: Any = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    source: Any = config.get("chat_template")
    if (folder / "chat_template.jinja").is_file():
        source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if isinstance(source, list):  # several, by name
        source = next((entry["template"] for entry in source if entry.get("name") == "default"), None)
    if not source:
        return None
    named = {name: config.get(name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    tokens = {name: value["content"] if isinstance(value, dict) else value for name, value in named.items() if value}
    return ChatTemplate(str(source), tokenizer, **tokens)
