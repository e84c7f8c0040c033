"""Synchformer: video and audio features in short segments, and by how much the two are apart.

Iashin, Xie, Rahtu & Zisserman 2024 (v-iashin/Synchformer), the AudioSet model that MMAudio conditions on and that
av-benchmark measures DeSync with. The visual part is Motionformer's divided space-time ViT-B (Patrick et al. 2021),
the audio part an Audio Spectrogram Transformer (Gong et al. 2021). Parameter names are those of the public file.

For inference: upstream's dropout is left out.

Shape letters: B clips, t video frames, N audio samples, S segments, n segments of one batch, T = 8 time steps,
P = 196 patches of a frame, L tokens, D = 768 width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from specmaskfoley.encoders.offsets import offset_grid
from specmaskfoley.weights.official import OfficialNetwork

WIDTH, HEADS, HIDDEN = 768, 12, 3072
FPS, FRAME_SIZE = 25.0, 224
SEGMENT_FRAMES, SEGMENT_HOP = 16, 8
TUBELET_FRAMES, PATCH = 2, 16
TIME_STEPS = SEGMENT_FRAMES // TUBELET_FRAMES
PATCHES = (FRAME_SIZE // PATCH) ** 2

SAMPLE_RATE = 16_000
SEGMENT_SAMPLES, SEGMENT_HOP_SAMPLES = 10_240, 5_120
MEL_BANDS, MEL_FRAMES = 128, 66
AUDIO_ROWS, AUDIO_COLUMNS = 12, 6
_MEL_MEAN, _MEL_STD = -4.2677393, 4.5689974

COMPARED_SEGMENTS = 14
MAX_OFFSET_S, OFFSET_CLASSES = 2.0, 21

_VISUAL_CHUNK = 8
"""Segments at a time: some 0.5 GiB of activations in float32, and enough rows to fill a GPU."""
_AUDIO_CHUNK = 64


class Synchformer(OfficialNetwork):
    """The whole model: features of both kinds, and the classifier of the offset between them."""

    def __init__(self) -> None:
        super().__init__()
        self.vfeat_extractor = VisualExtractor()
        self.afeat_extractor = AudioExtractor()
        self.vproj = nn.Linear(WIDTH, WIDTH)
        self.aproj = nn.Linear(WIDTH, WIDTH)
        self.transformer = OffsetTransformer()

    def encode_video(self, frames: Tensor) -> Tensor:
        """Frames at 25 fps in [-1, 1], float (B, t, 3, 224, 224), to (B, S, 8, D); S = (t - 16) // 8 + 1.

        `feature_times` gives the time of each vector.

        Raises:
            ValueError: frames not float, of another shape, or fewer than 16.
        """
        if not frames.is_floating_point():
            raise ValueError(f"frames are {frames.dtype}: expected floats in [-1, 1]; see scale_frames")
        _check_frames(frames, (3, FRAME_SIZE, FRAME_SIZE))
        return self.vfeat_extractor.encode(frames)

    def audio_mel(self, waveform: Tensor) -> Tensor:
        """(B, N) at 16 kHz to normalised log-mels (B, S, 128, 66); S = (N - 10240) // 5120 + 1. Always in float32.

        Raises:
            ValueError: not (B, N), or fewer than 10240 samples.
        """
        if waveform.ndim != 2 or waveform.shape[1] < SEGMENT_SAMPLES:
            raise ValueError(
                f"waveform {tuple(waveform.shape)}: expected (clips, samples) of at least {SEGMENT_SAMPLES} samples "
                f"({SEGMENT_SAMPLES / SAMPLE_RATE} s at {SAMPLE_RATE} Hz); pad shorter clips with silence"
            )
        return log_mel(waveform.unfold(1, SEGMENT_SAMPLES, SEGMENT_HOP_SAMPLES))

    def encode_audio(self, waveform: Tensor) -> Tensor:
        """(B, N) at 16 kHz to (B, S, 6, D).

        Raises:
            ValueError: as `audio_mel`.
        """
        mel = self.audio_mel(waveform)
        parts = [self.afeat_extractor(part) for part in torch.split(mel.flatten(0, 1), _AUDIO_CHUNK)]
        return torch.cat(parts).view(*mel.shape[:2], AUDIO_COLUMNS, WIDTH)

    def compare(self, video: Tensor, audio: Tensor) -> Tensor:
        """Features (B, 14, 8, D) and (B, 14, 6, D) to logits (B, 21) of the offsets in `offset_grid`.

        av-benchmark compares the first and the last 14 segments of a clip.

        Raises:
            ValueError: another number of segments; the classifier has learned positions for exactly 14.
        """
        if len(video) != len(audio):
            raise ValueError(f"features of {len(video)} videos and {len(audio)} sounds: expected as many clips of both")
        for name, features, steps in (("video", video, TIME_STEPS), ("audio", audio, AUDIO_COLUMNS)):
            if features.shape[1:] != (COMPARED_SEGMENTS, steps, WIDTH):
                raise ValueError(
                    f"{name} features {tuple(features.shape)}: expected (clips, {COMPARED_SEGMENTS}, {steps}, "
                    f"{WIDTH}); cut a window of {COMPARED_SEGMENTS} segments out of both"
                )
        return self.transformer(  # type: ignore[no-any-return]
            self.vproj(video.flatten(1, 2)), self.aproj(audio.flatten(1, 2))
        )

    @staticmethod
    def offset_grid() -> npt.NDArray[np.float64]:
        """(21,) seconds: the offsets that the classes of `compare` stand for, -2 to 2."""
        return offset_grid(MAX_OFFSET_S, OFFSET_CLASSES)


class SynchformerEncoder(OfficialNetwork):
    """The sync encoder of the pipeline: Synchformer's visual extractor alone; uint8 (B, t, 224, 224, 3) -> (B, S*8, D).

    Its vectors are not in the order of time: see `feature_times`.
    """

    ignored = ("afeat_extractor.", "vproj.", "aproj.", "transformer.")
    width = WIDTH
    frame_size = FRAME_SIZE
    fps = FPS

    def __init__(self) -> None:
        super().__init__()
        self.vfeat_extractor = VisualExtractor()

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 RGB at 25 fps (B, t, 224, 224, 3) to (B, S*8, D).

        Raises:
            ValueError: not uint8, of another shape, or fewer than 16 frames.
        """
        if frames.dtype != torch.uint8:
            raise ValueError(
                f"frames are {frames.dtype}: expected uint8 in 0..255; Synchformer.encode_video takes floats"
            )
        _check_frames(frames, (FRAME_SIZE, FRAME_SIZE, 3))
        return self.vfeat_extractor.encode(frames, scale_frames).flatten(1, 2)

    @staticmethod
    def num_features(num_frames: int) -> int:
        """Vectors that a clip of so many frames gives: 250 -> 240."""
        return num_segments(num_frames) * TIME_STEPS


