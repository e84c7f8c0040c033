"""Waveform to mel-spectrogram: HiFi-GAN's recipe (jik876/hifi-gan) and SpecVQGAN's (v-iashin/SpecVQGAN).

A recipe says what the numbers of a mel mean; codecs and vocoders are trained for one, and cannot read the other.

Shape letters: B batch, N samples, M mel bands, L mel frames.
"""

from __future__ import annotations

import math
from pkgutil import resolve_name
from typing import ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from specmaskfoley.settings import Audio

LOG_FLOOR = 1e-5
"""Amplitude below which the mel is cut; its natural logarithm, -11.51, is digital silence."""

_BATCH = 32

_CENTRE, _HALF_RANGE = -4.75, 6.75
"""[-11.5, 2] (silence to full-scale) maps to [-1, 1]; SpecMaskGIT normalises so, its constants are unpublished."""


class Mel(nn.Module):
    """A recipe: (B, N) -> (B, M, L) with L = N // hop_length, frames counted from the start of the wave.

    Always float32, also under autocast: a logarithm of rounded magnitudes is no mel.
    """

    name: ClassVar[str]
    """What `audio.mel` and a vocoder's `mel` call it."""
    silence: ClassVar[float]
    """The mel of digital silence; no value is lower."""
    _centre: ClassVar[float]
    _half_range: ClassVar[float]

    window: Tensor
    filters: Tensor

    def __init__(self, audio: Audio) -> None:
        super().__init__()
        self.audio = audio
        self.register_buffer("window", torch.hann_window(audio.n_fft), persistent=False)
        self.register_buffer("filters", mel_filters(audio), persistent=False)

    @property
    def first_centre(self) -> int:
        """The sample on which frame 0 is centred; frame i lies i hops later."""
        raise NotImplementedError

    def forward(self, waveform: Tensor) -> Tensor:
        with torch.autocast(waveform.device.type, enabled=False):
            return self._forward(waveform.float())

    def amplitude(self, mel: Tensor) -> Tensor:
        """Magnitudes per band, `filters @ |STFT|`, both (B, M, L)."""
        raise NotImplementedError

    def normalize(self, mel: Tensor) -> Tensor:
        """To about [-1, 1], what the codec reads."""
        return (mel - self._centre) / self._half_range

    def to_mel(self, normalized: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return normalized * self._half_range + self._centre

    def denormalize(self, normalized: Tensor) -> Tensor:
        """Back to a mel, floored at silence."""
        return torch.clamp(self.to_mel(normalized), min=self.silence)

    def _forward(self, waveform: Tensor) -> Tensor:
        raise NotImplementedError

    def _stft(self, waveform: Tensor, *, centred: bool) -> Tensor:
        """(B, N) -> complex (B, n_fft // 2 + 1, frames); centred with reflection at both ends, if at all."""
        audio = self.audio
        return torch.stft(
            waveform,
            audio.n_fft,
            audio.hop_length,
            window=self.window,
            center=centred,
            pad_mode="reflect",
            return_complex=True,
        )


class MelSpectrogram(Mel):
    """HiFi-GAN's: the natural logarithm of magnitudes, floored at 1e-5; also what BigVGAN reads.

    Not centred: the wave is padded by (n_fft - hop)/2 on both sides, so frame i is centred on
    sample (i + 1/2) * hop and whole hops give whole frames.
    """

    name = "hifigan"
    silence = math.log(LOG_FLOOR)
    _centre, _half_range = _CENTRE, _HALF_RANGE

    @property
    def first_centre(self) -> int:
        return self.audio.hop_length // 2

    def amplitude(self, mel: Tensor) -> Tensor:
        return mel.exp()

    def _forward(self, waveform: Tensor) -> Tensor:
        pad = (self.audio.n_fft - self.audio.hop_length) // 2
        padded = F.pad(waveform[:, None], (pad, pad), mode="reflect")[:, 0]
        spectrum = self._stft(padded, centred=False)
        magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
        return torch.log(torch.clamp(self.filters @ magnitude, min=LOG_FLOOR))


class SpecVQGANMel(Mel):
    """SpecVQGAN's: decibels on a scale of 0 (magnitude 1e-4 and less) to 1 (10 and more).

    Centred: frame i lies on sample i * hop. Upstream keeps 860 of the 862 frames of its 220,500 samples and crops
    them in the middle; here, too, the frames that exceed whole hops go, but the first is always at 0 s.
    """

    name = "specvqgan"
    silence = 0.0
    _centre, _half_range = 0.5, 0.5

    @property
    def first_centre(self) -> int:
        return 0

    def amplitude(self, mel: Tensor) -> Tensor:
        # At 0 the magnitude is 1e-4 at most; taken literally, silence would come back as a buzz at -63 dB.
        return torch.where(mel > self.silence, 10 ** (5 * mel - 4), 0.0)

    def _forward(self, waveform: Tensor) -> Tensor:
        frames = waveform.shape[-1] // self.audio.hop_length
        magnitude = self._stft(waveform, centred=True)[..., :frames].abs()
        decibels = 20 * torch.log10(torch.clamp(self.filters @ magnitude, min=1e-5))
        return torch.clamp((decibels + 80) / 100, 0, 1)


MELS = {"hifigan": "specmaskfoley.media.mel:MelSpectrogram", "specvqgan": "specmaskfoley.media.mel:SpecVQGANMel"}
"""audio.mel -> the recipe."""


def build_mel(audio: Audio) -> Mel:
    """The recipe that `audio.mel` names."""
    return resolve_name(MELS[audio.mel])(audio)  # type: ignore[no-any-return]


def decibels(recipe: Mel, mel: Tensor) -> Tensor:
    """Levels of the magnitudes per band, both (B, M, L); 0 dB is a tone at full scale, which is normalised to 1."""
    full = recipe.amplitude(recipe.to_mel(torch.ones((), device=mel.device)))
    return 20 * torch.log10(torch.clamp(recipe.amplitude(mel) / full, min=1e-6))


@torch.inference_mode()
def batched_mel(mel: nn.Module, waveform: np.ndarray | Tensor) -> Tensor:
    """(n, samples) -> (n, M, L) on the CPU, a few clips at a time; a copy that autograd may use."""
    return torch.cat([mel(part) for part in torch.split(torch.as_tensor(waveform), _BATCH)]).clone()


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


def to_log_mel(normalized: Tensor) -> Tensor:
    """The inverse of HiFi-GAN's `normalize`."""
    return normalized * _HALF_RANGE + _CENTRE
