"""The trained parts put together: what stages load, and what makes sound for a video.

Shape letters: B clips, F token rows, T token columns, N = F * T, M mel bands, L mel frames, S samples,
t sync frames, u semantic frames, P prompt width.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from specmaskfoley.audio.mel import MelSpectrogram, denormalize, normalize
from specmaskfoley.audio.vocoder import build_vocoder
from specmaskfoley.config import GuidanceMode, Params
from specmaskfoley.encoders import build_prompt, build_semantic, build_sync
from specmaskfoley.encoders.mini import PromptEncoder, SemanticEncoder, SyncEncoder
from specmaskfoley.models.backbone import Backbone
from specmaskfoley.models.codec import Codec
from specmaskfoley.models.control import ControlBranch
from specmaskfoley.runtime import autocast
from specmaskfoley.sampling import Condition, needs_video, sample_tokens
from specmaskfoley.storage.checkpoint import load_model


def build_backbone(params: Params) -> Backbone:
    """A new backbone of the sizes in params.yaml."""
    return Backbone(
        params.backbone,
        codebook_size=params.codec.codebook_size,
        num_tokens=params.audio.token_rows * params.audio.token_columns,
        prompt_width=params.encoders.prompt.width,
    )


def build_control(backbone: Backbone, params: Params) -> ControlBranch:
    """A new control branch: a copy of the backbone's first blocks that changes nothing yet."""
    return ControlBranch(
        backbone,
        params.control,
        sync_width=params.encoders.sync.width,
        semantic_width=params.encoders.semantic.width,
        token_rows=params.audio.token_rows,
        token_columns=params.audio.token_columns,
    )


def load_codec(params: Params, device: torch.device) -> Codec:
    codec = Codec(params.codec)
    load_model(params.paths.codec, codec, codec=params.codec)
    return codec.to(device).eval()


def load_backbone(params: Params, device: torch.device) -> Backbone:
    backbone = build_backbone(params)
    load_model(params.paths.backbone, backbone, backbone=params.backbone)
    return backbone.to(device).eval()


def load_control(backbone: Backbone, params: Params, device: torch.device) -> ControlBranch:
    control = build_control(backbone, params)
    load_model(params.paths.control, control, control=params.control)
    return control.to(device).eval()


def load_encoders(params: Params, device: torch.device) -> tuple[SyncEncoder, SemanticEncoder, PromptEncoder]:
    sync, semantic, prompt = build_sync(params), build_semantic(params), build_prompt(params)
    folder = Path(params.paths.encoders)
    load_model(folder / "sync.safetensors", sync, settings=params.encoders.sync)
    load_model(folder / "semantic.safetensors", semantic, settings=params.encoders.semantic)
    load_model(folder / "prompt.safetensors", prompt, settings=params.encoders.prompt)
    return sync.to(device).eval(), semantic.to(device).eval(), prompt.to(device).eval()


class Generator:
    """Features to tokens to sound."""

    def __init__(self, params: Params, device: torch.device) -> None:
        self.params, self.device = params, device
        self.mel = MelSpectrogram(params.audio).to(device)
        self.codec = load_codec(params, device)
        self.backbone = load_backbone(params, device)
        self.control = load_control(self.backbone, params, device)
        self.vocoder = build_vocoder(params.audio, params.vocoder).to(device)

    def tokens(
        self,
        *,
        prompt: Tensor,
        sync: Tensor | None = None,
        semantic: Tensor | None = None,
        seeds: Sequence[int],
        mode: GuidanceMode | None = None,
    ) -> Tensor:
        """Sample: prompt (B, P), sync (B, t, d), semantic (B, u, d) -> (B, F, T). `mode` defaults to cfg.mode."""
        params = self.params
        mode = mode or params.cfg.mode
        with_video = needs_video(mode)
        condition = Condition(
            prompt=prompt.to(self.device),
            sync=sync.to(self.device) if with_video and sync is not None else None,
            semantic=time_mean(semantic).to(self.device) if with_video and semantic is not None else None,
        )
        flat = sample_tokens(
            self.backbone,
            self.control if with_video else None,
            condition,
            mode=mode,
            scale=params.cfg.scale,
            settings=params.sample,
            seeds=seeds,
            precision=params.run.precision,
        )
        return flat.view(len(seeds), params.audio.token_rows, params.audio.token_columns)

    @torch.inference_mode()
    def decode(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> waveform (B, S) on the CPU."""
        log_mel = denormalize(self.codec.decode(tokens.to(self.device))[:, 0])
        return self.vocoder(log_mel).cpu()  # type: ignore[no-any-return]

    @torch.inference_mode()
    def encode(self, waveform: Tensor) -> Tensor:
        """(B, S) -> tokens (B, F, T)."""
        return self.codec.encode(normalize(self.mel(waveform.to(self.device)))[:, None]).tokens


class Features:
    """Frames, sound and text to the features that steer the generator."""

    def __init__(self, params: Params, device: torch.device) -> None:
        self.params, self.device = params, device
        self.mel = MelSpectrogram(params.audio).to(device)
        self.sync_encoder, self.semantic_encoder, self.prompt_encoder = load_encoders(params, device)

    @torch.inference_mode()
    def video(self, sync_frames: Tensor, semantic_frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 frames -> sync (B, t, d), semantic (B, u, d), as float16: what the shards hold."""
        with autocast(self.params.run.precision, self.device):
            sync = self.sync_encoder(sync_frames.to(self.device))
            semantic = self.semantic_encoder(semantic_frames.to(self.device))
        return sync.half(), semantic.half()

    @torch.inference_mode()
    def audio_prompt(self, waveform: Tensor) -> Tensor:
        """(B, S) -> (B, P) float16."""
        return self.prompt_encoder.encode_audio(self.mel(waveform.to(self.device))).half()

    @torch.inference_mode()
    def text_prompt(self, texts: Sequence[str]) -> Tensor:
        """B texts -> (B, P) float16."""
        return self.prompt_encoder.encode_text(texts).half()


def time_mean(semantic: Tensor) -> Tensor:
    """CLIP-role features averaged over all frames (section 3.2): (B, u, d) -> (B, d) float32."""
    return semantic.float().mean(1)


def clip_seed(seed: int, clip_id: str) -> int:
    """The sampling seed of a clip: the same whatever other clips are sampled beside it."""
    return zlib.crc32(f"{seed}/{clip_id}".encode())