def num_segments(num_frames: int) -> int:
    """Segments of 16 frames, one every 8: 250 -> 30.

    Raises:
        ValueError: fewer than 16 frames.
    """
    if num_frames < SEGMENT_FRAMES:
        raise ValueError(
            f"{num_frames} video frames: Synchformer needs at least {SEGMENT_FRAMES} "
            f"({SEGMENT_FRAMES / FPS} s at {FPS:g} fps); leave shorter clips out"
        )
    return (num_frames - SEGMENT_FRAMES) // SEGMENT_HOP + 1


def feature_times(num_frames: int) -> Tensor:
    """The time in seconds that each visual feature vector describes: float64 (S*8,).

    Vector 8*s + j is made of frames 8*s + 2*j and the next (seen with the other 14 of its segment); its time is the
    end of the first of the two, their centre: (8*s + 2*j + 1) / 25. Neighbouring segments overlap by half, so time
    jumps back by 0.24 s at every border of segments, and most times occur twice: 250 frames give 240 vectors at
    124 times, 0.04 to 9.88 s.
    """
    segment = torch.arange(num_segments(num_frames), dtype=torch.float64)[:, None]
    step = torch.arange(TIME_STEPS, dtype=torch.float64)
    return ((SEGMENT_HOP * segment + TUBELET_FRAMES * step + TUBELET_FRAMES / 2) / FPS).flatten()


