"""BigVGAN, first version: natural-log mel to waveform (Lee et al. 2023, NVIDIA/BigVGAN).

The weights are `bigvgan_22khz_80band`: HiFi-GAN's mel, 112 M parameters. Own code, because the published package
(bigvgan) wants ten others for its training.

Shape letters: B batch, M mel bands, L mel frames, C channels, T time steps, K taps of a filter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.vocoders.weight_norm import NormedConv1d, NormedConvTranspose1d, load_normed

_KERNELS, _DILATIONS = (3, 7, 11), (1, 3, 5)
_TAPS = 12
_TINY = 1e-9


class BigVGAN(nn.Module):
    """(B, M, L) -> (B, L * product of rates), within [-1, 1]. Module names are upstream's."""

    mel: ClassVar[str] = "hifigan"

    def __init__(
        self,
        num_mels: int = 80,
        channels: int = 1536,
        rates: Sequence[int] = (4, 4, 2, 2, 2, 2),
        kernels: Sequence[int] = (8, 8, 4, 4, 4, 4),
    ) -> None:
        super().__init__()
        widths = [channels // 2**index for index in range(len(rates) + 1)]
        self.conv_pre = NormedConv1d(num_mels, channels, 7, padding=3)
        self.ups = nn.ModuleList(
            nn.ModuleList([NormedConvTranspose1d(inputs, outputs, kernel, rate, padding=(kernel - rate) // 2)])
            for inputs, outputs, kernel, rate in zip(widths[:-1], widths[1:], kernels, rates, strict=True)
        )
        self.resblocks = nn.ModuleList(ResidualBlock(width, kernel) for width in widths[1:] for kernel in _KERNELS)
        self.activation_post = Activation(widths[-1])
        self.conv_post = NormedConv1d(widths[-1], 1, 7, padding=3)

    def load_official(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Load what upstream's files hold under `generator`: with weight norm under either of its names, or folded.

        Raises:
            ValueError: other names or shapes than upstream's; nothing is changed then.
        """
        load_normed(self, tensors, where)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.conv_pre(mel)
        for index, up in enumerate(self.ups):
            x = up[0](x)  # type: ignore[index]
            first = index * len(_KERNELS)
            blocks = self.resblocks[first : first + len(_KERNELS)]
            x = sum(block(x) for block in blocks) / len(_KERNELS)
        return torch.tanh(self.conv_post(self.activation_post(x))).float()[:, 0]


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, an activation before each: (B, C, T) -> (B, C, T)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            NormedConv1d(width, width, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)
            for dilation in _DILATIONS
        )
        self.convs2 = nn.ModuleList(NormedConv1d(width, width, kernel, padding=kernel // 2) for _ in _DILATIONS)
        self.activations = nn.ModuleList(Activation(width) for _ in range(2 * len(_DILATIONS)))

    def forward(self, x: Tensor) -> Tensor:
        for index, (dilated, plain) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            before, between = self.activations[2 * index : 2 * index + 2]
            x = x + plain(between(dilated(before(x))))
        return x


class Activation(nn.Module):
    """SnakeBeta at twice the sampling rate, so that the harmonics it makes do not fold back: (B, C, T) -> (B, C, T)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.upsample = Upsample()
        self.act = SnakeBeta(width)
        self.downsample = Downsample()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.act(self.upsample(x)))  # type: ignore[no-any-return]


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
