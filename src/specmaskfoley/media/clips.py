"""Media files as arrays: frames as an encoder or judge sees them, sound at the rate it is heard.

Shape letters: n files, t frames, H, W frame height and width, N samples.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from specmaskfoley.media import files as media
from specmaskfoley.settings import FrameRule, Params


@dataclass(frozen=True)
class View:
    """How somebody sees a video: `frames` of them at `fps`, fitted to squares of `size` pixels.

    `fit` is one of media.Fit's that give squares, or three_crops: the start, centre and end of the long side.
    """

    fps: float
    frames: int
    size: int
    fit: Literal["stretch", "clip", "crop", "three_crops"]
    rule: FrameRule


@dataclass(frozen=True)
class Sound:
    """How somebody hears a file: mono, cut or padded with silence to `num_samples`."""

    sample_rate: int
    num_samples: int
    resampling: media.Resampling = "kaiser"

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.sample_rate


@dataclass(frozen=True)
class Media:
    """A batch of files: which of them, frames by view, waveforms float32 (n, N) by sound.

    Frames are uint8 (n, t, size, size, 3), those of three crops (n, 3, t, size, size, 3).
    """

    rows: slice
    frames: Mapping[View, np.ndarray]
    waves: Mapping[Sound, np.ndarray]


def sync_view(params: Params) -> View:
    """What the sync encoder sees."""
    video = params.video
    return View(video.sync_fps, params.num_sync_frames, video.sync_size, video.sync_fit, video.frame_rule)


def semantic_view(params: Params) -> View:
    """What the semantic encoder sees."""
    video = params.video
    return View(
        video.semantic_fps, params.num_semantic_frames, video.semantic_size, video.semantic_fit, video.frame_rule
    )


def model_sound(params: Params) -> Sound:
    """What the codec hears: the samples of the token grid."""
    return Sound(params.audio.sample_rate, params.audio.num_samples)


def stream_media(
    paths: Sequence[str | Path],
    *,
    views: Sequence[View] = (),
    sounds: Sequence[Sound] = (),
    batch_size: int,
    workers: int = 0,
    title: str = "reading clips",
) -> Iterator[Media]:
    """Batches of files in their order, read ahead by threads (decoding releases the GIL).

    Args:
        workers: threads; 0: one a core.
    """
    workers = workers or os.cpu_count() or 1
    read = partial(read_clip, views=tuple(dict.fromkeys(views)), sounds=tuple(dict.fromkeys(sounds)))
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(paths), desc=title, disable=None) as bar:
        # At most one batch waits while another is used: official views take 70 MB a clip.
        ahead = max(batch_size, workers)
        pending = [pool.submit(read, path) for path in paths[: batch_size + ahead]]
        for first in range(0, len(paths), batch_size):
            rows = slice(first, min(first + batch_size, len(paths)))
            count = rows.stop - rows.start
            done = [future.result() for future in pending[:count]]
            sent = first + len(pending)
            pending = pending[count:] + [pool.submit(read, path) for path in paths[sent : sent + batch_size]]
            bar.update(count)
            frames = {view: np.stack([item[0][view] for item in done]) for view in done[0][0]}
            waves = {sound: np.stack([item[1][sound] for item in done]) for sound in done[0][1]}
            yield Media(rows, frames, waves)


def read_media(
    paths: Sequence[str | Path], *, views: Sequence[View] = (), sounds: Sequence[Sound] = (), workers: int = 0
) -> Media:
    """All files at once, in memory; see `stream_media`."""
    parts = list(stream_media(paths, views=views, sounds=sounds, batch_size=64, workers=workers))
    return Media(
        slice(0, len(paths)),
        {view: np.concatenate([part.frames[view] for part in parts]) for view in dict.fromkeys(views)},
        {sound: np.concatenate([part.waves[sound] for part in parts]) for sound in dict.fromkeys(sounds)},
    )


def read_views(path: str | Path, views: Sequence[View], start_s: float = 0.0) -> dict[View, np.ndarray]:
    """Frames of one file from `start_s` on, by view, from one decoding; shapes as in `Media`, without n."""
    return next(stream_views(path, views, [start_s])) if views else {}


def stream_views(
    path: str | Path, views: Sequence[View], starts_s: Sequence[float]
) -> Iterator[dict[View, np.ndarray]]:
    """What `read_views` gives from each of ascending `starts_s` on; one decoding for all, in little memory."""
    windows = (
        [
            media.View(
                times=media.frame_times(view.fps, view.frames, rule=view.rule, start_s=start_s),
                size=view.size,
                fit="short_side" if view.fit == "three_crops" else view.fit,
                rule=view.rule,
            )
            for view in views
        ]
        for start_s in starts_s
    )
    for arrays in media.stream_views(path, windows):
        yield {
            view: three_crops(frames, view.size) if view.fit == "three_crops" else frames
            for view, frames in zip(views, arrays, strict=True)
        }


def three_crops(frames: np.ndarray, size: int) -> np.ndarray:
    """Squares at the start, the centre and the end of the long side, as ImageBind sees a video.

    Args:
        frames: (t, H, W, 3), the short side `size`.

    Returns:
        (3, t, size, size, 3).
    """
    height, width = frames.shape[1:3]
    spare = max(height, width) - size
    starts = (0, math.ceil(spare / 2), spare)
    if height > width:
        return np.stack([frames[:, start : start + size] for start in starts])
    return np.stack([frames[:, :, start : start + size] for start in starts])


def read_clip(
    path: str | Path, views: tuple[View, ...], sounds: tuple[Sound, ...], start_s: float = 0.0
) -> tuple[dict[View, np.ndarray], dict[Sound, np.ndarray]]:
    """Frames and waveforms of one file from `start_s` on; shapes as in `Media`, without n."""
    waves = {
        sound: media.read_audio(
            path,
            sample_rate=sound.sample_rate,
            num_samples=sound.num_samples,
            start_s=start_s,
            resampling=sound.resampling,
        )
        for sound in sounds
    }
    return read_views(path, views, start_s), waves
