"""Waveform to log-mel, HiFi-GAN's recipe (jik876/hifi-gan, meldataset.py).

Shape letters: B batch, N samples, M mel bands, L mel frames.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from specmaskfoley.config import Audio

LOG_FLOOR = 1e-5
"""Amplitude below which the mel is cut; its natural logarithm, -11.51, is digital silence."""

_CENTRE, _HALF_RANGE = -4.75, 6.75
"""[-11.5, 2] (silence to full-scale) maps to [-1, 1]; SpecMaskGIT normalises so, its constants are unpublished."""


class MelSpectrogram(nn.Module):
    """Natural-log mel-spectrogram: (B, N) -> (B, M, L) with L = N // hop_length.

    Not centred: the wave is padded by (n_fft - hop)/2 on both sides, so frame i is centred on
    sample (i + 1/2) * hop and whole hops give whole frames.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, audio: Audio) -> None:
        super().__init__()
        self.audio = audio
        self.register_buffer("window", torch.hann_window(audio.n_fft), persistent=False)
        self.register_buffer("filters", mel_filters(audio), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        audio = self.audio
        pad = (audio.n_fft - audio.hop_length) // 2
        padded = F.pad(waveform[:, None], (pad, pad), mode="reflect")[:, 0]
        spectrum = torch.stft(
            padded, audio.n_fft, audio.hop_length, window=self.window, center=False, return_complex=True
        )
        magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
        return torch.log(torch.clamp(self.filters @ magnitude, min=LOG_FLOOR))


def mel_filters(audio: Audio) -> Tensor:
    """Slaney-scale, area-normalised filter bank: (M, n_fft // 2 + 1)."""
    bank = torchaudio.functional.melscale_fbanks(
        audio.n_fft // 2 + 1,
        audio.fmin,
        audio.fmax,
        audio.num_mels,
        audio.sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return cast(Tensor, bank.T.contiguous())


def normalize(log_mel: Tensor) -> Tensor:
    """Log-mel to about [-1, 1], what the codec reads."""
    return (log_mel - _CENTRE) / _HALF_RANGE


def to_log_mel(normalized: Tensor) -> Tensor:
    """The inverse of `normalize`."""
    return normalized * _HALF_RANGE + _CENTRE


def denormalize(normalized: Tensor) -> Tensor:
    """Back to log-mel, floored at silence."""
    return torch.clamp(to_log_mel(normalized), min=math.log(LOG_FLOOR))
