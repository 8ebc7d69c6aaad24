"""A member's stored data → a file that every platform accepts: JSON, or a zip archive of it where that is too large.

Knows no platform, but the smallest limit among them.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

LARGEST_FILE = 9_000_000
"""Largest file, in bytes, that both platforms accept: Discord allows 10 MiB without a boost
(https://docs.discord.com/developers/reference#uploading-files), Slack a gigabyte."""

NAME = "person2-my-data"

TOO_LARGE = "Your data is too large to send here ({size} MB, compressed). Ask my operator, who can export it for you."


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    name: str
    data: bytes

    @property
    def text(self) -> str:
        """The JSON in it, unpacked: for platforms that show text and take no files."""
        if self.name.endswith(".json"):
            return self.data.decode()
        with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
            return archive.read(f"{NAME}.json").decode()


def attachment_of(stored: dict[str, Any], *, largest: int = LARGEST_FILE) -> tuple[Attachment | None, str]:
    """The file, and a sentence about it or an empty string; no file where even the archive exceeds `largest` bytes."""
    data = json.dumps(stored, ensure_ascii=False, indent=2).encode("utf-8", "replace")
    if len(data) <= largest:
        return Attachment(name=f"{NAME}.json", data=data), ""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{NAME}.json", data)
    if packed.tell() <= largest:
        return Attachment(name=f"{NAME}.zip", data=packed.getvalue()), "It is a zip archive, because it is large."
    return None, TOO_LARGE.format(size=f"{packed.tell() / 1e6:.0f}")
