"""Frames, sound and text to the features that steer the generator.

Shape letters: B clips, S samples, t sync frames, u semantic frames, d feature width, P prompt width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from specmaskfoley.audio.mel import MelSpectrogram
from specmaskfoley.config import Params
from specmaskfoley.encoders import load_encoders
from specmaskfoley.runtime import autocast


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
