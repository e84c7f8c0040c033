"""HiFi-GAN V1: natural-log mel to waveform (Kong et al. 2020, jik876/hifi-gan).

Own code although transformers has the network (SpeechT5HifiGan): it would take an import of several seconds, an
optional package and a renaming of all tensors for what are two short modules here.

Shape letters: B batch, M mel bands, L mel frames, C channels, T time steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.vocoders.weight_norm import NormedConv1d, NormedConvTranspose1d, NormedVocoder

KERNELS, DILATIONS = (3, 7, 11), (1, 3, 5)
_SLOPE = 0.1


class HiFiGAN(NormedVocoder):
    """(B, M, L) -> (B, L * product of rates), within [-1, 1]. Module names are upstream's."""

    mel = "hifigan"

    def __init__(
        self,
        num_mels: int = 80,
        channels: int = 512,
        rates: Sequence[int] = (8, 8, 2, 2),
        kernels: Sequence[int] = (16, 16, 4, 4),
        block: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        """
        Args:
            block: makes a residual block from its width and kernel; HiFi-GAN's own by default.
        """
        super().__init__()
        widths = [channels // 2**index for index in range(len(rates) + 1)]
        self.conv_pre = NormedConv1d(num_mels, channels, 7, padding=3)
        self.ups = nn.ModuleList(
            NormedConvTranspose1d(inputs, outputs, kernel, rate, padding=(kernel - rate) // 2)
            for inputs, outputs, kernel, rate in zip(widths[:-1], widths[1:], kernels, rates, strict=True)
        )
        block = block or ResidualBlock
        self.resblocks = nn.ModuleList(block(width, kernel) for width in widths[1:] for kernel in KERNELS)
        self.conv_post = NormedConv1d(widths[-1], 1, 7, padding=3)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.conv_pre(mel)
        for index, up in enumerate(self.ups):
            x = self.mean_of_blocks(index, up(F.leaky_relu(x, _SLOPE)))
        # The last slope is torch's default, 0.01, upstream and so in all its weights.
        return self.sound(self.conv_post, F.leaky_relu(x))

    def mean_of_blocks(self, index: int, x: Tensor) -> Tensor:
        """What the residual blocks behind upsampling `index` make of its output, (B, C, T) -> (B, C, T)."""
        first = index * len(KERNELS)
        blocks = self.resblocks[first : first + len(KERNELS)]
        return sum(block(x) for block in blocks) / len(KERNELS)  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution: (B, C, T) -> (B, C, T)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            NormedConv1d(width, width, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)
            for dilation in DILATIONS
        )
        self.convs2 = nn.ModuleList(NormedConv1d(width, width, kernel, padding=kernel // 2) for _ in DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, _SLOPE)), _SLOPE))
        return x
