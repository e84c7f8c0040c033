"""Networks that judge sound: the roles of PaSST, VGGish, ImageBind and Synchformer's offset head.

They share no weights, seeds or architecture with the generator's own encoders, so that a model cannot be graded
by the features it was steered with.

Shape letters: B batch, t video frames, S frame side, M mel bands, L mel frames, D width, C classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.encoders.mini import conv_block, scale_frames, scale_mel


class MelNet(nn.Module):
    """2-D convolutions over the log-mel as a picture: (B, M, L) -> (B, D) and a map (B, D, L / 8)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv_block(1, 16, 5, 2), conv_block(16, 32, 3, 2), conv_block(32, width, 3, 2))

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.convs(scale_mel(log_mel)[:, None])  # type: ignore[no-any-return]


class Tagger(nn.Module):
    """PaSST's role: class logits (KL) and an embedding (FD) of a clip; (B, M, L) -> (B, C), (B, 2 D)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.net = MelNet(width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        x = self.net(log_mel).mean(2)
        embedding = torch.cat([x.mean(-1), x.amax(-1)], dim=-1)
        return self.head(embedding), embedding

    def classify(self, log_mel: Tensor) -> Tensor:
        return self.forward(log_mel)[0]


class AudioEmbedder(nn.Module):
    """VGGish's role (FAD): an embedding of each stretch of about a second; (B, M, L) -> (B, D)."""

    def __init__(self, num_mels: int, width: int, classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(num_mels, 2 * width, 7, stride=2, padding=3),
            nn.ELU(),
            nn.Conv1d(2 * width, 2 * width, 5, stride=2, padding=2),
            nn.ELU(),
            nn.Conv1d(2 * width, width, 5, stride=2, padding=2),
            nn.ELU(),
        )
        # Normalised, so that FAD is of the order of the published ones whatever the network's scale.
        self.embedding = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.head = nn.Linear(width, classes)

    def forward(self, log_mel: Tensor) -> Tensor:
        x = self.net(scale_mel(log_mel))
        return self.embedding(torch.logsumexp(x, dim=-1))  # type: ignore[no-any-return]

    def classify(self, log_mel: Tensor) -> Tensor:
        """(B, M, L) -> (B, C), the task it is trained on."""
        return self.head(F.elu(self.forward(log_mel)))  # type: ignore[no-any-return]


class AudioVideoEmbedder(nn.Module):
    """ImageBind's role (IB score): pictures and sounds in one L2-normalised space."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.picture = nn.Sequential(conv_block(3, 24, 7, 4), conv_block(24, 48, 3, 2), conv_block(48, width, 3, 2))
        self.picture_out = nn.Linear(2 * width, width)
        self.sound = MelNet(width)
        self.sound_out = nn.Linear(2 * width, width)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def encode_video(self, frames: Tensor) -> Tensor:
        """(B, t, S, S, 3) uint8 -> (B, D)."""
        x = self.picture(scale_frames(frames).flatten(0, 1))
        x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=-1).view(*frames.shape[:2], -1).mean(1)
        return F.normalize(self.picture_out(x), dim=-1)

    def encode_audio(self, log_mel: Tensor) -> Tensor:
        """(B, M, L) -> (B, D)."""
        x = self.sound(log_mel)
        return F.normalize(self.sound_out(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=-1)), dim=-1)


class OffsetClassifier(nn.Module):
    """Synchformer's role (DeSync): by how much the sound is late against the picture, in classes of an offset grid.

    Picture and sound vectors are compared at every lag of the grid; a lag's score is the mean of its diagonal.
    """

    def __init__(self, num_mels: int, width: int, lags: tuple[int, ...]) -> None:
        """
        Args:
            lags: the grid in video frames, e.g. (-50, -45, ..., 50) for +-2 s at 25 fps.
        """
        super().__init__()
        self.lags = lags
        self.video = nn.Sequential(
            nn.Conv3d(1, 16, (3, 8, 8), stride=(1, 4, 4), padding=(1, 2, 2), bias=False),
            nn.BatchNorm3d(16),
            nn.ReLU(),
            nn.Conv3d(16, 32, (3, 3, 3), stride=(1, 2, 2), padding=1, bias=False),
            nn.BatchNorm3d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d((None, 3, 3)),
        )
        self.video_out = nn.Sequential(nn.Conv1d(32 * 9, width, 1), nn.ReLU(), nn.Conv1d(width, width, 5, padding=2))
        self.sound = MelNet(width)
        self.sound_out = nn.Sequential(
            nn.Conv1d(width * math.ceil(num_mels / 8), width, 1), nn.ReLU(), nn.Conv1d(width, width, 3, padding=1)
        )
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.zeros(len(lags)))

    def encode_video(self, frames: Tensor) -> Tensor:
        """(B, t, S, S, 3) uint8 -> (B, t, D), zero mean over time."""
        grey = scale_frames(frames).mean(2, keepdim=True)  # timing is in the motion, not in the colours
        x = self.video(grey.transpose(1, 2))
        x = self.video_out(x.permute(0, 1, 3, 4, 2).flatten(1, 3)).transpose(1, 2)
        return x - x.mean(1, keepdim=True)  # type: ignore[no-any-return]

    def encode_audio(self, log_mel: Tensor, num_frames: int) -> Tensor:
        """(B, M, L) -> (B, num_frames, D) at the video's frame rate, zero mean over time."""
        x = self.sound_out(self.sound(log_mel).flatten(1, 2))
        x = F.interpolate(x, num_frames, mode="linear", align_corners=False).transpose(1, 2)
        return x - x.mean(1, keepdim=True)

    def compare(self, video: Tensor, audio: Tensor) -> Tensor:
        """(B, t, D), (B, t, D) -> logits (B, lags)."""
        similarity = video @ audio.transpose(1, 2) / video.shape[-1] ** 0.5
        # Sound that is late by `lag` answers frame i at i + lag.
        scores = [similarity.diagonal(lag, 1, 2).mean(-1) for lag in self.lags]
        return self.scale.exp() * torch.stack(scores, dim=-1) + self.bias
