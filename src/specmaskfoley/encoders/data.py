"""The clips that the mini encoders and judges learn from, in memory.

Shape letters: n clips, t video frames, S frame side, M mel bands, L mel frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specmaskfoley.media.clips import model_sound, read_media, semantic_view, sync_view
from specmaskfoley.media.mel import MelSpectrogram, batched_mel
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import LedgerRow, ready_clips


@dataclass(frozen=True)
class AudioVisual:
    """Clips of one split in memory: n ids.

    sync_frames: (n, t, S, S, 3) uint8, semantic_frames likewise at their own rate, log_mel: (n, M, L),
    labels: (n,) index into `texts`; mel_per_frame: mel frames for one sync frame.
    """

    ids: Sequence[str]
    sync_frames: Tensor
    semantic_frames: Tensor
    log_mel: Tensor
    labels: Tensor
    texts: tuple[str, ...]
    mel_per_frame: float

    def __len__(self) -> int:
        return len(self.log_mel)


def load_audio_visual(params: Params, split: str, texts: tuple[str, ...] = ()) -> AudioVisual:
    """Frames and mels of a split in memory, at most `encoders.max_clips` of them, evenly picked.

    Args:
        texts: the labels that come first, those of the training split; labels met here for the first time follow.
    """
    rows = _evenly(ready_clips(params.paths.usable, split), params.encoders.max_clips)
    texts = (*texts, *sorted({row.label for row in rows} - set(texts)))
    sync, semantic, sound = sync_view(params), semantic_view(params), model_sound(params)
    media = read_media([row.path for row in rows], views=(sync, semantic), sounds=(sound,), workers=params.run.workers)
    return AudioVisual(
        ids=[row.clip_id for row in rows],
        sync_frames=torch.from_numpy(media.frames[sync]),
        semantic_frames=torch.from_numpy(media.frames[semantic]),
        log_mel=log_mels(media.waves[sound], params),
        labels=torch.tensor([texts.index(row.label) for row in rows]),
        texts=texts,
        mel_per_frame=params.audio.sample_rate / params.audio.hop_length / params.video.sync_fps,
    )


def log_mels(waveform: np.ndarray | Tensor, params: Params) -> Tensor:
    """(n, samples) -> (n, M, L): what the mini encoders and judges hear, whichever mel the codec reads."""
    return batched_mel(MelSpectrogram(params.audio), waveform)


def _evenly(rows: list[LedgerRow], most: int) -> list[LedgerRow]:
    """At most `most` rows, spread over the list."""
    if len(rows) <= most:
        return rows
    return [rows[int(index)] for index in np.linspace(0, len(rows) - 1, most)]
