"""Batches of media files: frames as the encoders and judges see them, sound as they hear it.

Shape letters: n files, t frames, N samples.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from specmaskfoley.media.frames import View, read_views
from specmaskfoley.media.sound import Sound, read_audio
from specmaskfoley.settings import Params


@dataclass(frozen=True)
class MediaBatch:
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
    """The samples of the token grid, as recorded: what the mini encoders and judges hear."""
    return Sound(params.audio.sample_rate, params.audio.num_samples)


def codec_sound(params: Params) -> Sound:
    """What the codec hears: the samples of the token grid, at the peak that audio.normalize asks for."""
    return replace(model_sound(params), peak=params.audio.normalize)


def stream_media(
    paths: Sequence[str | Path],
    *,
    views: Sequence[View] = (),
    sounds: Sequence[Sound] = (),
    batch_size: int,
    workers: int = 0,
    title: str = "reading clips",
) -> Iterator[MediaBatch]:
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
            yield MediaBatch(rows, frames, waves)


def read_media(
    paths: Sequence[str | Path], *, views: Sequence[View] = (), sounds: Sequence[Sound] = (), workers: int = 0
) -> MediaBatch:
    """All files at once, in memory; see `stream_media`."""
    return next(stream_media(paths, views=views, sounds=sounds, batch_size=len(paths), workers=workers))


def read_clip(
    path: str | Path, views: tuple[View, ...], sounds: tuple[Sound, ...], start_s: float = 0.0
) -> tuple[dict[View, np.ndarray], dict[Sound, np.ndarray]]:
    """Frames and waveforms of one file from `start_s` on; shapes as in `MediaBatch`, without n."""
    waves = {sound: read_audio(path, start_s=start_s, **asdict(sound)) for sound in sounds}
    return read_views(path, views, start_s), waves
