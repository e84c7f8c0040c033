"""ImageBind-Huge, its vision and audio towers: the embeddings behind the IB score (Girdhar et al. 2023).

Module names are those of the public imagebind_huge.pth; the other towers of that file are passed over. Clips are cut
from video and sound as the benchmark of the paper does it.

Shape letters: B batch, N samples, t frames at 0.5 fps, c clips, n clips of a whole batch, p patches, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from specmaskfoley.weights.official import OfficialNetwork

SIDE = 224
"""Side of the square pictures, in pixels."""

WIDTH = 1024
"""Width of the joint space."""

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_BANDS, _FRAMES = 128, 204
_MEL_MEAN, _MEL_STD = -4.268, 9.138
_AUDIO_CLIPS, _CLIP_S = 3, 2
_AUDIO_SCALE = 20.0
_CLIPS_AT_ONCE = 16
_SCALE_NAME = "modality_postprocessors.audio.1.log_logit_scale"
_OTHER_TOWERS = tuple(
    f"modality_{part}.{modality}."
    for part in ("preprocessors", "trunks", "heads", "postprocessors")
    for modality in ("text", "depth", "thermal", "imu")
)


class Tower(NamedTuple):
    """Size of a transformer."""

    width: int
    depth: int
    heads: int


HUGE_VISION, HUGE_AUDIO = Tower(1280, 32, 16), Tower(768, 12, 12)


class ImageBind(OfficialNetwork):
    """Video and sound in one space: `encode_video`, `encode_audio`."""

    ignored, optional = _OTHER_TOWERS, (_SCALE_NAME,)
    sample_rate = 16000
    video_fps = 0.5

    def __init__(self, vision: Tower = HUGE_VISION, audio: Tower = HUGE_AUDIO) -> None:
        """The defaults are the public model."""
        super().__init__()
        self.modality_preprocessors = nn.ModuleDict(
            {
                # The names count upstream's padding of single pictures, which clips of two frames do not need.
                "vision": Tokens(
                    nn.Sequential(
                        nn.Identity(), nn.Conv3d(3, vision.width, (2, 14, 14), stride=(2, 14, 14), bias=False)
                    ),
                    vision.width,
                    patches=(SIDE // 14) ** 2,
                ),
                "audio": Tokens(
                    nn.Conv2d(1, audio.width, 16, stride=10, bias=False),
                    audio.width,
                    patches=_patches(_BANDS) * _patches(_FRAMES),
                    norm=nn.LayerNorm(audio.width),
                ),
            }
        )
        self.modality_trunks = nn.ModuleDict(
            {
                "vision": Trunk(vision, first=nn.LayerNorm(vision.width, eps=1e-6)),
                "audio": Trunk(audio, bias_tokens=True),
            }
        )
        self.modality_heads = nn.ModuleDict({"vision": _head(vision.width), "audio": _head(audio.width)})
        self.modality_postprocessors = nn.ModuleDict({"audio": nn.Sequential(nn.Identity(), Scale())})

    def load_official(self, tensors: Mapping[str, Tensor], where: str) -> None:
        super().load_official(tensors, where)
        if _SCALE_NAME not in tensors:
            self.get_buffer(_SCALE_NAME).fill_(math.log(_AUDIO_SCALE))

    def encode_audio(self, waveform: Tensor) -> Tensor:
        """The mean over three 2 s clips of 20 times the unit vector of each.

        Args:
            waveform: (B, N) at 16 kHz, the whole sound.

        Returns:
            (B, 1024) float32.

        Raises:
            ValueError: the waveform is too short, see `log_mel_clips`.
        """
        return self._embed("audio", log_mel_clips(waveform, self.sample_rate))

    def encode_video(self, frames: Tensor) -> Tensor:
        """The mean over all pairs of neighbouring frames, and over the crops, of the unit vector of each.

        Args:
            frames: (B, 3, t, 3, 224, 224), three crops of t >= 2 frames at 0.5 fps, float in 0..1.

        Returns:
            (B, 1024) float32.

        Raises:
            ValueError: the frames are of another shape, or too few.
        """
        if frames.ndim != 6 or frames.shape[3:] != (3, SIDE, SIDE):
            raise ValueError(f"frames {tuple(frames.shape)}: expected (B, crops, t, 3, {SIDE}, {SIDE})")
        if frames.shape[2] < 2:
            raise ValueError(
                f"frames {tuple(frames.shape)}: ImageBind reads pairs, so that a video must give 2 frames at "
                f"{self.video_fps} fps (4 s) or more"
            )
        mean, std = (frames.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
        pairs = ((frames - mean) / std).unfold(2, 2, 1)
        return self._embed("vision", pairs.permute(0, 2, 1, 3, 6, 4, 5).flatten(1, 2))

    def _embed(self, modality: str, clips: Tensor) -> Tensor:
        """(B, c, ...) -> (B, 1024); a few clips at a time, so that what the tower needs does not grow with B."""
        parts = torch.split(clips.flatten(0, 1), _CLIPS_AT_ONCE)
        vectors = torch.cat([self._embed_clips(modality, part) for part in parts])
        return vectors.view(*clips.shape[:2], -1).mean(1)

    def _embed_clips(self, modality: str, clips: Tensor) -> Tensor:
        """(n, ...) -> (n, 1024)."""
        x = self.modality_trunks[modality](self.modality_preprocessors[modality](clips))
        x = F.normalize(self.modality_heads[modality](x[:, 0]).float(), dim=-1)
        return self.modality_postprocessors[modality](x) if modality in self.modality_postprocessors else x


class Tokens(nn.Module):
    """Patches behind a class token, with positions: (n, channels, ...) -> (n, 1 + p, D)."""

    def __init__(self, proj: nn.Module, width: int, patches: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.rgbt_stem = Stem(proj, norm)
        self.pos_embedding_helper = Positions(1 + patches, width)

    def forward(self, clips: Tensor) -> Tensor:
        x = self.rgbt_stem(clips)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return x + self.pos_embedding_helper.pos_embed


class Stem(nn.Module):
    """(n, channels, ...) -> (n, p, D); of pictures and spectrograms alike, rows before columns."""

    def __init__(self, proj: nn.Module, norm: nn.Module | None) -> None:
        super().__init__()
        self.proj = proj
        self.norm_layer = norm if norm is not None else nn.Identity()

    def forward(self, clips: Tensor) -> Tensor:
        return self.norm_layer(self.proj(clips).flatten(2).transpose(1, 2))  # type: ignore[no-any-return]


class Positions(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, width).normal_(std=0.02))


class Trunk(nn.Module):
    """(n, 1 + p, D) -> (n, 1 + p, D)."""

    def __init__(self, size: Tower, first: nn.Module | None = None, bias_tokens: bool = False) -> None:
        """
        Args:
            bias_tokens: every attention also sees one learned key and value.
        """
        super().__init__()
        self.pre_transformer_layer = nn.Sequential(first if first is not None else nn.Identity())
        self.blocks = nn.ModuleList(Block(size, bias_tokens) for _ in range(size.depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre_transformer_layer(x)
        for block in self.blocks:
            x = block(x)
        return x


class Block(nn.Module):
    def __init__(self, size: Tower, bias_tokens: bool) -> None:
        super().__init__()
        self.attn = Attention(size, bias_tokens)
        self.norm_1 = nn.LayerNorm(size.width, eps=1e-6)
        self.mlp = MLP(size.width)
        self.norm_2 = nn.LayerNorm(size.width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """nn.MultiheadAttention, names and all, without its detour over sequence-first tensors, which is slow on a CPU."""

    def __init__(self, size: Tower, bias_tokens: bool) -> None:
        super().__init__()
        self.heads = size.heads
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * size.width, size.width)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * size.width))
        self.out_proj = nn.Linear(size.width, size.width)
        self.bias_tokens = bias_tokens
        if bias_tokens:
            self.bias_k = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, 1, size.width)))
            self.bias_v = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, 1, size.width)))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        if self.bias_tokens:
            key, value = (
                torch.cat([projected, bias.to(projected.dtype).expand(len(x), -1, -1)], dim=1)
                for projected, bias in ((key, self.bias_k), (value, self.bias_v))
            )
        query, key, value = (part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(mixed.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]


class MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Scale(nn.Module):
    """Times exp(log_logit_scale), at most 100; fixed, yet in the file."""

    log_logit_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_logit_scale", torch.tensor(math.log(_AUDIO_SCALE)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.log_logit_scale.exp().clamp(max=100.0)


def _head(width: int) -> nn.Sequential:
    """Upstream picks the class token between the layers, hence the gap in the names; picked before, it is cheaper."""
    return nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Identity(), nn.Linear(width, WIDTH, bias=False))


def _patches(length: int) -> int:
    return (length - 16) // 10 + 1


def clip_starts(num_samples: int, sample_rate: int) -> list[int]:
    """First samples of the three 2 s clips of a sound, spread so that the last one ends with it.

    Releases of pytorchvideo up to 0.1.5 put them at thirds of what is left instead (0, 2.67 and 5.33 s of 10 s).
    """
    spare = max(num_samples - _CLIP_S * sample_rate, 0)
    return [spare * index // (_AUDIO_CLIPS - 1) for index in range(_AUDIO_CLIPS)]


def log_mel_clips(waveform: Tensor, sample_rate: int) -> Tensor:
    """Normalised Kaldi filter banks of the three clips, each less its mean.

    Args:
        waveform: (B, N).

    Returns:
        (B, 3, 1, 128, 204) float32; a clip of 2 s fills 198 frames, the others stand for zeros.

    Raises:
        ValueError: the waveform is shorter than one analysis window of 25 ms.
    """
    shortest = sample_rate // 40
    if waveform.shape[-1] < shortest:
        raise ValueError(f"waveform has {waveform.shape[-1]} samples: ImageBind needs at least {shortest} (25 ms)")
    starts = clip_starts(waveform.shape[-1], sample_rate)
    with torch.autocast(waveform.device.type, enabled=False):
        clips = torch.stack([waveform[:, start : start + _CLIP_S * sample_rate] for start in starts], dim=1).float()
        clips = clips - clips.mean(-1, keepdim=True)
        mels = torch.stack([_filter_bank(clip, sample_rate) for clip in clips.flatten(0, 1)])
        mels = F.pad(mels.transpose(1, 2), (0, _FRAMES - mels.shape[1]))
        return ((mels - _MEL_MEAN) / _MEL_STD).view(-1, _AUDIO_CLIPS, 1, _BANDS, _FRAMES)


def _filter_bank(clip: Tensor, sample_rate: int) -> Tensor:
    """(samples,) -> (frames, 128)."""
    return torchaudio.compliance.kaldi.fbank(  # type: ignore[no-any-return]
        clip[None],
        num_mel_bins=_BANDS,
        sample_frequency=sample_rate,
        window_type="hanning",
        htk_compat=True,
        dither=0.0,
    )
