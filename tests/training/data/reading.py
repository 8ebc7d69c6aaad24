"""Reads an export as an import does, and sorts what comes out of it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from core.messages import Message
from training.data import formats
from training.data.formats import Fault, Named, Skipped


class Read:
    """All that came out of a source, sorted by kind."""

    def __init__(self, path: Path, scratch: Path, *, columns: str = "") -> None:
        scratch.mkdir(exist_ok=True)
        items = list(formats.read(path, scratch=scratch, mapping=columns))
        self.messages = [item for item in items if isinstance(item, Message)]
        self.faults = [str(item) for item in items if isinstance(item, Fault)]
        self.skipped = Counter(str(item) for item in items if isinstance(item, Skipped))
        self.names = {(item.author, item.name) for item in items if isinstance(item, Named)}

    @property
    def talk(self) -> list[tuple[str, str]]:
        ordered = sorted(self.messages, key=lambda message: (message.sent_at, message.id))
        return [(message.author_name, message.text) for message in ordered]


def folder(root: Path, files: dict[str, Any]) -> Path:
    """A folder of these files; what is no text is written as JSON."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return root


def read(tmp_path: Path, content: str | bytes | dict[str, Any] | list[Any], name: str = "export", **more: str) -> Read:
    path = tmp_path / name
    if isinstance(content, (dict, list)):
        content = json.dumps(content, indent=2)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Read(path, tmp_path / "scratch", **more)
