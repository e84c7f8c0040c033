"""Small encoders that the pipeline trains itself, in the roles of Synchformer, CLIP and CLAP.

Shape letters: B batch, t video frames, S frame side, M mel bands, L mel frames, D feature width.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.media.mel import MelSpectrogram
from specmaskfoley.settings import Audio, MiniPromptEncoder, MiniVideoEncoder
from specmaskfoley.settings.encoders import SEGMENT

_TEXT_BUCKETS = 4096


class FrameTower(nn.Module):
    """One vector a frame: patches of 8 x 8 every 4 pixels, then stride-2 convolutions; (B, t, C, S, S) -> (B, t, D)."""

    def __init__(self, inputs: int, channels: Sequence[int], width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, outputs in enumerate(channels):
            kernel, stride = (8, 4) if index == 0 else (3, 2)
            layers += conv_block(inputs, outputs, kernel, stride)
            inputs = outputs
        # A 3 x 3 grid instead of one mean: the place of a motion separates contact with the floor from flight.
        self.convs = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())
        self.out = nn.Linear(inputs * 9, width)

    def forward(self, frames: Tensor) -> Tensor:
        b, t = frames.shape[:2]
        return self.out(self.convs(frames.flatten(0, 1))).view(b, t, -1)  # type: ignore[no-any-return]


class TemporalBlock(nn.Module):
    """Residual dilated convolution over time: (B, t, D) -> (B, t, D)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.out(F.gelu(h))  # type: ignore[no-any-return]


class MelTower(nn.Module):
    """Convolutions over a log-mel: (B, M, L) -> (B, L / 2, D)."""

    def __init__(self, num_mels: int, width: int, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv1d(num_mels, width, 5, stride=2, padding=2)
        self.blocks = nn.Sequential(*(TemporalBlock(width, 2**i) for i in range(blocks)))

    def forward(self, log_mel: Tensor) -> Tensor:
        x = self.stem(scale_mel(log_mel)).transpose(1, 2)
        return self.blocks(F.gelu(x))  # type: ignore[no-any-return]


class TextTower(nn.Module):
    """Bag of hashed character trigrams: any text has an embedding, related words share most of theirs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(_TEXT_BUCKETS, width, mode="mean")
        self.out = nn.Linear(width, width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """n texts -> (n, D)."""
        ids = [trigrams(text) for text in texts]
        offsets = torch.tensor([0, *[len(i) for i in ids[:-1]]]).cumsum(0)
        flat = torch.tensor([item for text in ids for item in text])
        device = self.out.weight.device
        return self.out(self.bag(flat.to(device), offsets.to(device)))  # type: ignore[no-any-return]


class SyncEncoder(nn.Module):
    """Synchformer's role: vectors of when something makes a sound; (B, t, S, S, 3) -> (B, num_features(t), D)."""

    def __init__(self, settings: MiniVideoEncoder, audio: Audio) -> None:
        super().__init__()
        self.settings, self.width = settings, settings.width
        self.frames = FrameTower(4, settings.channels, settings.width)
        self.time = nn.Sequential(*(TemporalBlock(settings.width, 2**i) for i in range(3)))
        self.norm = nn.LayerNorm(settings.width)
        self.audio = MelTower(audio.num_mels, settings.width)  # the other half of the contrast, used in training only
        self.audio_norm = nn.LayerNorm(settings.width)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def num_features(self, num_frames: int) -> int:
        """Vectors that a video of so many frames becomes."""
        return len(self.settings.times_s(num_frames, 1.0))

    def forward(self, frames: Tensor) -> Tensor:
        x = self.of_frames(frames)
        if self.settings.segments:
            pairs = x[:, : x.shape[1] // 2 * 2].reshape(len(x), -1, 2, x.shape[2]).mean(2)
            x = pairs.unfold(1, SEGMENT // 2, SEGMENT // 4).mT.flatten(1, 2)
        return x

    def of_frames(self, frames: Tensor) -> Tensor:
        """One vector a frame: (B, t, D)."""
        x = scale_frames(frames)
        # Time is in the motion: each frame comes with its difference from the one before.
        grey = x.mean(2, keepdim=True)
        motion = torch.cat([torch.zeros_like(grey[:, :1]), grey[:, 1:] - grey[:, :-1]], dim=1)
        return self.norm(self.time(self.frames(torch.cat([x, 4.0 * motion], dim=2))))  # type: ignore[no-any-return]

    def encode_audio(self, log_mel: Tensor, num_frames: int) -> Tensor:
        """(B, M, L) -> (B, num_frames, D), pooled to the frame rate of the video."""
        x = self.audio(log_mel).transpose(1, 2)
        return self.audio_norm(F.adaptive_avg_pool1d(x, num_frames).transpose(1, 2))  # type: ignore[no-any-return]


class SemanticEncoder(nn.Module):
    """CLIP's role: L2-normalised frame vectors of what is visible; (B, t, S, S, 3) -> (B, t, D)."""

    def __init__(self, settings: MiniVideoEncoder, audio: Audio | None = None) -> None:
        """
        Args:
            audio: not used; the mini encoders of all roles are built by the same call.
        """
        super().__init__()
        self.width = settings.width
        self.frames = FrameTower(3, settings.channels, settings.width)
        self.text = TextTower(settings.width)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def forward(self, frames: Tensor) -> Tensor:
        return F.normalize(self.frames(scale_frames(frames)), dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return F.normalize(self.text(texts), dim=-1)


class PromptEncoder(nn.Module):
    """CLAP's role: sounds and texts in one L2-normalised space."""

    def __init__(self, settings: MiniPromptEncoder, audio: Audio) -> None:
        super().__init__()
        self.width, self.sample_rate, self.num_samples = settings.width, audio.sample_rate, audio.num_samples
        self.mel = MelSpectrogram(audio)
        self.audio = MelTower(audio.num_mels, settings.width, settings.blocks)
        self.out = nn.Linear(2 * settings.width, settings.width)
        self.text = TextTower(settings.width)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def embed_audio(self, waveform: Tensor) -> Tensor:
        """(B, num_samples) at `sample_rate` -> (B, D)."""
        return self.encode_audio(self.mel(waveform))

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """n texts -> (n, D)."""
        return self.encode_text(texts)

    def encode_audio(self, log_mel: Tensor) -> Tensor:
        """(B, M, L) -> (B, D); mean and maximum over time, so that rare loud events count."""
        x = self.audio(log_mel)
        return F.normalize(self.out(torch.cat([x.mean(1), x.amax(1)], dim=-1)), dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """n texts -> (n, D)."""
        return F.normalize(self.text(texts), dim=-1)


def conv_block(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU: (n, inputs, h, w) -> (n, outputs, h', w')."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def scale_frames(frames: Tensor) -> Tensor:
    """uint8 (B, t, S, S, 3) -> float (B, t, 3, S, S) in [-1, 1]."""
    return frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0


def scale_mel(log_mel: Tensor) -> Tensor:
    """Log-mel (silence -11.5, loud 1) to about [-1, 1]."""
    return (log_mel + 5.0) / 6.0


def trigrams(text: str) -> list[int]:
    """Hash buckets of a text's character trigrams, word by word; never empty."""
    words = text.lower().split() or [""]
    pieces = [f" {word} "[i : i + 3] for word in words for i in range(max(1, len(word)))]
    return [zlib.crc32(piece.encode()) % _TEXT_BUCKETS for piece in pieces]
