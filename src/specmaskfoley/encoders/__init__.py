"""Feature encoders by role: sync (Synchformer), semantic (CLIP), prompt (CLAP).

`encoders.<role>.kind` in params.yaml names the implementation; a new one is one file and a line here for each of
building and loading. Every encoder of a role has the same face:

- sync: `forward(uint8 frames (B, t, S, S, 3)) -> (B, t', d)`, `num_features(t) -> t'`
- semantic: `forward(uint8 frames (B, u, S, S, 3)) -> (B, u, d)`, L2-normalised
- prompt: `embed_audio(waveform (B, N)) -> (B, P)` at its `sample_rate` and `num_samples`, `embed_text(texts) -> (n, P)`
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from specmaskfoley.encoders.clap import ClapEncoder
from specmaskfoley.encoders.clip import ClipEncoder
from specmaskfoley.encoders.mini import PromptEncoder, SemanticEncoder, SyncEncoder
from specmaskfoley.encoders.synchformer import SynchformerEncoder
from specmaskfoley.settings import Clap, DFN5BClip, MiniPromptEncoder, MiniVideoEncoder, Params, Synchformer
from specmaskfoley.storage.checkpoint import Described, load_model
from specmaskfoley.weights.loading import load_weights, weights_folder

ROLES = ("sync", "semantic", "prompt")


class Sync(Protocol):
    """The sync role, frozen."""

    def __call__(self, frames: Tensor) -> Tensor: ...
    def num_features(self, num_frames: int) -> int: ...


class Semantic(Protocol):
    """The semantic role, frozen."""

    def __call__(self, frames: Tensor) -> Tensor: ...


class Prompt(Protocol):
    """The prompt role, frozen."""

    sample_rate: int
    num_samples: int

    def embed_audio(self, waveform: Tensor) -> Tensor: ...
    def embed_text(self, texts: Sequence[str]) -> Tensor: ...


def load_encoders(params: Params, device: torch.device) -> tuple[Sync, Semantic, Prompt]:
    """The three encoders with their weights: trained by stage `encoders`, or official."""
    return (
        cast(Sync, _ready(load_sync(params), device)),
        cast(Semantic, _ready(load_semantic(params), device)),
        load_prompt_encoder(params, device),
    )


def load_prompt_encoder(params: Params, device: torch.device) -> Prompt:
    """The prompt encoder alone, as in `load_encoders`."""
    return cast(Prompt, _ready(load_prompt(params), device))


def load_sync(params: Params) -> nn.Module:
    settings = params.encoders.sync
    if isinstance(settings, Synchformer):
        synchformer = SynchformerEncoder()
        synchformer.load_official(*load_weights(settings.weights, params))
        return synchformer
    return _trained("sync", build_sync(settings, params), params)


def load_semantic(params: Params) -> nn.Module:
    settings = params.encoders.semantic
    if isinstance(settings, DFN5BClip):
        clip = ClipEncoder()
        clip.load_official(*load_weights(settings.weights, params))
        return clip
    return _trained("semantic", build_semantic(settings, params), params)


def load_prompt(params: Params) -> nn.Module:
    settings = params.encoders.prompt
    if isinstance(settings, Clap):
        clap = ClapEncoder(weights_folder(settings.tokenizer, params))
        clap.load_official(*load_weights(settings.weights, params))
        return clap
    return _trained("prompt", build_prompt(settings, params), params)


def build_sync(settings: MiniVideoEncoder, params: Params) -> SyncEncoder:
    """A new encoder of the sync role, to train."""
    return SyncEncoder(settings, params.audio)


def build_semantic(settings: MiniVideoEncoder, params: Params) -> SemanticEncoder:
    """A new encoder of the semantic role, to train."""
    return SemanticEncoder(settings)


def build_prompt(settings: MiniPromptEncoder, params: Params) -> PromptEncoder:
    """A new encoder of the prompt role, to train."""
    return PromptEncoder(settings, params.audio)


def encoder_description(params: Params, role: str) -> dict[str, Described]:
    """Everything that a trained encoder's weights fit; kept in its file and compared when it is loaded."""
    return {"settings": getattr(params.encoders, role), "mel": params.audio.mel, "num_mels": params.audio.num_mels}


def encoder_file(params: Params, role: str) -> Path:
    """Where stage `encoders` leaves what it trains."""
    return Path(params.paths.encoders) / f"{role}.safetensors"


def _trained(role: str, encoder: nn.Module, params: Params) -> nn.Module:
    load_model(encoder_file(params, role), encoder, **encoder_description(params, role))
    return encoder


def _ready(encoder: nn.Module, device: torch.device) -> nn.Module:
    return encoder.to(device).eval().requires_grad_(False)
