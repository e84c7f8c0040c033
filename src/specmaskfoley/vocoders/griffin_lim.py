"""Mel to waveform by phase reconstruction, for every recipe of a mel.

Shape letters: B batch, M mel bands, L mel frames, N samples.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from specmaskfoley import settings
from specmaskfoley.media.mel import build_mel


class GriffinLim(nn.Module):
    """Phase reconstruction (Griffin & Lim, with momentum), nothing to train: (B, M, L) -> (B, L * hop_length)."""

    mel: ClassVar[None] = None
    """Every `audio.mel`."""

    inverse: Tensor
    window: Tensor

    def __init__(self, audio: settings.Audio, options: settings.GriffinLim) -> None:
        super().__init__()
        self.audio, self.options = audio, options
        self.recipe = build_mel(audio)
        self.register_buffer("inverse", torch.linalg.pinv(self.recipe.filters), persistent=False)
        self.register_buffer("window", torch.hann_window(audio.n_fft), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        # One clip at a time on a CPU: its spectrogram stays in the cache, a batch of them does not.
        parts = [mel] if mel.is_cuda else torch.split(mel, 1)
        with torch.autocast(mel.device.type, enabled=False):
            return torch.cat([self._invert(part.float()) for part in parts])

    def _invert(self, mel: Tensor) -> Tensor:
        audio, first = self.audio, self.recipe.first_centre
        amplitude = self.recipe.amplitude(mel)
        if first == 0:
            # Centred frames end one hop before the sound does. One more, half as loud as the last: an equal one pulls
            # a click of the last 20 ms to the very end, none at all fades a lasting sound out (measured).
            amplitude = torch.cat([amplitude, amplitude[..., -1:] / 2], dim=-1)
        wave = torchaudio.functional.griffinlim(
            torch.clamp(self.inverse @ amplitude, min=0.0),
            self.window,
            n_fft=audio.n_fft,
            hop_length=audio.hop_length,
            win_length=audio.n_fft,
            power=1.0,
            n_iter=self.options.iterations,
            momentum=self.options.momentum,
            length=None,
            rand_init=False,  # the same mel always gives the same wave; as good as random phases (measured)
        )
        # torchaudio centres frame i on sample i * hop; a mel that begins later needs as much in front.
        samples = mel.shape[-1] * audio.hop_length
        return F.pad(wave, (first, samples - first - wave.shape[-1]))