def scale_frames(frames: Tensor) -> Tensor:
    """uint8 (..., h, w, 3) -> float32 (..., 3, h, w) in [-1, 1]; h, w: height and width."""
    return (frames.movedim(-1, -3).float() / 255.0 - 0.5) / 0.5


def log_mel(segments: Tensor) -> Tensor:
    """Segments at 16 kHz (..., 10240) to normalised log-mels (..., 128, 66), in float32 also under autocast."""
    with torch.autocast(segments.device.type, enabled=False):
        wave = segments.flatten(0, -2).float()
        window = torch.hann_window(400, device=wave.device)
        spectrum = torch.stft(wave, 1024, 160, win_length=400, window=window, return_complex=True)
        filters = torchaudio.functional.melscale_fbanks(513, 0.0, SAMPLE_RATE / 2, MEL_BANDS, SAMPLE_RATE)
        power = spectrum.real.square() + spectrum.imag.square()
        mel = torch.log(filters.T.to(wave.device) @ power + 1e-6)
        # Padded after the logarithm: upstream's 66th frame is 0 there, far louder than silence.
        mel = F.pad(mel, (0, MEL_FRAMES - mel.shape[-1]))
        return ((mel - _MEL_MEAN) / (2 * _MEL_STD)).view(*segments.shape[:-1], MEL_BANDS, MEL_FRAMES)


class VisualExtractor(nn.Module):
    """Segments (n, 16, 3, 224, 224) in [-1, 1] -> (n, T, D), one vector for every two frames."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + PATCHES, WIDTH))
        self.temp_embed = nn.Parameter(torch.zeros(1, TIME_STEPS, WIDTH))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, WIDTH, PATCH, PATCH)})  # in the file, never used
        self.patch_embed_3d = TubeletEmbedding()
        self.blocks = nn.ModuleList(SpaceTimeBlock() for _ in range(12))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.spatial_attn_agg = Aggregator()

    def encode(self, frames: Tensor, prepare: Callable[[Tensor], Tensor] = lambda segments: segments) -> Tensor:
        """Clips (B, t, ...) -> (B, S, T, D), a few segments at a time.

        Args:
            prepare: makes of segments (n, 16, ...) of the clips what `forward` takes.
        """
        # Views: neighbouring segments share half of their frames, and no clip is ever copied whole.
        clips = [clip.unfold(0, SEGMENT_FRAMES, SEGMENT_HOP).movedim(-1, 1) for clip in frames]
        return torch.stack(
            [torch.cat([self(prepare(part)) for part in torch.split(segments, _VISUAL_CHUNK)]) for segments in clips]
        )

    def forward(self, segments: Tensor) -> Tensor:
        patches = self.patch_embed_3d(segments).unflatten(1, (TIME_STEPS, PATCHES))
        patches = patches + (self.pos_embed[:, None, 1:] + self.temp_embed[:, :, None])
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(segments), -1, -1)
        x = torch.cat([cls, patches.flatten(1, 2)], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x[:, 1:])
        return self.spatial_attn_agg(x.reshape(-1, PATCHES, WIDTH)).view(len(segments), TIME_STEPS, WIDTH)  # type: ignore[no-any-return]


class TubeletEmbedding(nn.Module):
    """Blocks of 2 x 16 x 16 pixels to tokens, time slowest: (n, 16, 3, 224, 224) -> (n, T*P, D)."""

    def __init__(self) -> None:
        super().__init__()
        size = (TUBELET_FRAMES, PATCH, PATCH)
        self.proj = nn.Conv3d(3, WIDTH, size, size)

    def forward(self, segments: Tensor) -> Tensor:
        side = FRAME_SIZE // PATCH
        pixels = segments.reshape(-1, TIME_STEPS, TUBELET_FRAMES, 3, side, PATCH, side, PATCH)
        pixels = pixels.permute(0, 1, 4, 6, 3, 2, 5, 7).reshape(len(segments), TIME_STEPS * PATCHES, -1)
        return F.linear(pixels, self.proj.weight.flatten(1), self.proj.bias)


class SpaceTimeBlock(nn.Module):
    """Attention over time, attention over space, MLP, each pre-norm and residual: (n, 1 + T*P, D) -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.attn = DividedAttention(WIDTH, HEADS)
        self.timeattn = DividedAttention(WIDTH, HEADS)
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, HIDDEN), "fc2": nn.Linear(HIDDEN, WIDTH)})
        self.norm3 = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.timeattn(self.norm3(x), TIME_STEPS, across_time=True)
        x = x + self.attn(self.norm1(x), TIME_STEPS, across_time=False)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))  # type: ignore[no-any-return]


