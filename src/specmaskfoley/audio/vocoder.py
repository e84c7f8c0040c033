"""Log-mel to waveform.

Shape letters: B batch, M mel bands, L mel frames, N samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from specmaskfoley.audio.mel import mel_filters
from specmaskfoley.config import Audio, Vocoder


class GriffinLim(nn.Module):
    """Phase reconstruction (Griffin & Lim, with momentum), nothing to train: (B, M, L) -> (B, L * hop_length)."""

    inverse: Tensor
    window: Tensor

    def __init__(self, audio: Audio, settings: Vocoder) -> None:
        super().__init__()
        self.audio, self.settings = audio, settings
        self.register_buffer("inverse", torch.linalg.pinv(mel_filters(audio)), persistent=False)
        self.register_buffer("window", torch.hann_window(audio.n_fft), persistent=False)

    def forward(self, log_mel: Tensor) -> Tensor:
        # One clip at a time on a CPU: its spectrogram stays in the cache, a batch of them does not.
        parts = [log_mel] if log_mel.is_cuda else torch.split(log_mel, 1)
        return torch.cat([self._invert(part) for part in parts])

    def _invert(self, log_mel: Tensor) -> Tensor:
        audio = self.audio
        wave = torchaudio.functional.griffinlim(
            torch.clamp(self.inverse @ log_mel.exp(), min=0.0),
            self.window,
            n_fft=audio.n_fft,
            hop_length=audio.hop_length,
            win_length=audio.n_fft,
            power=1.0,
            n_iter=self.settings.iterations,
            momentum=self.settings.momentum,
            length=None,
            rand_init=False,  # the same mel always gives the same wave; as good as random phases (measured)
        )
        # torchaudio centres frame i on sample i * hop, our mel on (i + 1/2) * hop: half a hop goes in front.
        half = audio.hop_length // 2
        samples = log_mel.shape[-1] * audio.hop_length
        return F.pad(wave, (half, samples - half - wave.shape[-1]))


def build_vocoder(audio: Audio, settings: Vocoder) -> GriffinLim:
    """The vocoder that `vocoder.kind` names."""
    return GriffinLim(audio, settings)
