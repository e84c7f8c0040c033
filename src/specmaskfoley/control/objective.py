"""How the backbone and its control branch learn: cross entropy on masked tokens, nothing else.

Shape letters: n clips, B clips of a step over all processes, b those at hand, N tokens a clip, K codes, P prompt width,
t video frames, d feature width.
"""

from __future__ import annotations

import torch
from torch import nn

from specmaskfoley.backbone.network import Backbone
from specmaskfoley.backbone.objective import (
    BackboneObjective,
    TokenClips,
)
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.device import half_dtype


class ControlObjective(BackboneObjective):
    """The same task with video: only the control branch learns, the backbone is frozen (section 3.1)."""

    def __init__(
        self,
        backbone: Backbone,
        control: ControlBranch,
        valid: TokenClips,
        *,
        prompt_dropout: float,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        super().__init__(
            _frozen(backbone, half_dtype(precision, device)),
            valid,
            prompt_dropout=prompt_dropout,
            device=device,
            precision=precision,
            control=control,
        )


def _frozen(backbone: Backbone, half: torch.dtype | None) -> Backbone:
    """Without gradients; autocast would round its weights anew at every pass, so its blocks' are rounded once."""
    backbone.requires_grad_(False)
    if half is not None:
        for module in backbone.blocks.modules():
            if isinstance(module, nn.Linear):
                module.to(half)
    return backbone
