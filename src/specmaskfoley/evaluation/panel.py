"""What every panel of judges does: from frames and waveforms to the arrays that the metrics compare.

Shape letters: n clips, N samples, t frames, H, W frame height and width, C classes, w DeSync windows, O offset
classes, k stretches a clip, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from specmaskfoley.evaluation.desync import desync
from specmaskfoley.evaluation.frechet import frechet_distance
from specmaskfoley.evaluation.ib import ib_score
from specmaskfoley.evaluation.kl import kl_divergence
from specmaskfoley.storage.clips import Sound, View

_PAIRS = 64


@dataclass(frozen=True)
class Heard:
    """What the judges make of the sound of n clips."""

    logits: np.ndarray
    """(n, C) of the tagger: KL."""
    embedding: np.ndarray
    """(n, D) of the tagger: FD."""
    stretches: np.ndarray
    """(n, k, D) of the audio embedder, a row about every second: FAD."""
    joint: np.ndarray
    """(n, D) of the audio-video embedder: IB score."""
    windows: tuple[np.ndarray, ...]
    """w arrays (n, ...) of the offset classifier: DeSync."""

    @classmethod
    def join(cls, parts: Sequence[Heard]) -> Heard:
        """One after the other."""
        return cls(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.embedding for part in parts]),
            np.concatenate([part.stretches for part in parts]),
            np.concatenate([part.joint for part in parts]),
            _join_windows(parts),
        )

    def take(self, order: np.ndarray) -> Heard:
        """The same sounds in another order (for pairing them with other videos)."""
        return Heard(
            self.logits[order],
            self.embedding[order],
            self.stretches[order],
            self.joint[order],
            tuple(window[order] for window in self.windows),
        )


@dataclass(frozen=True)
class Seen:
    """What the judges make of the pictures of n clips."""

    joint: np.ndarray
    """(n, D)"""
    windows: tuple[np.ndarray, ...]
    """w arrays (n, ...)."""

    @classmethod
    def join(cls, parts: Sequence[Seen]) -> Seen:
        """One after the other."""
        return cls(np.concatenate([part.joint for part in parts]), _join_windows(parts))


class Panel(nn.Module, ABC):
    """A tagger, an audio embedder, an audio-video embedder and an offset classifier.

    `views` and `sounds` say what they must be shown, `grid` (O,) holds the seconds of the offset classes.
    """

    views: tuple[View, ...]
    sounds: tuple[Sound, ...]
    grid: np.ndarray
    batch_size: int

    @abstractmethod
    def hear(self, waves: Mapping[Sound, Tensor]) -> Heard:
        """Waveforms (n, N) of every sound in `sounds` -> everything that depends on sound alone."""

    @abstractmethod
    def see(self, frames: Mapping[View, Tensor]) -> Seen:
        """uint8 frames (n, t, H, W, 3) of every view in `views` -> everything that depends on pictures alone."""

    @abstractmethod
    def compare(self, video: Tensor, audio: Tensor) -> Tensor:
        """A window of pictures and of sound of the same n clips -> logits (n, O)."""

    @torch.inference_mode()
    def offsets(self, seen: Seen, heard: Heard) -> np.ndarray:
        """Logits over the offset grid for every window of each clip: (n, w, O)."""
        logits = [
            torch.cat(
                [
                    self.compare(self.to_device(v), self.to_device(a)).float().cpu()
                    for v, a in zip(
                        torch.split(torch.from_numpy(video), _PAIRS),
                        torch.split(torch.from_numpy(audio), _PAIRS),
                        strict=True,
                    )
                ]
            )
            for video, audio in zip(seen.windows, heard.windows, strict=True)
        ]
        return torch.stack(logits, dim=1).numpy()

    def score(self, heard: Heard, reference: Heard, seen: Seen) -> dict[str, float]:
        """fd, fad, kl, ib and desync of sounds against reference sounds and pictures, paired by row."""
        width = heard.stretches.shape[-1]
        return {
            "fd": frechet_distance(heard.embedding, reference.embedding),
            "fad": frechet_distance(heard.stretches.reshape(-1, width), reference.stretches.reshape(-1, width)),
            "kl": kl_divergence(reference.logits, heard.logits),
            "ib": ib_score(seen.joint, heard.joint),
            "desync": desync(self.offsets(seen, heard), self.grid),
        }

    def to_device(self, x: Tensor) -> Tensor:
        return x.to(next(self.parameters()).device)


def to_numpy(x: Tensor, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Off the device."""
    return x.to(dtype).cpu().numpy()


def _join_windows(parts: Sequence[Heard] | Sequence[Seen]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(windows) for windows in zip(*(part.windows for part in parts), strict=True))
