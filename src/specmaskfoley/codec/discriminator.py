"""A judge of mels that codecs may learn against (SpecVQGAN, Iashin & Rahtu 2021)."""

from __future__ import annotations

from torch import Tensor, nn

from specmaskfoley.codec.specvqgan.network import group_norm


class Discriminator(nn.Module):
    """PatchGAN over the mel (Isola et al. 2017): (B, 1, M, L) -> (B, 1, m, l) realness of overlapping patches."""

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(1, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        inputs = width
        for index in range(1, layers + 1):
            outputs = width * min(2**index, 8)
            stride = 2 if index < layers else 1
            parts += [
                nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1, bias=False),
                group_norm(outputs),
                nn.LeakyReLU(0.2),
            ]
            inputs = outputs
        parts.append(nn.Conv2d(inputs, 1, 4, padding=1))
        self.net = nn.Sequential(*parts)

    def forward(self, mel: Tensor) -> Tensor:
        return self.net(mel)  # type: ignore[no-any-return]
