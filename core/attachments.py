"""What is stored of a member → a file that every platform takes: readable where it is small, packed where it is large.

Knows JSON and zip; no platform but the smallest limit among them.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

LARGEST_FILE = 9_000_000
"""Bytes of a file that both platforms take: Discord allows 10 MiB without a boost
(https://docs.discord.com/developers/reference#uploading-files), Slack a gigabyte."""

NAME = "person2-my-data"

TOO_LARGE = (
    "That is too large to be sent here ({size} MB, packed): ask whoever runs me, who can export it and give it to you."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    name: str
    data: bytes

    @property
    def text(self) -> str:
        """The JSON in it, unpacked where it is packed: for a place that shows text and takes no files."""
        if self.name.endswith(".json"):
            return self.data.decode()
        with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
            return archive.read(f"{NAME}.json").decode()


def attachment_of(stored: dict[str, Any], *, largest: int = LARGEST_FILE) -> tuple[Attachment | None, str]:
    """The file, and a sentence about it where there is something to say; no file where even packed it is too large."""
    data = json.dumps(stored, ensure_ascii=False, indent=2).encode("utf-8", "replace")
    if len(data) <= largest:
        return Attachment(name=f"{NAME}.json", data=data), ""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{NAME}.json", data)
    if packed.tell() <= largest:
        return Attachment(name=f"{NAME}.zip", data=packed.getvalue()), "It is packed, because it is large."
    return None, TOO_LARGE.format(size=f"{packed.tell() / 1e6:.0f}")
