"""All judges together: from frames and mels to the arrays that the metrics compare.

Shape letters: n clips, t sync frames, u semantic frames, S frame side, M mel bands, L mel frames, C classes,
w DeSync windows, O offset classes, k stretches a clip, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from specmaskfoley.config import Params
from specmaskfoley.evaluation.desync import desync, offset_grid
from specmaskfoley.evaluation.frechet import frechet_distance
from specmaskfoley.evaluation.ib import ib_score
from specmaskfoley.evaluation.judges import AudioEmbedder, AudioVideoEmbedder, OffsetClassifier, Tagger
from specmaskfoley.evaluation.kl import kl_divergence

_BATCH = 16


@dataclass(frozen=True)
class Heard:
    """What the judges make of the sound of n clips."""

    logits: np.ndarray
    """(n, C) of the tagger."""
    embedding: np.ndarray
    """(n, 2 D) of the tagger: FD."""
    stretches: np.ndarray
    """(n, k, D) of the audio embedder, a row about every second: FAD."""
    joint: np.ndarray
    """(n, D) of the audio-video embedder: IB score."""
    windows: tuple[np.ndarray, ...]
    """w arrays (n, frames, D) of the offset classifier: DeSync."""


@dataclass(frozen=True)
class Seen:
    """What the judges make of the pictures of n clips."""

    joint: np.ndarray
    """(n, D)"""
    windows: tuple[np.ndarray, ...]
    """w arrays (n, frames, D)."""


class Panel(nn.Module):
    """Tagger (PaSST's role), audio embedder (VGGish's), audio-video embedder (ImageBind's), offset classifier."""

    def __init__(self, params: Params, texts: Sequence[str]) -> None:
        super().__init__()
        judges, audio, video = params.judges, params.audio, params.video
        self.audio_settings, self.sync_fps = audio, video.sync_fps
        self.texts = tuple(texts)
        self.grid = offset_grid(judges.sync_max_offset_s, judges.sync_classes)
        self.window = round(judges.sync_window_s * video.sync_fps)
        self.tagger = Tagger(judges.width, len(texts))
        self.audio = AudioEmbedder(audio.num_mels, judges.width, len(texts))
        self.audio_video = AudioVideoEmbedder(judges.width)
        self.offset = OffsetClassifier(
            audio.num_mels, judges.width, tuple(round(offset * video.sync_fps) for offset in self.grid)
        )

    @property
    def mel_per_frame(self) -> float:
        return self.audio_settings.sample_rate / self.audio_settings.hop_length / self.sync_fps

    @property
    def stretch(self) -> int:
        """Mel frames of about 0.96 s, VGGish's example length; the whole clip where it is shorter."""
        return min(
            round(0.96 * self.audio_settings.sample_rate / self.audio_settings.hop_length),
            self.audio_settings.num_frames,
        )

    @torch.inference_mode()
    def hear(self, log_mel: Tensor) -> Heard:
        """(n, M, L) -> everything that depends on sound alone."""
        parts = [self._hear(part) for part in torch.split(log_mel, _BATCH)]
        logits, embedding, stretches, joint, first, last = (
            torch.cat(items).numpy() for items in zip(*parts, strict=True)
        )
        return Heard(logits, embedding, stretches, joint, (first, last))

    @torch.inference_mode()
    def see(self, sync_frames: Tensor, semantic_frames: Tensor) -> Seen:
        """uint8 (n, t, S, S, 3) and (n, u, S, S, 3) -> everything that depends on pictures alone."""
        parts = []
        for sync, semantic in zip(torch.split(sync_frames, _BATCH), torch.split(semantic_frames, _BATCH), strict=True):
            first = self.offset.encode_video(self._device(sync[:, : self.window]))
            last = self.offset.encode_video(self._device(sync[:, -self.window :]))
            parts.append((self.audio_video.encode_video(self._device(semantic)).cpu(), first.cpu(), last.cpu()))
        joint, *windows = (torch.cat(items).numpy() for items in zip(*parts, strict=True))
        return Seen(joint, tuple(windows))

    @torch.inference_mode()
    def offsets(self, seen: Seen, heard: Heard) -> np.ndarray:
        """Logits over the offset grid for the first and the last window of each clip: (n, w, O)."""
        logits = [
            self.offset.compare(self._device(torch.from_numpy(v)), self._device(torch.from_numpy(a))).cpu()
            for v, a in zip(seen.windows, heard.windows, strict=True)
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

    def _hear(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        log_mel = self._device(log_mel)
        logits, embedding = self.tagger(log_mel)
        whole = log_mel.shape[-1] // self.stretch * self.stretch
        pieces = torch.split(log_mel[..., :whole], self.stretch, dim=-1)
        stretches = torch.stack([self.audio(piece) for piece in pieces], dim=1)
        length = round(self.window * self.mel_per_frame)
        # The last window of sound starts where the last window of pictures starts.
        start = round((self._frames(log_mel) - self.window) * self.mel_per_frame)
        start = min(start, log_mel.shape[-1] - length)
        first = self.offset.encode_audio(log_mel[..., :length], self.window)
        last = self.offset.encode_audio(log_mel[..., start : start + length], self.window)
        items = (logits, embedding, stretches, self.audio_video.encode_audio(log_mel), first, last)
        return tuple(item.cpu() for item in items)

    def _frames(self, log_mel: Tensor) -> int:
        return round(log_mel.shape[-1] / self.mel_per_frame)

    def _device(self, x: Tensor) -> Tensor:
        return x.to(self.offset.bias.device)


def take(items: Heard, order: np.ndarray) -> Heard:
    """The same sounds in another order (for pairing them with other videos)."""
    return Heard(
        items.logits[order],
        items.embedding[order],
        items.stretches[order],
        items.joint[order],
        tuple(window[order] for window in items.windows),
    )