class DividedAttention(nn.Module):
    """Multi-head attention within a position or within a frame (Bertasius et al. 2021, "divided space-time")."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, time_steps: int, *, across_time: bool) -> Tensor:
        """(n, 1 + T*P, D) -> the same; CLS comes first, then the patches, time slowest.

        CLS attends to everything. A patch attends to CLS and to the patches of its position at all times
        (`across_time`), or to CLS and to the patches of its own frame.
        """
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).unbind(2)
        cls = attend(q[:, :1], k, v).flatten(2)

        def grouped(tokens: Tensor) -> Tensor:
            """(n, T*P, ...) -> (n, groups, members, ...)."""
            grid = torch.unflatten(tokens, 1, (time_steps, -1))
            return grid.transpose(1, 2) if across_time else grid

        def with_cls(tokens: Tensor) -> Tensor:
            groups = grouped(tokens[:, 1:])
            first = tokens[:, None, :1].expand(-1, groups.shape[1], -1, -1, -1)
            return torch.cat([first, groups], dim=2).flatten(0, 1)

        queries = grouped(q[:, 1:])
        mixed = attend(queries.flatten(0, 1), with_cls(k), with_cls(v)).reshape(*queries.shape[:3], -1)
        patches = (mixed.transpose(1, 2) if across_time else mixed).flatten(1, 2)
        return self.proj(torch.cat([cls, patches], dim=1))  # type: ignore[no-any-return]


class Aggregator(nn.Module):
    """A pre-norm transformer layer over [CLS, tokens] that computes CLS alone: (n, L, D) -> (n, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.self_attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.linear1 = nn.Linear(WIDTH, HIDDEN)
        self.linear2 = nn.Linear(HIDDEN, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        cls = self.cls_token.to(tokens.dtype).expand(len(tokens), -1, -1)
        h = self.norm1(torch.cat([cls, tokens], dim=1))
        # Queries of CLS alone: the outputs of the other tokens would not be used.
        sizes = [WIDTH, 2 * WIDTH]
        (q_weight, kv_weight), (q_bias, kv_bias) = (
            torch.split(both, sizes) for both in (self.self_attn.in_proj_weight, self.self_attn.in_proj_bias)
        )
        # Contiguous: the CPU's bfloat16 product of a strided slice took 0.9 s for two segments.
        q = F.linear(h[:, :1].contiguous(), q_weight, q_bias).view(len(h), 1, HEADS, -1)
        k, v = F.linear(h, kv_weight, kv_bias).view(*h.shape[:2], 2, HEADS, -1).unbind(2)
        x = cls + self.self_attn.out_proj(attend(q, k, v).flatten(2))
        x = x + self.linear2(F.gelu(self.linear1(self.norm2(x))))
        return x[:, 0]  # type: ignore[no-any-return]


class AudioExtractor(nn.Module):
    """Normalised log-mels (n, 128, 66) -> (n, 6, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.ast = SpectrogramTransformer()
        self.freq_attn_agg = Aggregator()

    def forward(self, mel: Tensor) -> Tensor:
        grid = self.ast(mel).unflatten(1, (AUDIO_ROWS, AUDIO_COLUMNS)).transpose(1, 2)
        return self.freq_attn_agg(grid.flatten(0, 1)).view(len(mel), AUDIO_COLUMNS, WIDTH)  # type: ignore[no-any-return]


class SpectrogramTransformer(nn.Module):
    """AST with the names of Hugging Face's ASTModel: (n, 128, 66) -> (n, 72, D), frequency slowest."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = SpectrogramEmbedding()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(SpectrogramBlock() for _ in range(12))})
        self.layernorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.embeddings(mel)
        for layer in self.encoder["layer"]:  # type: ignore[attr-defined]
            x = layer(x)
        return self.layernorm(x[:, SpectrogramEmbedding.special :])  # type: ignore[no-any-return]


class SpectrogramEmbedding(nn.Module):
    """Overlapping patches behind two special tokens: (n, 128, 66) -> (n, 2 + 72, D)."""

    special = 2

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position_embeddings = nn.Parameter(torch.zeros(1, self.special + AUDIO_ROWS * AUDIO_COLUMNS, WIDTH))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(1, WIDTH, PATCH, stride=10)})

    def forward(self, mel: Tensor) -> Tensor:
        patches = self.patch_embeddings["projection"](mel[:, None]).flatten(2).transpose(1, 2)
        special = torch.cat([self.cls_token, self.distillation_token], dim=1).expand(len(mel), -1, -1)
        return torch.cat([special, patches], dim=1) + self.position_embeddings


