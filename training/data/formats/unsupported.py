"""Files that cannot be imported: what each is, and what to do about it.

Knows file signatures, and reads no message.
"""

from pathlib import Path

from training.data.formats import textfile

_SIGNATURES = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it and import the folder",
    b"Rar!\x1a\x07": "a RAR archive; unpack it and import the folder",
    b"BZh": "a bzip2 file; unpack it and import what it holds",
    b"\xfd7zXZ\x00": "an xz file; unpack it and import what it holds",
    b"SQLite format 3\x00": "a database, but not slackdump's; export the chat from the program it belongs to",
    b"%PDF": "a PDF; export the chat as JSON or text instead",
}
_TAR = b"ustar"
_TELEGRAM_PAGE = "a Telegram export in HTML; export the chat again as “Machine-readable JSON” and import result.json"
_META_PAGE = "a Meta download in HTML; request it again in JSON format"
_PACKAGE = "Discord's data package contains one person's messages without the others'; export the channel instead"


def hint(path: Path) -> str:
    """What to do with a file of no known format; empty where nothing is known about it."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
        head = textfile.head(path)
    except OSError:
        return ""
    for signature, sentence in _SIGNATURES.items():
        if start.startswith(signature):
            return sentence
    if start[257:262] == _TAR:
        return "a tar archive; unpack it and import the folder"
    page = head.lstrip("\ufeff").lstrip()[:300].lower()
    if page.startswith(("<!doctype html", "<html")):
        if 'class="page_wrap' in head or "tgme" in head:
            return _TELEGRAM_PAGE
        if "instagram" in head[:20_000].lower() or "facebook" in head[:20_000].lower():
            return _META_PAGE
    first = head.split("\n", 1)[0]
    if path.suffix.lower() in {".csv", ".tsv"} and max(map(first.count, ",;\t|")) >= 2:
        return "a CSV file; say which columns are what: --columns author=…,time=…,text=…"
    if '"Contents"' in head[:4000] and '"Timestamp"' in head[:4000]:
        return _PACKAGE
    return ""
