"""The control branch at the sizes of params.yaml: new, or as stage `control` trained it."""

from __future__ import annotations

import torch
from torch import Tensor

from specmaskfoley.backbone.role import Backbone
from specmaskfoley.backbone.trained import backbone_description
from specmaskfoley.control.network import ControlBranch, pooling_by_time
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import Described, load_model


def build_control(backbone: Backbone, params: Params) -> ControlBranch:
    """A new control branch: a copy of the backbone's first blocks that changes nothing yet."""
    return ControlBranch(
        backbone,
        params.control,
        sync_width=params.encoders.sync.width,
        semantic_width=params.encoders.semantic.width,
        pooling=_by_time(params) if params.control.alignment == "time" else None,
    )


def _by_time(params: Params) -> Tensor:
    """What each token column takes of each sync feature, by their times."""
    column_s = params.grid.step / params.audio.sample_rate
    return pooling_by_time(params.sync_features_s, [(one + 0.5) * column_s for one in range(params.grid.columns)])


def load_control(backbone: Backbone, params: Params, device: torch.device) -> ControlBranch:
    control = build_control(backbone, params)
    load_model(params.paths.control, control, **control_description(params))
    return control.to(device).eval()


def control_description(params: Params) -> dict[str, Described]:
    """Everything that a control branch's weights fit."""
    return {
        "control": params.control,
        "sync_width": params.encoders.sync.width,
        "semantic_width": params.encoders.semantic.width,
        **backbone_description(params),
    }
