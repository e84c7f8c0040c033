"""Frames, sound and text to the features that steer the generator.

Shape letters: B clips, S samples, t sync features, u semantic frames, d feature width, *P shape of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from specmaskfoley.device import autocast, half_dtype
from specmaskfoley.encoders.trained import PROMPT, SEMANTIC, SYNC, Prompt, Semantic, Sync, TextPrompt, load_encoder
from specmaskfoley.media.clips import semantic_view, sync_view
from specmaskfoley.media.sound import Sound
from specmaskfoley.settings import Params


class Prompts:
    """Text, and sound where the encoder hears, to prompt embeddings.

    Args:
        peak: of the sounds; see audio.normalize.
    """

    def __init__(self, encoder: TextPrompt, device: torch.device, peak: float | None) -> None:
        self.prompt_encoder, self.device, self._peak = encoder, device, peak

    @property
    def hears(self) -> bool:
        """Whether a prompt may be a sound."""
        return isinstance(self.prompt_encoder, Prompt)

    @property
    def prompt_sound(self) -> Sound:
        """
        Raises:
            ValueError: the encoder does not hear.
        """
        ears = self._ears()
        return Sound(ears.sample_rate, ears.num_samples, peak=self._peak)

    @torch.inference_mode()
    def audio_prompt(self, waveform: Tensor) -> Tensor:
        """(B, S), heard as `prompt_sound` says, -> (B, *P) float16.

        Raises:
            ValueError: the encoder does not hear.
        """
        return self._ears().embed_audio(waveform.to(self.device)).half()

    @torch.inference_mode()
    def text_prompt(self, texts: Sequence[str]) -> Tensor:
        """B texts -> (B, *P) float16."""
        return self.prompt_encoder.embed_text(texts).half()

    def _ears(self) -> Prompt:
        if not isinstance(self.prompt_encoder, Prompt):
            raise ValueError("the encoder of encoders.prompt.kind embeds texts alone, no sounds")
        return self.prompt_encoder


class Features(Prompts):
    """Frames, sound and text to the features that steer the generator."""

    def __init__(self, params: Params, device: torch.device) -> None:
        half = half_dtype(params.run.precision, device)
        self.sync_encoder: Sync = load_encoder(SYNC, params, device, half)
        self.semantic_encoder: Semantic = load_encoder(SEMANTIC, params, device, half)
        super().__init__(load_encoder(PROMPT, params, device), device, params.audio.normalize)
        self.params = params
        self.sync_view, self.semantic_view = sync_view(params), semantic_view(params)
        self.num_sync = self.sync_encoder.num_features(self.sync_view.frames)

    @torch.inference_mode()
    def video(self, sync_frames: Tensor, semantic_frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 frames -> sync (B, t, d), semantic (B, u, d), as float16: what the shards hold."""
        with autocast(self.params.run.precision, self.device):
            sync = self.sync_encoder(sync_frames.to(self.device))
            semantic = self.semantic_encoder(semantic_frames.to(self.device))
        return sync.half(), semantic.half()