class SpectrogramBlock(nn.Module):
    """Pre-norm transformer layer: (n, L, D) -> the same."""

    def __init__(self) -> None:
        super().__init__()
        qkv = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"attention": qkv, "output": _dense(WIDTH, WIDTH)})
        self.intermediate = _dense(WIDTH, HIDDEN)
        self.output = _dense(HIDDEN, WIDTH)
        self.layernorm_before = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layernorm_after = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layernorm_before(x)
        qkv = self.attention["attention"]
        q, k, v = (qkv[name](h).unflatten(2, (HEADS, -1)) for name in ("query", "key", "value"))  # type: ignore[index]
        x = x + self.attention["output"]["dense"](attend(q, k, v).flatten(2))  # type: ignore[index]
        h = F.gelu(self.intermediate["dense"](self.layernorm_after(x)))
        return x + self.output["dense"](h)  # type: ignore[no-any-return]


class OffsetTransformer(nn.Module):
    """[OFF, 112 video tokens, MOD, 84 audio tokens] -> logits; video (B, 112, D), audio (B, 84, D) -> (B, 21)."""

    def __init__(self) -> None:
        super().__init__()
        self.OFF_tok = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.MOD_tok = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.vis_in_lnorm = nn.LayerNorm(WIDTH)
        self.aud_in_lnorm = nn.LayerNorm(WIDTH)
        positions = 2 + COMPARED_SEGMENTS * (TIME_STEPS + AUDIO_COLUMNS)
        self.pos_emb_cfg = nn.ParameterDict({"pos_emb": nn.Parameter(torch.zeros(1, positions, WIDTH))})
        self.blocks = nn.ModuleList(OffsetBlock() for _ in range(3))
        self.ln_f = nn.LayerNorm(WIDTH)
        self.off_head = nn.Linear(WIDTH, OFFSET_CLASSES)

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        off, mod = (token.expand(len(video), -1, -1) for token in (self.OFF_tok, self.MOD_tok))
        x = torch.cat([off, self.vis_in_lnorm(video), mod, self.aud_in_lnorm(audio)], dim=1)
        x = x + self.pos_emb_cfg["pos_emb"]
        for block in self.blocks:
            x = block(x)
        return self.off_head(self.ln_f(x[:, 0]))  # type: ignore[no-any-return]


class OffsetBlock(nn.Module):
    """Pre-norm transformer layer with 8 heads: (B, L, D) -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(WIDTH)
        self.ln2 = nn.LayerNorm(WIDTH)
        self.attn = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in ("key", "query", "value", "proj")})
        self.mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        h = self.ln1(x)
        q, k, v = (self.attn[name](h).unflatten(2, (8, -1)) for name in ("query", "key", "value"))
        x = x + self.attn["proj"](attend(q, k, v).flatten(2))
        return x + self.mlp(self.ln2(x))  # type: ignore[no-any-return]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of (n, L, heads, width) with (n, K, heads, width), scaled by width ** -0.5."""
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def _check_frames(frames: Tensor, picture: tuple[int, int, int]) -> None:
    if frames.ndim != 5 or tuple(frames.shape[2:]) != picture:
        raise ValueError(
            f"frames {tuple(frames.shape)}: expected (clips, time, {', '.join(map(str, picture))}); "
            f"resize the short side to {FRAME_SIZE} and crop the centre"
        )
    num_segments(frames.shape[1])


def _dense(inputs: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, outputs)})
