"""EnCodec: samples <-> columns of discrete tokens, by residual vector quantisation (Défossez et al. 2022).

As AudioCraft trains it for audio: not causal, padded with zeros, the input's loudness left alone. Module names are
AudioCraft's, so that its public file loads by name.

Shape letters: B batch, S samples, T columns, C code width, F codebooks, K codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.codec.codebooks import nearest_code
from specmaskfoley.codec.role import CodecNetwork
from specmaskfoley.device import autocast
from specmaskfoley.settings import Encodec
from specmaskfoley.vocoders.weight_norm import NormedConv1d, NormedConvTranspose1d


class EncodecNetwork(CodecNetwork):
    """Samples (B, S), or a normalised mel (B, 1, M, L) with its bands as channels <-> tokens (B, F, T)."""

    def __init__(self, settings: Encodec) -> None:
        super().__init__()
        self.settings, self.codebook_size = settings, settings.codebook_size
        self.step = math.prod(settings.strides)
        self.encoder = Encoder(settings)
        self.decoder = Decoder(settings)
        self.quantizer = Quantizer(settings)
        self.apply(_start)

    @property
    def codebooks(self) -> Sequence[Tensor]:
        return [codebook.embed for codebook in self.quantizer.codebooks]

    def example(self, clips: int, rows: int, columns: int) -> Tensor:
        shape = (columns * self.step,) if self.settings.inputs == 1 else (1, self.settings.inputs, columns * self.step)
        return torch.zeros(clips, *shape)

    def encode_latents(self, x: Tensor) -> Tensor:
        """(B, S), or (B, 1, M, L) -> (B, C, T); where S is no multiple of the step, zeros fill the last column."""
        return self.encoder(x[:, None] if x.dim() == 2 else x[:, 0])  # type: ignore[no-any-return]

    def assign(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens with the coarsest codebook first."""
        return self.quantizer(latents)  # type: ignore[no-any-return]

    def lookup(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> (B, C, T), the sum of their codes."""
        return self.quantizer.lookup(tokens)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """(B, C, T) -> (B, S), or (B, 1, M, L); nothing keeps samples within [-1, 1]."""
        decoded: Tensor = self.decoder(latents)
        return decoded[:, 0] if self.settings.inputs == 1 else decoded[:, None]


class Quantizer(nn.Module):
    """Codebooks one after the other, each for what those before it leave: by squared Euclidean distance."""

    def __init__(self, settings: Encodec) -> None:
        super().__init__()
        self.codebooks = [Codebook(settings.codebook_size, settings.code_width) for _ in range(settings.codebooks)]
        layers = nn.ModuleList(nn.ModuleDict({"_codebook": codebook}) for codebook in self.codebooks)
        self.vq = nn.ModuleDict({"layers": layers})

    def forward(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, T) -> tokens (B, F, T), and what is left before each codebook and after the last, (B, C, T) each."""
        tokens, left = [], [latents]
        for codebook in self.codebooks:
            nearest = nearest_code(left[-1].transpose(1, 2).flatten(0, 1), codebook.embed)
            tokens.append(nearest.view(len(latents), -1))
            left.append(left[-1] - codebook.lookup(tokens[-1]))
        return torch.stack(tokens, 1), left

    def lookup(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> (B, C, T)."""
        parts = zip(self.codebooks, tokens.unbind(1), strict=True)
        return torch.stack([codebook.lookup(part) for codebook, part in parts]).sum(0)


class Codebook(nn.Module):
    """Codes `embed`; of the other buffers, which serve training alone, two are the moving averages behind them."""

    inited: Tensor
    cluster_size: Tensor
    embed: Tensor
    embed_avg: Tensor

    def __init__(self, codebook_size: int, code_width: int) -> None:
        super().__init__()
        codes = torch.randn(codebook_size, code_width)
        self.register_buffer("inited", torch.ones(1))
        self.register_buffer("cluster_size", torch.ones(codebook_size))
        self.register_buffer("embed", codes)
        self.register_buffer("embed_avg", codes.clone())

    def lookup(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, C, T)."""
        return F.embedding(tokens, self.embed).transpose(1, 2)


class Encoder(nn.Module):
    """(B, 1, S) -> (B, C, T)."""

    def __init__(self, settings: Encodec) -> None:
        super().__init__()
        width = settings.channels
        parts: list[nn.Module] = [Conv(settings.inputs, width, 7)]
        for stride in settings.strides:
            parts += [ResidualBlock(width), nn.ELU(), Conv(width, 2 * width, 2 * stride, stride)]
            width *= 2
        parts += [*_recurrent(width, settings), nn.ELU(), Conv(width, settings.code_width, 7)]
        self.model = nn.Sequential(*parts)

    def forward(self, wave: Tensor) -> Tensor:
        return self.model(wave)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """(B, C, T) -> (B, 1, S)."""

    def __init__(self, settings: Encodec) -> None:
        super().__init__()
        width = settings.channels * 2 ** len(settings.strides)
        parts: list[nn.Module] = [Conv(settings.code_width, width, 7), *_recurrent(width, settings)]
        for stride in reversed(settings.strides):
            parts += [nn.ELU(), UpConv(width, width // 2, stride), ResidualBlock(width // 2)]
            width //= 2
        parts += [nn.ELU(), Conv(width, settings.inputs, 7)]
        self.model = nn.Sequential(*parts)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.model[:-1](latents)
        with autocast("float32", x.device):  # samples in half precision would hiss
            return self.model[-1](x.float())  # type: ignore[no-any-return]


def _start(module: nn.Module) -> None:
    """Gains by which a new network passes sound on about as loud as it came in; torch's would end in silence."""
    if isinstance(module, NormedConv1d | NormedConvTranspose1d):
        gain = 1.0
        if isinstance(module, NormedConvTranspose1d):  # whose norms are those of an input, not of an output
            gain = math.sqrt(module.stride[0] * module.out_channels / module.in_channels)
        nn.init.constant_(module.get_parameter("weight_g"), gain)


def _recurrent(width: int, settings: Encodec) -> list[nn.Module]:
    return [Recurrent(width, settings.lstm_layers)] if settings.lstm_layers else []


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.ELU(), Conv(width, width // 2, 3), nn.ELU(), Conv(width // 2, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """LSTM over the columns, added to its input."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.lstm(x.transpose(1, 2))[0].transpose(1, 2)  # type: ignore[no-any-return]


class Conv(nn.Module):
    """(B, I, L) -> (B, O, ceil(L / stride)), padded with zeros; of an odd number the left side gets one more."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        both, self.more = divmod(kernel - stride, 2)
        self.stride = stride
        self.conv = nn.ModuleDict({"conv": NormedConv1d(inputs, outputs, kernel, stride, both)})

    def forward(self, x: Tensor) -> Tensor:
        last = -x.shape[-1] % self.stride  # to fill the last window
        if self.more or last:
            x = F.pad(x, (self.more, last))
        return self.conv["conv"](x)  # type: ignore[no-any-return]


class UpConv(nn.Module):
    """(B, I, L) -> (B, O, L * stride); what a kernel of two strides makes beyond is cut, as `Conv` pads."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        both, self.more = divmod(stride, 2)
        self.convtr = nn.ModuleDict({"convtr": NormedConvTranspose1d(inputs, outputs, 2 * stride, stride, both)})

    def forward(self, x: Tensor) -> Tensor:
        return self.convtr["convtr"](x)[..., self.more :]  # type: ignore[no-any-return]
