"""BigVGAN, first version: natural-log mel to waveform (Lee et al. 2023, NVIDIA/BigVGAN).

The weights are `bigvgan_22khz_80band`: HiFi-GAN's mel, 112 M parameters. Own code, because the published package
(bigvgan) requires ten others for its training.

Shape letters: B batch, M mel bands, L mel frames, C channels, T time steps, K taps of a filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.vocoders.hifigan import DILATIONS, HiFiGAN, ResidualBlock

_TAPS = 12
_TINY = 1e-9


class BigVGAN(HiFiGAN):
    """HiFi-GAN's stack with periodic activations in its blocks and before the last convolution, none elsewhere."""

    def __init__(
        self,
        num_mels: int = 80,
        channels: int = 1536,
        rates: Sequence[int] = (4, 4, 2, 2, 2, 2),
        kernels: Sequence[int] = (8, 8, 4, 4, 4, 4),
    ) -> None:
        super().__init__(num_mels, channels, rates, kernels, block=PeriodicBlock)
        self.ups = nn.ModuleList(nn.Sequential(up) for up in self.ups)  # upstream's names have one level more
        self.activation_post = Activation(channels // 2 ** len(rates))

    def forward(self, mel: Tensor) -> Tensor:
        x = self.conv_pre(mel)
        for index, up in enumerate(self.ups):
            x = self.mean_of_blocks(index, up(x))
        return self.sound(self.conv_post, self.activation_post(x))


class PeriodicBlock(ResidualBlock):
    """HiFi-GAN's block with an activation of its own before each convolution: (B, C, T) -> (B, C, T)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__(width, kernel)
        self.activations = nn.ModuleList(Activation(width) for _ in range(2 * len(DILATIONS)))

    def forward(self, x: Tensor) -> Tensor:
        for index, (dilated, plain) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            before, between = self.activations[2 * index : 2 * index + 2]
            x = x + plain(between(dilated(before(x))))
        return x


class Activation(nn.Module):
    """SnakeBeta at twice the sampling rate, so that the harmonics it makes do not fold back: (B, C, T) -> (B, C, T).

    Always in float32: its filters, a channel each, gain nothing from half precision.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.upsample = Upsample()
        self.act = SnakeBeta(width)
        self.downsample = Downsample()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.downsample(self.act(self.upsample(x.float())))  # type: ignore[no-any-return]


class SnakeBeta(nn.Module):
    """x + sin(alpha x)^2 / beta; the parameters, one per channel, are logarithms (upstream's `snake_logscale`)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + torch.sin(alpha * x).square() / (beta + _TINY)


class Upsample(nn.Module):
    """Twice the rate: (B, C, T) -> (B, C, 2 T). The ends are continued with their last value."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", halfband_filter())

    def forward(self, x: Tensor) -> Tensor:
        width, reach = x.shape[1], _TAPS // 2 - 1
        x = F.pad(x, (reach, reach), mode="replicate")
        x = 2 * F.conv_transpose1d(x, self.filter.expand(width, -1, -1), stride=2, groups=width)
        cut = 2 * reach + _TAPS // 2 - 1
        return x[..., cut:-cut]


class Downsample(nn.Module):
    """Half the rate: (B, C, 2 T) -> (B, C, T). The ends are continued with their last value."""

    def __init__(self) -> None:
        super().__init__()
        self.lowpass = nn.Module()
        self.lowpass.register_buffer("filter", halfband_filter())

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[1]
        x = F.pad(x, (_TAPS // 2 - 1, _TAPS // 2), mode="replicate")
        return F.conv1d(x, self.lowpass.filter.expand(width, -1, -1), stride=2, groups=width)  # type: ignore[operator]


def halfband_filter() -> Tensor:
    """(1, 1, K): a sinc that cuts at a quarter of the (doubled) rate under a Kaiser window, with a sum of 1."""
    # Kaiser's formulas: the attenuation in dB (51) that 11 taps reach with a transition band of 0.6 of the band, and
    # the window for it; StyleGAN3 takes them from the taps without the last.
    attenuation = 2.285 * (_TAPS - 2) * math.pi * 0.6 + 7.95
    beta = 0.1102 * (attenuation - 8.7)
    time = torch.arange(_TAPS) - (_TAPS - 1) / 2
    taps = torch.kaiser_window(_TAPS, periodic=False, beta=beta) * torch.sinc(time / 2)
    return (taps / taps.sum()).view(1, 1, -1)
