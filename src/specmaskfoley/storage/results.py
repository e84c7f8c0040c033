"""The files of a sound that was made for a video: `clip.flac`, `clip.mp4` and the record `clip.json` beside them.

A file is a result if the record beside it says so. Everything else in a folder belongs to the user.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from specmaskfoley.storage.files import read_json, sha256, sha256_text

_STAGING = ".tmp-foley-"
_LONGEST_NAME = 255  # bytes, of nearly all file systems
_LONGEST_SUFFIX = ".flac"


def is_result(path: Path) -> bool:
    """Whether the record beside a sound or a video names it, and it is not the video that the record is of."""
    record = _record_beside(path)
    if record is None or text_name(path) not in (record["files"].get("audio"), record["files"].get("video")):
        return False
    # Reading all of a video is for where its sound is missing.
    sound_too = any(path.with_suffix(suffix).exists() for suffix in (".flac", ".wav"))
    return sound_too or sha256(path) != (record["video"] or {}).get("sha256")


def in_the_way(
    files: Iterable[Path], video_sha256: Callable[[], str | None], inputs: Iterable[Path], *, overwrite: bool
) -> list[str]:
    """What must not be replaced by new results of a video, a sentence each.

    These are folders, what is read, and, unless `overwrite`, everything but the results of an earlier run for the same
    video as that run left them. A sound without a video has no SHA-256 of one.

    Raises:
        OSError: a name is too long, or a folder cannot be read.
    """
    digest = cache(video_sha256)
    read = {_identity(path) for path in inputs if path.exists()}
    found = []
    for file in files:
        if not _stands(file):
            continue
        if file.is_dir():
            found.append(f"{file} is a folder")
        elif file.exists() and _identity(file) in read:
            found.append(f"{file} would take the place of the video or sound that is read")
        elif not overwrite and not _left_by_earlier_run(file, digest):
            found.append(f"{file} is there, and is not the result of an earlier run for this video")
    return found


def fitted(name: str, more: str = "") -> str:
    """A name to which `more` and an ending can be added; one that is too long is cut, and told apart by a hash."""
    room = _LONGEST_NAME - len(os.fsencode(more)) - len(_LONGEST_SUFFIX)
    data = os.fsencode(name)
    if len(data) <= room:
        return name
    mark = f"-{sha256_text(data)[:8]}"
    return data[: room - len(mark)].decode("utf-8", "ignore") + mark


def text_name(path: Path) -> str:
    """The name of a file as text, with escapes for what is not UTF-8: JSON holds no other."""
    return path.name.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder inside `folder`, from which files are moved once all are whole; then it is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder))
    lock = FileLock(made / "lock")
    try:
        with suppress(NotImplementedError):  # a file system without locks: nothing is swept there
            lock.acquire()
        yield made
    finally:
        lock.release()
        shutil.rmtree(made, ignore_errors=True)  # Windows keeps open files; the next run sweeps them


def sweep(folder: Path) -> None:
    """Remove the staging folders that killed processes left."""
    for left in folder.glob(f"{_STAGING}*"):
        if left.is_symlink() or not (left / "lock").is_file():
            continue
        with suppress(Timeout, NotImplementedError, OSError):  # in use, perhaps by another machine or user
            with FileLock(left / "lock", timeout=0):
                pass
            shutil.rmtree(left, ignore_errors=True)


def _stands(file: Path) -> bool:
    """As `os.path.lexists`, which takes a name that is too long for one that is free."""
    try:
        os.lstat(file)
    except FileNotFoundError:
        return False
    return True


def _left_by_earlier_run(file: Path, video_sha256: Callable[[], str | None]) -> bool:
    record = _record_beside(file)
    if record is None or (record["video"] or {}).get("sha256") != video_sha256():
        return False
    if file.suffix == ".json":
        return True
    files = record["files"]
    role = next((role for role in ("audio", "video") if files.get(role) == text_name(file)), None)
    return role is not None and files.get(f"{role}_sha256") in (None, sha256(file))


def _record_beside(path: Path) -> dict[str, Any] | None:
    try:
        record = read_json(path.with_name(f"{path.stem}.json"))
    except (ValueError, OSError, RecursionError):
        return None
    parts = {"files": dict, "history": list, "video": dict | None}
    whole = isinstance(record, dict) and "video" in record
    whole = whole and all(isinstance(record.get(name), kind) for name, kind in parts.items())
    return record if whole else None


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
