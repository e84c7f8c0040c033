"""Outputs of other experiments in DVC's cache, read where they lie: nothing is checked out, fetched or written."""

from __future__ import annotations

import json
from pathlib import Path

from dvc.config import Config


def cache_folder(root: Path) -> Path:
    """DVC's cache of a repository, wherever its configuration has it."""
    settings = Config(str(root / ".dvc")).get("cache", {})
    return Path(settings.get("dir") or root / ".dvc" / "cache")


def cached_files(cache: Path, digest: str) -> dict[str, Path]:
    """The files of a folder that dvc.lock names by its hash, as far as the cache has them.

    Returns:
        path inside the folder -> file; empty if the cache does not know the folder.
    """
    listing = _place(cache, digest)
    if not listing.is_file():
        return {}
    found = {entry["relpath"]: _place(cache, entry["md5"]) for entry in json.loads(listing.read_bytes())}
    return {name: path for name, path in found.items() if path.is_file()}


def _place(cache: Path, digest: str) -> Path:
    return cache / "files" / "md5" / digest[:2] / digest[2:]
