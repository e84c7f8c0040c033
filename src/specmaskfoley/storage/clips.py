"""Clips of the ledger as arrays: frames at the encoders' rates and the sound of the token grid.

Shape letters: n clips, t sync frames, u semantic frames, S frame side, N samples.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from specmaskfoley.config import Audio, Params, Video
from specmaskfoley.storage.media import read_audio, read_frames
from specmaskfoley.storage.tables import LedgerRow


@dataclass(frozen=True)
class Clips:
    """sync_frames (n, t, S, S, 3) and semantic_frames (n, u, S, S, 3) uint8, waveform (n, N) float32."""

    ids: list[str]
    labels: list[str]
    sync_frames: np.ndarray
    semantic_frames: np.ndarray
    waveform: np.ndarray


def stream_clips(
    rows: Sequence[LedgerRow], params: Params, *, batch_size: int, frames: bool = True, title: str = "reading clips"
) -> Iterator[Clips]:
    """Batches of clips in the order of the rows, read ahead by threads (decoding releases the GIL)."""
    workers = params.run.workers or os.cpu_count() or 1
    read = partial(_read_row, audio=params.audio, video=params.video, frames=frames)
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(rows), desc=title, disable=None) as bar:
        pending = [pool.submit(read, row) for row in rows[: 2 * batch_size]]
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            ahead = rows[first + 2 * batch_size : first + 3 * batch_size]
            done = [future.result() for future in pending[: len(batch)]]
            pending = pending[len(batch) :] + [pool.submit(read, row) for row in ahead]
            bar.update(len(batch))
            sync, semantic, waveform = (np.stack(arrays) for arrays in zip(*done, strict=True))
            ids, labels = [row.clip_id for row in batch], [row.label for row in batch]
            yield Clips(ids, labels, sync, semantic, waveform)


def read_clips(rows: Sequence[LedgerRow], params: Params, *, frames: bool = True) -> Clips:
    """All clips at once, in memory; see `stream_clips`."""
    parts = list(stream_clips(rows, params, batch_size=64, frames=frames))
    return Clips(
        [clip_id for part in parts for clip_id in part.ids],
        [label for part in parts for label in part.labels],
        np.concatenate([part.sync_frames for part in parts]),
        np.concatenate([part.semantic_frames for part in parts]),
        np.concatenate([part.waveform for part in parts]),
    )


def read_video(
    path: str | os.PathLike[str], audio: Audio, video: Video, start_s: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Sync (t, S, S, 3) and semantic (u, S, S, 3) frames of the model's duration from `start_s` on."""
    sync = start_s + np.arange(video.sync_frames(audio.token_duration_s)) / video.sync_fps
    semantic = start_s + np.arange(video.semantic_frames(audio.token_duration_s)) / video.semantic_fps
    if video.sync_size == video.semantic_size:
        # Decoding is what costs: both rates come from one pass.
        frames = read_frames(path, times=np.concatenate([sync, semantic]), size=video.sync_size)
        return frames[: len(sync)], frames[len(sync) :]
    return (
        read_frames(path, times=sync, size=video.sync_size),
        read_frames(path, times=semantic, size=video.semantic_size),
    )


def _read_row(row: LedgerRow, audio: Audio, video: Video, frames: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    waveform = read_audio(row.path, sample_rate=audio.sample_rate, num_samples=audio.num_samples)
    if not frames:
        return np.empty(0, np.uint8), np.empty(0, np.uint8), waveform
    return *read_video(row.path, audio, video), waveform
