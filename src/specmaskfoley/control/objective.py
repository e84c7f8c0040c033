"""How the control branch learns: the backbone's task, with video (section 3.1).

Shape letters: b clips of a pass, l tokens that a level decides, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specmaskfoley.backbone.objective import BackboneObjective, TokenClips, embed_batch
from specmaskfoley.backbone.role import Backbone
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.device import half_dtype, round_weights
from specmaskfoley.training.batches import Batch


class SteeredReconstruction(nn.Module):
    """`Reconstruction` under control; the frozen backbone is no part of the module: (b, l, K)."""

    def __init__(self, backbone: Backbone, control: ControlBranch) -> None:
        super().__init__()
        self.control = control
        self._backbone = (backbone,)  # in a tuple, so that parameters() does not list its weights

    def forward(self, batch: Batch, level: int) -> Tensor:
        backbone = self._backbone[0]
        inputs = embed_batch(backbone, batch, level)
        aligned = self.control.align(batch["sync"].float(), batch["semantic_mean"].float())
        return backbone(inputs, self.control(inputs, aligned))  # type: ignore[no-any-return]


class ControlObjective(BackboneObjective):
    """The backbone's loss; only the control branch learns, the backbone is frozen (section 3.1)."""

    def __init__(
        self,
        backbone: Backbone,
        control: ControlBranch,
        valid: TokenClips,
        *,
        prompt_dropout: float,
        device: torch.device,
        precision: str = "float32",
        label_smoothing: float = 0.0,
    ) -> None:
        backbone.requires_grad_(False)
        round_weights(backbone.blocks, half_dtype(precision, device))
        super().__init__(
            backbone,
            valid,
            prompt_dropout=prompt_dropout,
            device=device,
            precision=precision,
            label_smoothing=label_smoothing,
        )
        self.modules = control
        self.network = self._forward = SteeredReconstruction(backbone, control)
