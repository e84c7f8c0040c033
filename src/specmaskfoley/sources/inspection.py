"""Which clips can be used: one ledger row a clip, with the reason where it cannot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from specmaskfoley.config import Params
from specmaskfoley.sources.pool import parallel_map
from specmaskfoley.storage.media import MediaError, MediaInfo, probe, read_audio


def inspect_clips(clips: Sequence[dict[str, Any]], params: Params) -> list[dict[str, Any]]:
    """Rows of the clip list -> rows of storage.tables.LEDGER_SCHEMA, in the same order."""
    inspect = partial(
        inspect_clip,
        duration_s=params.audio.duration_s,
        min_duration_s=params.prepare.min_duration_s,
        silence_db=params.prepare.silence_db,
    )
    return parallel_map(inspect, clips, workers=params.run.workers, title="checking clips")


def inspect_clip(
    clip: dict[str, Any], *, duration_s: float, min_duration_s: float, silence_db: float
) -> dict[str, Any]:
    """One clip's ledger row; only what the model would hear, `duration_s`, is listened to."""
    row: dict[str, Any] = {**clip, "state": "ready", "reason": ""}
    try:
        info = probe(clip["path"])
        row |= {
            "duration_s": info.duration_s,
            "fps": info.fps,
            "width": info.width,
            "height": info.height,
            "rotation": info.rotation,
            "audio_rate": info.audio_rate,
            "audio_channels": info.audio_channels,
            "video_start_s": info.video_start_s,
            "audio_start_s": info.audio_start_s,
            "padded_s": max(0.0, duration_s - usable_s(info)),
        }
        _check(clip["path"], info, duration_s, min_duration_s, silence_db)
    except MediaError as error:
        row |= {"state": error.state, "reason": str(error)}
    return row


def usable_s(info: MediaInfo) -> float:
    """Up to where the clip has both picture and sound."""
    return min(info.duration_s, info.audio_end_s or 0.0)


def _check(path: str, info: MediaInfo, duration_s: float, min_duration_s: float, silence_db: float) -> None:
    if info.audio_rate is None:
        raise MediaError("no_audio", "the file has no sound track")
    # A millisecond of grace: containers round durations.
    if usable_s(info) < min_duration_s - 0.001:
        raise MediaError(
            "short",
            f"{info.duration_s:.2f} s of video and {info.audio_end_s or 0:.2f} s of sound "
            f"are less than prepare.min_duration_s={min_duration_s:g}",
        )
    wave = read_audio(path, sample_rate=info.audio_rate, num_samples=round(duration_s * info.audio_rate))
    peak = float(abs(wave).max(initial=0.0))
    level = 20 * math.log10(peak) if peak > 0 else -math.inf
    if level < silence_db:
        raise MediaError("silent", f"peak of {level:.0f} dBFS is below prepare.silence_db={silence_db:g}")
