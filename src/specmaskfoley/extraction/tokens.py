"""The sound of a clip as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from specmaskfoley.codec import trained
from specmaskfoley.media import mel
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
        self._codec, self._mel = trained.load_codec(params, device), mel.build_mel(params.audio).to(device)
        self._device, self.sounds = device, (codec_sound(params),)

    @torch.inference_mode()
    def encode(self, batch: MediaBatch, labels: Sequence[str]) -> dict[str, np.ndarray]:
        waveform = torch.from_numpy(batch.waves[self.sounds[0]]).to(self._device)
        tokens = self._codec.encode(self._mel.normalize(self._mel(waveform))[:, None]).tokens
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
