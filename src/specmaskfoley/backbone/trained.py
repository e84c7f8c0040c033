"""The backbone that params.yaml names: new, as stage `backbone` trained it, or official."""

from __future__ import annotations

from pkgutil import resolve_name

import torch

from specmaskfoley.backbone.role import Backbone
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import Described, load_model

KINDS = {
    "specmaskgit": "specmaskfoley.backbone.specmaskgit.network:SpecMaskGIT",
    "magnet": "specmaskfoley.backbone.magnet.network:MagnetNetwork",
}
"""backbone.kind -> what fills the role; only that one is imported."""


def build_backbone(params: Params) -> Backbone:
    """A new backbone of the sizes in params.yaml."""
    built: Backbone = resolve_name(KINDS[params.backbone.kind])(
        params.backbone,
        grid=params.grid,
        codes=params.codec.codebook_size,
        prompt_width=params.encoders.prompt.width,
    )
    return built


def load_backbone(params: Params, device: torch.device) -> Backbone:
    backbone = build_backbone(params)
    load_model(params.paths.backbone, backbone, **backbone_description(params))
    return backbone.to(device).eval()


def backbone_description(params: Params) -> dict[str, Described]:
    """Everything that a backbone's weights fit."""
    return {
        "backbone": params.backbone,
        "codebook_size": params.codec.codebook_size,
        "token_rows": params.grid.rows,
        "token_columns": params.grid.columns,
        "prompt_width": params.encoders.prompt.width,
    }
