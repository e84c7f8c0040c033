"""Which files below a directory are meant: what people's folders hold besides videos and sounds."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

VIDEOS = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"}
)
MEDIA = VIDEOS | {".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"}
"""Endings of what may hold sound; of a video's, the picture is ignored."""

_CODE_TOO = (".ts", ".mts")
"""Endings that TypeScript has as well."""


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Paths below `folder`, sorted, with one of these endings (in lower case), relative to it.

    Hidden files and directories are left out, and so is text that only has a video's ending. Links to directories are
    followed, but no directory is entered twice. Links to nothing are listed: somebody misses that file.

    Raises:
        OSError: a directory cannot be read.
    """
    found: list[Path] = []
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:  # links after the directories that lie here themselves
        for root, directories, files in os.walk(waiting.pop(0), onerror=_fail):
            status = os.stat(root)
            if (status.st_dev, status.st_ino) in entered:
                directories.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            directories[:] = sorted(name for name in directories if not name.startswith("."))
            waiting += [Path(root, name) for name in directories if os.path.islink(os.path.join(root, name))]
            found += [
                path.relative_to(folder)
                for path in (Path(root, name) for name in files if not name.startswith("."))
                if path.suffix.lower() in suffixes and _meant(path)
            ]
    return sorted(found)


def _fail(error: OSError) -> None:
    raise error


def _meant(path: Path) -> bool:
    if not path.exists():
        return path.is_symlink()
    return path.is_file() and not (path.suffix.lower() in _CODE_TOO and _is_text(path))


def _is_text(path: Path) -> bool:
    """Whether a file begins as text does: UTF-8 without a zero byte."""
    with path.open("rb") as file:
        head = file.read(512)
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4 and b"\0" not in head  # a character that is cut off
    return bool(head) and b"\0" not in head
