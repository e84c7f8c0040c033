"""A look into files that strangers may have made, before anything else opens them; imports no torch."""

from __future__ import annotations

import math
from pathlib import Path

from specmaskfoley.config import Prepare
from specmaskfoley.sources.isolation import IsolatedPool, Lost
from specmaskfoley.storage.media import MediaError, MediaInfo, examine_sound, probe

_LOOK_S = 1.0
"""Up to where a file is decoded."""


def check_media(path: Path, prepare: Prepare, max_duration_s: float = math.inf) -> MediaInfo | None:
    """Whether a file is a video, or a sound (then None), that can be decoded; in a process that may crash or hang.

    Raises:
        MediaError: it cannot be used; the message says why.
    """
    with IsolatedPool(1, timeout_s=prepare.clip_timeout_s, memory_gb=prepare.clip_memory_gb) as pool:
        (found,) = pool.map(_look, [path.absolute()])
    if isinstance(found, Lost):
        raise MediaError(found.state, found.reason)
    if found is not None and found.duration_s > max_duration_s:
        raise MediaError("too_long", f"is {found.duration_s:.0f} s long; at most {max_duration_s:g} s are taken")
    return found


def _look(path: Path) -> MediaInfo | Lost | None:
    try:
        return probe(path, _LOOK_S)
    except MediaError as error:
        if error.state != "no_video":
            return Lost(error.state, str(error))
    try:
        examine_sound(path, _LOOK_S)
    except MediaError as error:
        return Lost(error.state, str(error))
    return None
