"""The backbone at the sizes of params.yaml: new, or as stage `backbone` trained it."""

from __future__ import annotations

import torch

from specmaskfoley.backbone.network import Backbone
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import Described, load_model


def build_backbone(params: Params) -> Backbone:
    """A new backbone of the sizes in params.yaml."""
    return Backbone(
        params.backbone,
        codebook_size=params.codec.codebook_size,
        num_tokens=params.audio.token_rows * params.audio.token_columns,
        prompt_width=params.encoders.prompt.width,
    )


def load_backbone(params: Params, device: torch.device) -> Backbone:
    backbone = build_backbone(params)
    load_model(params.paths.backbone, backbone, **backbone_description(params))
    return backbone.to(device).eval()


def backbone_description(params: Params) -> dict[str, Described]:
    """Everything that a backbone's weights fit."""
    return {
        "backbone": params.backbone,
        "codebook_size": params.codec.codebook_size,
        "token_rows": params.audio.token_rows,
        "token_columns": params.audio.token_columns,
        "prompt_width": params.encoders.prompt.width,
    }
