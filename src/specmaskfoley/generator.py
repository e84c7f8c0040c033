"""Features to tokens to sound: the trained parts put together.

Shape letters: B clips, F token rows, T token columns, S samples, t sync frames, u semantic frames, d feature
width, P prompt width.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from specmaskfoley.audio.mel import build_mel
from specmaskfoley.config import GuidanceMode, Params
from specmaskfoley.networks import load_backbone, load_codec, load_control, load_vocoder
from specmaskfoley.sampling import Condition, needs_video, sample_tokens

_PEAK = 0.98


class Generator:
    """Features to tokens to sound."""

    def __init__(self, params: Params, device: torch.device) -> None:
        self.params, self.device = params, device
        self.mel = build_mel(params.audio).to(device)
        self.codec = load_codec(params, device)
        self.backbone = load_backbone(params, device)
        self.control = load_control(self.backbone, params, device)
        self.vocoder = load_vocoder(params, device)

    def tokens(
        self,
        *,
        prompt: Tensor,
        sync: Tensor | None = None,
        semantic: Tensor | None = None,
        seeds: Sequence[int],
        mode: GuidanceMode | None = None,
        known: tuple[Tensor, Tensor] | None = None,
        steps: int | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Sample the tokens of a batch of clips.

        Args:
            prompt: (B, P); sync: (B, t, d); semantic: (B, u, d).
            seeds: one a clip.
            known: tokens (B, F, T) and a bool mask (B, F, T) of those to keep as they are.
            mode, steps, scale: in place of cfg.mode, sample.steps, cfg.scale.

        Returns:
            (B, F, T) int64.
        """
        params = self.params
        mode = mode or params.cfg.mode
        with_video = needs_video(mode)
        condition = Condition(
            prompt=prompt.to(self.device),
            sync=sync.to(self.device) if with_video and sync is not None else None,
            semantic=semantic.float().mean(1).to(self.device) if with_video and semantic is not None else None,
        )
        flat = sample_tokens(
            self.backbone,
            self.control if with_video else None,
            condition,
            mode=mode,
            scale=params.cfg.scale if scale is None else scale,
            settings=params.sample if steps is None else params.sample.model_copy(update={"steps": steps}),
            seeds=seeds,
            precision=params.run.precision,
            known=None if known is None else (_flat(known[0], self.device), _flat(known[1], self.device)),
        )
        return flat.view(len(seeds), params.audio.token_rows, params.audio.token_columns)

    @torch.inference_mode()
    def decode(self, tokens: Tensor) -> Tensor:
        """(B, F, T) -> waveform (B, S) on the CPU."""
        mel = self.mel.denormalize(self.codec.decode(tokens.to(self.device))[:, 0])
        waveform = self.vocoder(mel).cpu()
        # Phase reconstruction overshoots now and then; turning the clip down beats clipping it.
        return waveform / (waveform.abs().amax(1, keepdim=True) / _PEAK).clamp(min=1.0)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def encode(self, waveform: Tensor) -> Tensor:
        """(B, S) -> tokens (B, F, T)."""
        return self.codec.encode(self.mel.normalize(self.mel(waveform.to(self.device)))[:, None]).tokens


def _flat(grid: Tensor, device: torch.device) -> Tensor:
    """(B, F, T) -> (B, F * T)"""
    return grid.to(device).flatten(1)


def clip_seed(seed: int, clip_id: str) -> int:
    """The sampling seed of a clip: the same whatever other clips are sampled beside it."""
    return zlib.crc32(f"{seed}/{clip_id}".encode())
