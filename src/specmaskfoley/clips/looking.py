"""Checks of files from untrusted users, before anything else opens them; imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from specmaskfoley.media.container import MediaError
from specmaskfoley.media.probe import MediaInfo, probe
from specmaskfoley.media.sound import SoundFacts, examine_sound
from specmaskfoley.processes.isolation import IsolatedPool, Lost
from specmaskfoley.settings import Prepare

_LOOK_S = 1.0
"""Seconds of a file that are decoded, unless all of it is."""


def look_into(paths: Sequence[Path], prepare: Prepare, until_s: float = _LOOK_S) -> Iterator[MediaInfo | Lost | None]:
    """What each video is, None for a file with sound only, or why it cannot be decoded; found out in a worker process,
    which may crash or hang."""
    with IsolatedPool(1, timeout_s=prepare.clip_timeout_s, memory_gb=prepare.clip_memory_gb) as pool:
        yield from pool.map(partial(_look, until_s=until_s), [path.absolute() for path in paths])


def check_media(
    path: Path, prepare: Prepare, max_duration_s: float = math.inf, *, whole: bool = False
) -> MediaInfo | None:
    """What `look_into` says of one file.

    Args:
        whole: decode the whole file (if it is short enough), so that it cannot crash the process that reads it later.

    Raises:
        MediaError: it cannot be used; the message says why.
    """
    (found,) = look_into([path], prepare)
    info = checked(found, max_duration_s)
    if whole and info is not None:
        (found,) = look_into([path], prepare, info.duration_s)
        info = checked(found, max_duration_s)
    return info


def check_sound(path: Path, prepare: Prepare, max_duration_s: float) -> SoundFacts:
    """What the sound of a file is; all of it is decoded in a worker process, which may crash or hang.

    Raises:
        MediaError: it cannot be used, or is too long.
    """
    with IsolatedPool(1, timeout_s=prepare.clip_timeout_s, memory_gb=prepare.clip_memory_gb) as pool:
        (found,) = pool.map(partial(_listen, until_s=max_duration_s + _LOOK_S), [path.absolute()])
    if isinstance(found, Lost):
        raise MediaError(found.state, found.reason)
    if found.duration_s > max_duration_s:
        raise MediaError("too_long", f"is longer than {max_duration_s:g} s, which is the most that is taken")
    return found


def checked(found: MediaInfo | Lost | None, max_duration_s: float = math.inf) -> MediaInfo | None:
    """
    Raises:
        MediaError: it cannot be used, or is too long.
    """
    if isinstance(found, Lost):
        raise MediaError(found.state, found.reason)
    if found is not None and found.duration_s > max_duration_s:
        raise MediaError("too_long", f"is {found.duration_s:.0f} s long; at most {max_duration_s:g} s are taken")
    return found


def _look(path: Path, until_s: float) -> MediaInfo | Lost | None:
    info = None
    try:
        info = probe(path, until_s)
    except MediaError as error:
        if error.state != "no_video":
            return Lost(error.state, str(error))
    try:
        examine_sound(path, until_s)
    except MediaError as error:
        if info is None:  # a video's own sound may be unusable; it only must not crash a process
            return Lost(error.state, str(error))
    return info


def _listen(path: Path, until_s: float) -> SoundFacts | Lost:
    try:
        return examine_sound(path, until_s)
    except MediaError as error:
        return Lost(error.state, str(error))
