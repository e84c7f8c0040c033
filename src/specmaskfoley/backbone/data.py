"""The tokens, prompts and video features that backbone and control branch learn from.

Shape letters: F token rows, T token columns, *P shape of a prompt, t video frames, d feature width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from specmaskfoley.backbone.objective import TokenClips
from specmaskfoley.settings import Params
from specmaskfoley.storage.rows import Join, ShardRows


class TokenRows(ShardRows):
    """Rows whose column `prompt` has another name in the shards."""

    def __init__(self, joins: Sequence[Join], split: str, prompt: str) -> None:
        super().__init__(joins, split)
        self._prompt = prompt

    def read(self, group: int) -> dict[str, np.ndarray]:
        return {"prompt" if name == self._prompt else name: array for name, array in super().read(group).items()}


def token_rows(params: Params, split: str, *, video: bool) -> TokenRows:
    """Tokens and prompts of a split as rows: with video features, or, in training without them, followed by the sounds
    of data.audio.

    Columns tokens (F, T) int16, prompt (*P) float16; with video sync (t, d) float16, semantic_mean (d,) float32. The
    prompt is the clip's sound, or its label where the encoder hears no sounds.
    """
    hears = params.encoders.prompt.hears
    prompt = "audio_prompt" if hears else "text_prompt"
    columns = [prompt, *(["sync", "semantic_mean"] if video else [])]
    sets: list[Join] = [{params.paths.tokens: ["tokens"], params.paths.features: columns}]
    if split == "train" and hears and not video:
        sets.append({params.paths.audio: ["tokens", prompt]})
    return TokenRows(sets, split, prompt)


def load_token_clips(params: Params, split: str, *, video: bool) -> TokenClips:
    """The clips of `token_rows` in memory."""
    rows = token_rows(params, split, video=video)
    groups = [rows.read(group) for group in range(len(rows.group_sizes))]
    columns = {name: torch.from_numpy(np.concatenate([group[name] for group in groups])) for name in groups[0]}
    return TokenClips(
        ids=rows.ids,
        tokens=columns["tokens"].flatten(1),
        prompt=columns["prompt"],
        sync=columns.get("sync"),
        semantic=columns.get("semantic_mean"),
    )
