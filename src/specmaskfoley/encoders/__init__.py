"""Feature encoders by role: sync (Synchformer), semantic (CLIP), prompt (CLAP).

`encoders.<role>.kind` in params.yaml names the implementation; a new one is one file and one line here.
"""

from __future__ import annotations

from pathlib import Path

import torch

from specmaskfoley.config import Params
from specmaskfoley.encoders.mini import PromptEncoder, SemanticEncoder, SyncEncoder
from specmaskfoley.storage.checkpoint import Described, load_model

SYNC = {"mini": SyncEncoder}
SEMANTIC = {"mini": SemanticEncoder}
PROMPT = {"mini": PromptEncoder}


def build_sync(params: Params) -> SyncEncoder:
    settings = params.encoders.sync
    return SYNC[settings.kind](settings, params.audio.num_mels)


def build_semantic(params: Params) -> SemanticEncoder:
    settings = params.encoders.semantic
    return SEMANTIC[settings.kind](settings)


def build_prompt(params: Params) -> PromptEncoder:
    settings = params.encoders.prompt
    return PROMPT[settings.kind](settings, params.audio.num_mels)


def load_encoders(params: Params, device: torch.device) -> tuple[SyncEncoder, SemanticEncoder, PromptEncoder]:
    sync, semantic, prompt = build_sync(params), build_semantic(params), build_prompt(params)
    folder = Path(params.paths.encoders)
    load_model(folder / "sync.safetensors", sync, **encoder_description(params, "sync"))
    load_model(folder / "semantic.safetensors", semantic, **encoder_description(params, "semantic"))
    load_model(folder / "prompt.safetensors", prompt, **encoder_description(params, "prompt"))
    return sync.to(device).eval(), semantic.to(device).eval(), prompt.to(device).eval()


def encoder_description(params: Params, role: str) -> dict[str, Described]:
    """Everything that an encoder's weights fit; kept in its file and compared when it is loaded."""
    return {"settings": getattr(params.encoders, role), "num_mels": params.audio.num_mels}
