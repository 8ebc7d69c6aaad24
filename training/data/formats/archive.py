"""Zip archives and gzipped files, taken apart safely into a folder of our own.

Knows zip and its traps: damaged members, members that name a place outside, bombs, encryption, links. No chat format.
Sizes are counted while unpacking and never believed from the archive's own table.
"""

import gzip
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from training.data.formats.items import Fault

MAX_RATIO = 200
"""Unpacked bytes a packed byte may give. Chat JSON packs 10–40 to 1; deflate's ceiling, which bombs use, is 1,032."""
RATIO_APPLIES = 8 << 20
"""Bytes below which a member's ratio does not matter: a small file of blanks is harmless."""
MAX_UNPACKED = 64 << 30
"""Bytes of all members together."""
SPARE_DISK = 64 << 20
"""Bytes of disk that unpacking leaves free for what is made of the content."""
MAX_DEPTH = 3
"""Archives in archives."""
MAX_MEMBERS = 1_000_000
"""A workspace of ten years and 200 channels has 700,000 day files."""
BLOCK = 1 << 20
_DRIVE = re.compile(r"[A-Za-z]:")
ATTACHED = {
    *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".heic", ".svg", ".bmp", ".tif", ".tiff", ".ico", ".tgs", ".avif"),
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".3gp", ".m4v", ".mp3", ".m4a", ".ogg", ".oga", ".opus", ".wav", ".aac"),
    *(".amr", ".flac", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".odt", ".ods", ".vcf", ".ics"),
    *(".css", ".js", ".woff", ".woff2", ".ttf", ".thumb", ".exe", ".apk", ".iso", ".psd", ".ai", ".epub", ".lottie"),
}
"""Endings of attachments and of what pages need: not talk, skipped silently."""


def is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


def is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(3) == b"\x1f\x8b\x08"


def unpack(path: Path, into: Path, label: str) -> Iterator[Fault]:
    """Unpack the textual members under `into`; everything refused or damaged is a Fault, the rest is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _members(archive, into, label)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as problem:
        yield Fault(file=label, place="", reason=f"the zip archive is damaged and cannot be opened ({problem})")


def _members(archive: zipfile.ZipFile, into: Path, label: str) -> Iterator[Fault]:
    free = shutil.disk_usage(into).free - SPARE_DISK
    needed = sum(
        min(each.file_size, _allowed(each)) for each in archive.infolist()[:MAX_MEMBERS] if _wanted(each.filename)
    )
    if needed > free:
        reason = f"unpacking needs {needed >> 20:,} MB, and only {max(0, free) >> 20:,} MB are free beside the output"
        yield Fault(file=label, place="", reason=reason)
        return
    left = min(MAX_UNPACKED, free)
    for number, member in enumerate(archive.infolist()):
        name = f"{label}!{member.filename}"
        if number >= MAX_MEMBERS:
            yield Fault(file=label, place="", reason=f"more than {MAX_MEMBERS:,} members; the rest is not read")
            return
        if not member.filename:  # such as one that begins with a NUL byte
            yield Fault(file=label, place="", reason="a member has no name; it is not unpacked")
            continue
        if member.is_dir():
            continue
        target = _inside(into, member.filename)
        if target is None:
            yield Fault(file=name, place="", reason="its path leads out of the archive; it is not unpacked")
            continue
        if (member.external_attr >> 16) & 0o170000 == 0o120000:
            yield Fault(file=name, place="", reason="a link, which is not followed")
            continue
        if not _wanted(member.filename):
            continue
        if member.flag_bits & 1:
            yield Fault(
                file=name, place="", reason="encrypted; unpack the archive with its password and import the folder"
            )
            continue
        written, problem = _extract(archive, member, target, left)
        left -= written
        if problem:
            yield Fault(file=name, place="", reason=problem)
        if left <= 0:
            yield Fault(
                file=label, place="", reason="the archive is larger than the disk or the limit; the rest is not read"
            )
            return


def _allowed(member: zipfile.ZipInfo) -> int:
    return max(RATIO_APPLIES, MAX_RATIO * member.compress_size)


def _wanted(name: str) -> bool:
    pure = PurePosixPath(name.replace("\\", "/"))
    return pure.suffix.lower() not in ATTACHED and "__MACOSX" not in pure.parts


def gunzip(path: Path, into: Path) -> str:
    """Unpack a gzipped file; what went wrong, or nothing. What came out before the damage is kept."""
    left = min(MAX_UNPACKED, shutil.disk_usage(into.parent).free - SPARE_DISK)
    allowed = max(RATIO_APPLIES, MAX_RATIO * path.stat().st_size)
    written = 0
    try:
        with gzip.open(path) as source, into.open("xb") as out:
            while block := source.read(BLOCK):
                written += len(block)
                if written > min(left, allowed):
                    return f"unpacks to over {written >> 20:,} MB, more than is allowed or fits; the rest is not read"
                out.write(block)
    except (OSError, EOFError, zlib.error) as problem:
        return f"the compressed file is damaged ({problem}); what could be unpacked is read"
    return ""


def _inside(into: Path, name: str) -> Path | None:
    """Where a member goes, or None for a name that is absolute, climbs out, or is no file name here."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in name or _DRIVE.match(name):
        return None
    if any(len(part.encode("utf-8", "replace")) > 240 for part in pure.parts) or len(pure.parts) > 20:
        return None
    return into.joinpath(*pure.parts)


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int) -> tuple[int, str]:
    """Bytes written, and what went wrong. A damaged member keeps what came out before the damage."""
    written = 0
    allowed = _allowed(member)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, target.open("xb") as out:
            while block := source.read(BLOCK):
                written += len(block)
                if written > allowed:
                    problem = f"unpacks to over {MAX_RATIO} times its size, as zip bombs do; it is not read"
                    break
                if written > left:
                    problem = "no space left to unpack it"
                    break
                out.write(block)
            else:
                return written, ""
        target.unlink()
    except FileExistsError:
        return 0, "the archive contains this name twice; the first is read"
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        return written, f"damaged inside the archive ({error}); what could be unpacked is read"
    return written, problem
