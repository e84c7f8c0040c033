"""MelGAN as SpecVQGAN trained it on VGGSound: its mel to waveform (Kumar et al. 2019, descriptinc/melgan-neurips).

The file is `vocoder/logs/vggsound/best_netG.pt` of v-iashin/SpecVQGAN; it reads the mel on its 0..1 scale.

Shape letters: B batch, M mel bands, L mel frames, C channels, T time steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from specmaskfoley.vocoders.weight_norm import NormedConv1d, NormedConvTranspose1d, NormedVocoder

_SLOPE = 0.2


class MelGAN(NormedVocoder):
    """(B, M, L) -> (B, L * product of rates), within [-1, 1]. Module names are upstream's: numbers in a sequence."""

    mel = "specvqgan"

    def __init__(
        self, num_mels: int = 80, channels: int = 512, rates: Sequence[int] = (8, 8, 2, 2), blocks: int = 3
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad1d(3), NormedConv1d(num_mels, channels, 7)]
        width = channels
        for rate in rates:
            layers += [
                nn.LeakyReLU(_SLOPE),
                NormedConvTranspose1d(
                    width, width // 2, 2 * rate, rate, padding=rate // 2 + rate % 2, output_padding=rate % 2
                ),
            ]
            width //= 2
            layers += [ResidualBlock(width, 3**index) for index in range(blocks)]
        layers += [nn.LeakyReLU(_SLOPE), nn.ReflectionPad1d(3), NormedConv1d(width, 1, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, mel: Tensor) -> Tensor:
        return self.sound(self.model[-2], self.model[:-2](mel))  # the last is tanh, under its upstream number


class ResidualBlock(nn.Module):
    """A dilated convolution beside a linear shortcut: (B, C, T) -> (B, C, T)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.LeakyReLU(_SLOPE),
            nn.ReflectionPad1d(dilation),
            NormedConv1d(width, width, 3, dilation=dilation),
            nn.LeakyReLU(_SLOPE),
            NormedConv1d(width, width, 1),
        )
        self.shortcut = NormedConv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.block(x)  # type: ignore[no-any-return]
