"""The generator's networks at the sizes of params.yaml: new, or with the weights that earlier stages trained."""

from __future__ import annotations

import torch

from specmaskfoley.config import Params
from specmaskfoley.models.backbone import Backbone
from specmaskfoley.models.codec import Codec
from specmaskfoley.models.control import ControlBranch
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
