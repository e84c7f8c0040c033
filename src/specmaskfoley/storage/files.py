"""Small files, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_POINTER = b"version https://git-lfs"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling of `path`, moved onto it on success and removed on error.

    The sibling keeps the suffix, by which media libraries choose the format, and starts with a dot,
    so that no search for finished files finds it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write `obj` with keys in the given order; NaN and infinity are refused, for DVC cannot plot them.

    Raises:
        ValueError: naming the key of a value that is not a finite number.
    """
    _check_finite(obj, "", Path(path))
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(obj, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: if the file is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None


def sha256(path: str | os.PathLike[str]) -> str:
    """64 hex digits that stand for a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_text(text: str | bytes) -> str:
    """64 hex digits that stand for a text."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def refuse_pointer(path: str | os.PathLike[str]) -> None:
    """
    Raises:
        ValueError: the file is what git-lfs and model hubs leave in place of a large file that was not fetched.
    """
    with open(path, "rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise ValueError(
                f"{path}: is a git-lfs pointer, not the file it points to; run `git lfs pull` in its folder, or get it "
                "again with `hf download`"
            )


def show_size(size: float | None) -> str:
    """Bytes for people: 950.0 MB."""
    if size is None:
        return "unstated"
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _check_finite(value: Any, key: str, path: Path) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path}: {key or 'the value'} is {value}; only finite numbers can be reported")
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_finite(item, f"{key}.{name}" if key else str(name), path)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_finite(item, f"{key}[{index}]", path)
