"""From the ledger and the shards to the tensors that training reads.

Shape letters: n clips, M mel bands, L mel frames, N tokens a clip.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from specmaskfoley.encoders.objectives import AudioVisual
from specmaskfoley.media.clips import model_sound, read_media, semantic_view, sync_view
from specmaskfoley.media.mel import MelSpectrogram
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import LedgerRow, ready_clips

_BATCH = 32


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
    return _batched(MelSpectrogram(params.audio), waveform)


@torch.inference_mode()
def _batched(mel: nn.Module, waveform: np.ndarray | Tensor) -> Tensor:
    """In batches on the CPU; a copy, which autograd may use."""
    return torch.cat([mel(part) for part in torch.split(torch.as_tensor(waveform), _BATCH)]).clone()


def _evenly(rows: list[LedgerRow], most: int) -> list[LedgerRow]:
    """At most `most` rows, spread over the list."""
    if len(rows) <= most:
        return rows
    return [rows[int(index)] for index in np.linspace(0, len(rows) - 1, most)]
