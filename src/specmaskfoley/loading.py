"""From the ledger and the shards to the tensors that training reads.

Shape letters: n clips, M mel bands, L mel frames, N tokens a clip.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from specmaskfoley.audio.mel import MelSpectrogram, build_mel
from specmaskfoley.config import Params
from specmaskfoley.storage.clips import model_sound, read_media, semantic_view, sync_view
from specmaskfoley.storage.tables import LedgerRow, read_arrays, ready_clips
from specmaskfoley.training.encoders import AudioVisual
from specmaskfoley.training.masked import TokenClips

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


def load_mels(params: Params, split: str) -> tuple[list[str], Tensor]:
    """Ids and the codec's mels (n, M, L) of all usable clips of a split."""
    rows, sound = ready_clips(params.paths.usable, split), model_sound(params)
    waves = read_media([row.path for row in rows], sounds=(sound,), workers=params.run.workers).waves[sound]
    return [row.clip_id for row in rows], _batched(build_mel(params.audio), waves)


def load_token_clips(params: Params, split: str, *, video: bool) -> TokenClips:
    """Tokens and audio prompts of a split, with video features if asked.

    Raises:
        ValueError: the token and feature shards list different clips.
    """
    ids, tokens = read_arrays(params.paths.tokens, split)
    columns = ["audio_prompt", *(["sync", "semantic"] if video else [])]
    feature_ids, features = read_arrays(params.paths.features, split, columns)
    if ids != feature_ids:
        raise ValueError(
            f"{params.paths.tokens} and {params.paths.features} list different clips of split {split}; run `dvc repro`"
        )
    semantic = features["semantic"].astype(np.float32).mean(1) if video else None
    return TokenClips(
        ids=ids,
        tokens=_tensor(tokens["tokens"]).flatten(1),
        prompt=_tensor(features["audio_prompt"]),
        sync=_tensor(features["sync"]) if video else None,
        semantic=None if semantic is None else torch.from_numpy(semantic),
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


def _tensor(array: np.ndarray) -> Tensor:
    """Arrow's buffers are read-only; torch wants its own."""
    return torch.from_numpy(np.array(array))
