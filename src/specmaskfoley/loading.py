"""From the ledger and the shards to the tensors that training reads.

Shape letters: n clips, M mel bands, L mel frames, N tokens a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from specmaskfoley.audio.mel import MelSpectrogram, build_mel
from specmaskfoley.config import Params
from specmaskfoley.storage.clips import model_sound, read_media, semantic_view, sync_view
from specmaskfoley.storage.rows import Join, ShardRows
from specmaskfoley.storage.tables import LedgerRow, ready_clips, shard_path, write_shard
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


def load_mels(params: Params, split: str) -> Tensor:
    """The codec's mels (n, M, L), normalised, of all usable clips of a split."""
    return _codec_mels(params, ready_clips(params.paths.usable, split))


def mel_rows(params: Params, split: str, folder: Path) -> ShardRows:
    """The codec's mels of all usable clips of a split as rows with a column `mel`, (M, L) float16, normalised.

    They are read once into shards in `folder`, a shard at a time: a killed run goes on at the first that is missing.
    """
    clips, size = ready_clips(params.paths.usable, split), params.prepare.shard_rows
    for number, first in enumerate(range(0, len(clips), size)):
        path = shard_path(folder, split, number)
        if not path.exists():
            part = clips[first : first + size]
            write_shard(path, [clip.clip_id for clip in part], {"mel": _codec_mels(params, part).half().numpy()})
    return ShardRows([{str(folder): ["mel"]}], split)


def token_rows(params: Params, split: str, *, video: bool) -> ShardRows:
    """Tokens and audio prompts of a split as rows; with video features if asked, else in training with the sounds of
    data.audio behind the clips.

    Columns tokens (F, T) int16, audio_prompt (P,) float16; with video sync (t, d) float16, semantic_mean (d,) float32.
    """
    columns = ["audio_prompt", *(["sync", "semantic_mean"] if video else [])]
    sets: list[Join] = [{params.paths.tokens: ["tokens"], params.paths.features: columns}]
    if split == "train" and not video:
        sets.append({params.paths.audio: ["tokens", "audio_prompt"]})
    return ShardRows(sets, split)


def load_token_clips(params: Params, split: str, *, video: bool) -> TokenClips:
    """The clips of `token_rows` in memory."""
    rows = token_rows(params, split, video=video)
    groups = [rows.read(group) for group in range(len(rows.group_sizes))]
    columns = {name: torch.from_numpy(np.concatenate([group[name] for group in groups])) for name in groups[0]}
    return TokenClips(
        ids=rows.ids,
        tokens=columns["tokens"].flatten(1),
        prompt=columns["audio_prompt"],
        sync=columns.get("sync"),
        semantic=columns.get("semantic_mean"),
    )


def log_mels(waveform: np.ndarray | Tensor, params: Params) -> Tensor:
    """(n, samples) -> (n, M, L): what the mini encoders and judges hear, whichever mel the codec reads."""
    return _batched(MelSpectrogram(params.audio), waveform)


def _codec_mels(params: Params, clips: Sequence[LedgerRow]) -> Tensor:
    sound, mel = model_sound(params), build_mel(params.audio)
    waves = read_media([clip.path for clip in clips], sounds=(sound,), workers=params.run.workers).waves[sound]
    return mel.normalize(_batched(mel, waves))


@torch.inference_mode()
def _batched(mel: nn.Module, waveform: np.ndarray | Tensor) -> Tensor:
    """In batches on the CPU; a copy, which autograd may use."""
    return torch.cat([mel(part) for part in torch.split(torch.as_tensor(waveform), _BATCH)]).clone()


def _evenly(rows: list[LedgerRow], most: int) -> list[LedgerRow]:
    """At most `most` rows, spread over the list."""
    if len(rows) <= most:
        return rows
    return [rows[int(index)] for index in np.linspace(0, len(rows) - 1, most)]
