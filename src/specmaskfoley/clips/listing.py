"""Every source of clips by its name, and the clip list of the one that params.yaml names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from specmaskfoley.settings import Params
from specmaskfoley.storage.files import atomic_path
from specmaskfoley.storage.tables import LISTED

SOURCES = {
    "world": "specmaskfoley.clips.world.source:list_clips",
    "folder": "specmaskfoley.clips.folder:list_clips",
    "youtube": "specmaskfoley.clips.youtube:list_clips",
    "archive": "specmaskfoley.clips.archive:list_clips",
}
"""data.source -> a function from Params to rows of storage.tables.CLIP_LIST_SCHEMA; only that one is imported."""

TEST_CLIPS = 2
"""Fewer cannot be evaluated: a Frechet distance is one of sets."""


def list_clips(params: Params) -> list[dict[str, Any]]:
    """All clips of the source that `data.source` names, as `clip_row`; afterwards `paths.clips` is a directory."""
    rows: list[dict[str, Any]] = resolve_name(SOURCES[params.data.source])(params)
    if params.data.source != "world":
        # DVC wants the output to exist, and a reader wants to know why it is empty.
        with atomic_path(Path(params.paths.clips) / "README.txt") as temporary:
            temporary.write_text("The videos are read where they lie; data.source is not world.\n", encoding="utf-8")
    return rows


def few_tests(clips: int) -> str:
    """A warning if there are too few test clips, else an empty text."""
    if clips >= TEST_CLIPS:
        return ""
    return (
        f"{clips} test clips: stage evaluate will fail, it needs at least {TEST_CLIPS}. Add videos, or change which "
        "are test clips (data.labels, data.lists, data.limit)"
    )


def clip_row(
    clip_id: str,
    path: Path,
    label: str,
    split: str | None,
    source: str,
    *,
    events: Sequence[float] | None = None,
    state: str = LISTED,
    reason: str = "",
    tried_at: str | None = None,
    tries: int | None = None,
) -> dict[str, Any]:
    """A row of storage.tables.CLIP_LIST_SCHEMA, where the columns are explained."""
    return {
        "clip_id": clip_id,
        "path": path.as_posix(),
        "label": label,
        "split": split,
        "events": events,
        "source": source,
        "state": state,
        "reason": reason,
        "tried_at": tried_at,
        "tries": tries,
    }
