"""What every panel of judges does: from frames and waveforms to the arrays that the metrics compare.

Shape letters: n clips, N samples, t frames, H, W frame height and width, C classes, w DeSync windows, O offset
classes, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from specmaskfoley.media.frames import View
from specmaskfoley.media.sound import Sound
from specmaskfoley.metrics.judged import SoundArrays
from specmaskfoley.settings import Params


@dataclass(frozen=True)
class Heard(SoundArrays):
    """What the judges make of the sound of n clips."""

    windows: tuple[np.ndarray, ...]
    """w arrays (n, ...) of the offset classifier: DeSync."""


@dataclass(frozen=True)
class Seen:
    """What the judges make of the pictures of n clips."""

    joint: np.ndarray
    """(n, D)"""
    windows: tuple[np.ndarray, ...]
    """w arrays (n, ...)."""


class Panel(nn.Module, ABC):
    """A tagger, an audio embedder, an audio-video embedder and an offset classifier.

    `views` and `sounds` say what they must be shown, `grid` (O,) holds the seconds of the offset classes.
    """

    views: tuple[View, ...]
    sounds: tuple[Sound, ...]
    grid: np.ndarray
    batch_size: int

    @classmethod
    @abstractmethod
    def load(cls, params: Params) -> Self:
        """The panel that `judges` in params.yaml describes, with its weights, on the CPU."""

    @abstractmethod
    def hear(self, waves: Mapping[Sound, Tensor]) -> Heard:
        """Waveforms (n, N) of every sound in `sounds` -> everything that depends on sound alone."""

    @abstractmethod
    def see(self, frames: Mapping[View, Tensor]) -> Seen:
        """uint8 frames (n, t, H, W, 3) of every view in `views` -> everything that depends on pictures alone."""

    @abstractmethod
    def compare(self, video: Tensor, audio: Tensor) -> Tensor:
        """A window of pictures and of sound of the same n clips -> logits (n, O)."""

    @property
    def duration_s(self) -> float:
        """Seconds of sound that the judges hear."""
        return max(sound.duration_s for sound in self.sounds)

    @torch.inference_mode()
    def offsets(self, seen: Sequence[np.ndarray], heard: Sequence[np.ndarray]) -> np.ndarray:
        """Windows of pictures and of sound of the same n clips -> logits over the offset grid (n, w, O)."""
        logits = [
            self.compare(self.to_device(torch.from_numpy(video)), self.to_device(torch.from_numpy(audio)))
            for video, audio in zip(seen, heard, strict=True)
        ]
        return to_numpy(torch.stack(logits, dim=1))

    def to_device(self, x: Tensor) -> Tensor:
        return x.to(next(self.parameters()).device)


def to_numpy(x: Tensor, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """To an array in main memory."""
    return x.to(dtype).cpu().numpy()
