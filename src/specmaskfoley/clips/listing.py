"""Every source by its name. A new source is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specmaskfoley.clips import archive, folder, youtube
from specmaskfoley.clips.world import source as world
from specmaskfoley.settings import Params

# data.source -> rows of storage.tables.CLIP_LIST_SCHEMA; leaves params.paths.clips behind as a directory
SOURCES: dict[str, Callable[[Params], list[dict[str, Any]]]] = {
    "world": world.list_clips,
    "folder": folder.list_clips,
    "youtube": youtube.list_clips,
    "archive": archive.list_clips,
}


def list_clips(params: Params) -> list[dict[str, Any]]:
    """All clips of the source that `data.source` names."""
    return SOURCES[params.data.source](params)
