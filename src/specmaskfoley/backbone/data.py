"""The tokens, prompts and video features that backbone and control branch learn from.

Shape letters: F token rows, T token columns, P prompt width, t video frames, d feature width.
"""

from __future__ import annotations

import numpy as np
import torch

from specmaskfoley.backbone.objective import TokenClips
from specmaskfoley.settings import Params
from specmaskfoley.storage.rows import Join, ShardRows


def token_rows(params: Params, split: str, *, video: bool) -> ShardRows:
    """Tokens and audio prompts of a split as rows: with video features, or, in training without them, followed by the
    sounds of data.audio.

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
