"""The mels that codecs learn from.

Shape letters: n clips, M mel bands, L mel frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from specmaskfoley.media.clips import codec_sound, read_media
from specmaskfoley.media.mel import batched_mel, build_mel
from specmaskfoley.settings import Params
from specmaskfoley.storage.rows import ShardRows
from specmaskfoley.storage.tables import LedgerRow, ready_clips, shard_path, write_shard


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


def _codec_mels(params: Params, clips: Sequence[LedgerRow]) -> Tensor:
    sound, mel = codec_sound(params), build_mel(params.audio)
    waves = read_media([clip.path for clip in clips], sounds=(sound,), workers=params.run.workers).waves[sound]
    return mel.normalize(batched_mel(mel, waves))
