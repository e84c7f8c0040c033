"""SpecVQGAN: mel-spectrogram <-> a grid of discrete tokens (Iashin & Rahtu 2021, v-iashin/SpecVQGAN).

Module names are upstream's, so that its public checkpoint loads by name. `stem` is ours: stem x stem mel
pixels are folded into channels first, which is what makes the mini codec affordable on a CPU; 1 is upstream.

Shape letters: B batch, M mel bands, L mel frames, F = M / 16 token rows, T = L / 16 token columns, C code width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.codec.codebooks import nearest_code
from specmaskfoley.codec.role import CodecNetwork
from specmaskfoley.settings import SpecVQGAN as Settings


class SpecVQGAN(CodecNetwork):
    """Normalised mel (B, 1, M, L) <-> tokens (B, F, T)."""

    ignored = ("loss.",)  # upstream's checkpoint also holds the networks of its loss

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings, self.codebook_size = settings, settings.codebook_size
        self.encoder = Encoder(settings)
        self.decoder = Decoder(settings)
        self.quantize = Quantizer(settings.codebook_size, settings.code_width)
        self.quant_conv = nn.Conv2d(settings.code_width, settings.code_width, 1)
        self.post_quant_conv = nn.Conv2d(settings.code_width, settings.code_width, 1)

    def example(self, clips: int, rows: int, columns: int) -> Tensor:
        patch = self.settings.stem * 2 ** (len(self.settings.channel_mults) - 1)
        return torch.zeros(clips, 1, rows * patch, columns * patch)

    @property
    def codebooks(self) -> Sequence[Tensor]:
        return [self.quantize.embedding.weight]

    def assign(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        tokens = self.quantize(latents)
        return tokens, [latents, latents - self.lookup(tokens)]

    def lookup(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> (B, C, F, T)."""
        return self.quantize.lookup(tokens)

    def encode_latents(self, mel: Tensor) -> Tensor:
        """(B, 1, M, L) -> (B, C, F, T), not yet quantised."""
        return self.quant_conv(self.encoder(mel))  # type: ignore[no-any-return]

    def decode_latents(self, codes: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, 1, M, L)."""
        return self.decoder(self.post_quant_conv(codes))  # type: ignore[no-any-return]


class Quantizer(nn.Module):
    """Nearest codebook vector by squared Euclidean distance."""

    def __init__(self, codebook_size: int, code_width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, code_width).requires_grad_(False)  # it follows by averages

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, F, T)."""
        flat = latents.permute(0, 2, 3, 1)
        return nearest_code(flat.flatten(0, 2), self.embedding.weight).view(flat.shape[:-1])

    def lookup(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> (B, C, F, T)."""
        return self.embedding(tokens).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        widths = [settings.channels * mult for mult in settings.channel_mults]
        self.stem = settings.stem
        self.conv_in = nn.Conv2d(settings.stem**2, settings.channels, 3, padding=1)
        self.down = nn.ModuleList()
        inputs = settings.channels
        for index, width in enumerate(widths):
            last = index == len(widths) - 1
            down, attention = None if last else Downsample(width), settings.attention and last
            self.down.append(Level(inputs, width, settings.encoder_blocks, attention, downsample=down))
            inputs = width
        self.mid = Middle(inputs, settings.attention)
        self.norm_out = group_norm(inputs)
        self.conv_out = nn.Conv2d(inputs, settings.code_width, 3, padding=1)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.conv_in(F.pixel_unshuffle(mel, self.stem))
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        widths = [settings.channels * mult for mult in settings.channel_mults]
        inputs = widths[-1]
        self.stem = settings.stem
        self.conv_in = nn.Conv2d(settings.code_width, inputs, 3, padding=1)
        self.mid = Middle(inputs, settings.attention)
        levels = []
        for index in reversed(range(len(widths))):
            width, attention = widths[index], settings.attention and index == len(widths) - 1
            up = None if index == 0 else Upsample(width)
            levels.append(Level(inputs, width, settings.decoder_blocks, attention, upsample=up))
            inputs = width
        self.up = nn.ModuleList(reversed(levels))  # indexed by level, run from the deepest (upstream's order)
        self.norm_out = group_norm(inputs)
        self.conv_out = nn.Conv2d(inputs, settings.stem**2, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.mid(self.conv_in(codes))
        for level in reversed(self.up):
            x = level(x)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.stem)


class Level(nn.Module):
    """Residual blocks of one resolution, then a change of resolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        blocks: int,
        attention: bool,
        downsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks))
        self.attn = nn.ModuleList(Attention(outputs) if attention else nn.Identity() for _ in range(blocks))
        self.downsample, self.upsample = downsample or nn.Identity(), upsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block, attention in zip(self.block, self.attn, strict=True):
            x = attention(block(x))
        return self.upsample(self.downsample(x))  # type: ignore[no-any-return]


class Middle(nn.Module):
    def __init__(self, width: int, attention: bool) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(width, width)
        self.attn_1 = Attention(width) if attention else nn.Identity()
        self.block_2 = ResidualBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = group_norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = group_norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x) + h  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Single-head attention over all positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(mixed)  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Stride-2 convolution; pads right and bottom only (upstream)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # type: ignore[no-any-return]


class Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))  # type: ignore[no-any-return]


def group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, width), width, eps=1e-6)
