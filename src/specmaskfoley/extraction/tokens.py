"""The sound of a clip as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from specmaskfoley.codec.trained import load_reader
from specmaskfoley.media.clips import MediaBatch, codec_sound
from specmaskfoley.media.frames import View
from specmaskfoley.settings import Params


class TokenExtractor:
    """Column tokens (F, T), int16."""

    stage = "tokens"
    reads_label = False
    precision = "float32"
    views: tuple[View, ...] = ()

    def __init__(self, params: Params, device: torch.device) -> None:
        self._reader, self.sounds = load_reader(params, device), (codec_sound(params),)

    def encode(self, batch: MediaBatch, labels: Sequence[str]) -> dict[str, np.ndarray]:
        tokens = self._reader.encode(torch.from_numpy(batch.waves[self.sounds[0]]))
        return {"tokens": tokens.to(torch.int16).cpu().numpy()}

    @staticmethod
    def batch_size(params: Params) -> int:
        return 16

    @staticmethod
    def settings(params: Params) -> list[Any]:
        return [params.audio, params.codec]

    @staticmethod
    def inputs(params: Params) -> list[str]:
        return [params.paths.codec]
