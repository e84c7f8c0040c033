"""The encoders by role, and those that params.yaml names, with their weights.

`encoders.<role>.kind` names the implementation; a new one is one file and one line in a table here. Mini encoders are
built from their settings and trained by stage `encoders`; the official ones have one size and published weights.

Shape letters: B clips, t video frames, u semantic frames, S frame side, N samples, d feature width, *P shape of a
prompt, n texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from specmaskfoley.device import round_weights
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import Described, load_model
from specmaskfoley.weights.loading import load_weights, weights_folder


class Sync(Protocol):
    """When something happens: uint8 frames (B, t, S, S, 3) -> (B, num_features(t), d)."""

    def __call__(self, frames: Tensor) -> Tensor: ...
    def num_features(self, num_frames: int) -> int: ...


class Semantic(Protocol):
    """What is seen: uint8 frames (B, u, S, S, 3) -> (B, u, d), L2-normalised."""

    def __call__(self, frames: Tensor) -> Tensor: ...


class TextPrompt(Protocol):
    """What is to be heard, in words: n texts -> (n, *P)."""

    def embed_text(self, texts: Sequence[str]) -> Tensor: ...


@runtime_checkable
class Prompt(TextPrompt, Protocol):
    """Sounds and texts in one space: waveform (B, num_samples) at `sample_rate` -> (B, *P), too."""

    sample_rate: int
    num_samples: int

    def embed_audio(self, waveform: Tensor) -> Tensor: ...


class Role(NamedTuple):
    """name: of its settings and its file; kinds: kind -> the class, of which only the one in use is imported."""

    name: str
    kinds: dict[str, str]


SYNC = Role(
    "sync",
    {
        "mini": "specmaskfoley.encoders.mini:SyncEncoder",
        "synchformer": "specmaskfoley.encoders.synchformer:SynchformerEncoder",
    },
)
SEMANTIC = Role(
    "semantic",
    {"mini": "specmaskfoley.encoders.mini:SemanticEncoder", "dfn5b_clip": "specmaskfoley.encoders.clip:ClipEncoder"},
)
PROMPT = Role(
    "prompt",
    {
        "mini": "specmaskfoley.encoders.mini:PromptEncoder",
        "clap": "specmaskfoley.encoders.clap:ClapEncoder",
        "t5": "specmaskfoley.encoders.t5:T5Encoder",
    },
)
ROLES = {role.name: role for role in (SYNC, SEMANTIC, PROMPT)}


def load_encoder(role: Role, params: Params, device: torch.device, half: torch.dtype | None = None) -> Any:
    """The encoder of a role, frozen, with its weights: trained by stage `encoders`, or official.

    Args:
        half: of the autocast that it will always run in, if any; see `device.round_weights`.

    Raises:
        ValueError: a file is missing, or was made with other settings.
    """
    encoder, weights = build_encoder(role, params), getattr(_settings(role.name, params), "weights", None)
    if weights is None:
        load_model(encoder_file(params, role.name), encoder, **encoder_description(params, role.name))
    else:
        encoder.load_official(*load_weights(weights, params))  # type: ignore[operator]
    encoder.to(device).eval().requires_grad_(False)
    if device.type != "cpu" or getattr(encoder, "half_on_cpu", True):
        round_weights(encoder, half)
    return encoder


def build_encoder(role: Role, params: Params) -> nn.Module:
    """A new encoder of a role: a mini one to train, an official one without its weights."""
    settings = _settings(role.name, params)
    encoder = resolve_name(role.kinds[settings.kind])
    built: nn.Module
    if settings.kind == "mini":
        built = encoder(settings, params.audio)
    elif settings.kind == "clap":
        built = encoder(weights_folder(settings.tokenizer, params))
    elif settings.kind == "t5":
        built = encoder(weights_folder(settings.tokenizer, params), settings.max_tokens)
    else:
        built = encoder()
    return built


def encoder_description(params: Params, role: str) -> dict[str, Described]:
    """Everything that a trained encoder's weights fit; kept in its file and compared when it is loaded."""
    return {"settings": _settings(role, params), "mel": params.audio.mel, "num_mels": params.audio.num_mels}


def encoder_file(params: Params, role: str) -> Path:
    """Where stage `encoders` writes what it trains."""
    return Path(params.paths.encoders) / f"{role}.safetensors"


def _settings(name: str, params: Params) -> Any:
    return getattr(params.encoders, name)
