"""The ControlNet branch and the FT-Aligner of SpecMaskFoley (sections 3.1 and 3.2, Figure 2).

Shape letters: B batch, T token columns, M positions of the backbone's sequence (a multiple of T), D its width, t video
frames, d feature width.

Composition: with 12 blocks at D=768, 13 zero linears, a linear layer that brings CLIP's width to Synchformer's, and
MMAudio's projection (conv k7 and a gated conv MLP k3, here of width 4096) the branch has 125,960,448 parameters, the
paper's 126M. The convolution alone, which is all that the paper's text names, would give 98M.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.backbone.layers import zero_linear
from specmaskfoley.backbone.role import Backbone, Inputs
from specmaskfoley.settings import Control as ControlSettings


class GatedConvMLP(nn.Module):
    """SwiGLU over time with convolutions instead of linears, as in MMAudio: (B, D, t) -> (B, D, t)."""

    def __init__(self, width: int, hidden: int, kernel_size: int = 3) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.gate = nn.Conv1d(width, hidden, kernel_size, padding=padding, bias=False)
        self.value = nn.Conv1d(width, hidden, kernel_size, padding=padding, bias=False)
        self.out = nn.Conv1d(hidden, width, kernel_size, padding=padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.silu(self.gate(x)) * self.value(x))  # type: ignore[no-any-return]


class FTAligner(nn.Module):
    """Frequency-aware temporal aligner (section 3.2): video features on the token grid, one vector a time column.

    Args:
        columns: T; rows: how often the columns are repeated, M / T.
        pooling: (t, T), what each column takes of each projected feature; None: adaptive average pooling by their
            order, as in the paper.
    """

    pooling: Tensor | None

    def __init__(
        self,
        *,
        width: int,
        sync_width: int,
        semantic_width: int,
        mlp_width: int,
        rows: int,
        columns: int,
        pooling: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.semantic = nn.Linear(semantic_width, sync_width)
        self.project = nn.Sequential(
            nn.Conv1d(sync_width, width, 7, padding=3), nn.SiLU(), GatedConvMLP(width, mlp_width)
        )
        self.register_buffer("pooling", pooling, persistent=False)

    def forward(self, sync: Tensor, semantic: Tensor) -> Tensor:
        """
        Args:
            sync: (B, t, d) Synchformer-role features.
            semantic: (B, d) CLIP-role features averaged over time.

        Returns:
            (B, M, D), the time columns repeated over the rows.
        """
        x = self.project((sync + self.semantic(semantic)[:, None]).transpose(1, 2))
        x = adaptive_average_pool(x, self.columns) if self.pooling is None else x @ self.pooling.to(x.dtype)
        return x.transpose(1, 2)[:, None].expand(-1, self.rows, -1, -1).flatten(1, 2)


class ControlBranch(nn.Module):
    """One residual per controlled backbone block (section 3.1), each zero until training moves it.

    A new branch therefore leaves the pretrained backbone's output unchanged, bit for bit.
    """

    def __init__(
        self,
        backbone: Backbone,
        settings: ControlSettings,
        *,
        sync_width: int,
        semantic_width: int,
        pooling: Tensor | None = None,
    ) -> None:
        super().__init__()
        width = backbone.width
        self.aligner = FTAligner(
            width=width,
            sync_width=sync_width,
            semantic_width=semantic_width,
            mlp_width=settings.aligner_mlp_width,
            rows=backbone.sequence_rows,
            columns=backbone.grid.columns,
            pooling=pooling,
        )
        self.zero_in = zero_linear(width)
        blocks = [copy.deepcopy(block) for block in backbone.blocks[: settings.depth]]
        self.blocks = nn.ModuleList(blocks).requires_grad_(True)
        self.zero_out = nn.ModuleList(zero_linear(width) for _ in range(settings.depth))

    def align(self, sync: Tensor, semantic: Tensor) -> Tensor:
        """Aligned features behind the first zero linear: (B, t, d), (B, d) -> (B, M, D), the same in every step."""
        return self.zero_in(self.aligner(sync, semantic))  # type: ignore[no-any-return]

    def forward(self, inputs: Inputs, aligned: Tensor) -> list[Tensor]:
        """
        Args:
            inputs: what enters the backbone.
            aligned: (B, M, D) from `align`.

        Returns:
            One (B, M, D) residual for each of the first backbone blocks.
        """
        x = inputs.x + aligned
        residuals = []
        for block, zero, context in zip(self.blocks, self.zero_out, inputs.contexts, strict=False):
            x = block(x, context)
            residuals.append(zero(x))
        return residuals


def adaptive_average_pool(x: Tensor, columns: int) -> Tensor:
    """`F.adaptive_avg_pool1d` as one matrix product: (B, D, t) -> (B, D, columns).

    The same bins; unlike the built-in kernel its backward pass is deterministic on CUDA.
    """
    frames = x.shape[-1]
    edges = torch.arange(columns + 1, device=x.device) * frames
    start = torch.div(edges[:-1], columns, rounding_mode="floor")
    stop = torch.div(edges[1:] + columns - 1, columns, rounding_mode="floor")
    index = torch.arange(frames, device=x.device)
    inside = (index >= start[:, None]) & (index < stop[:, None])
    return x @ (inside / (stop - start)[:, None]).to(x.dtype).T


def pooling_by_time(feature_s: Sequence[float], column_s: Sequence[float]) -> Tensor:
    """What each column takes of each feature: (t, T), linear between the two nearest in time.

    Features of one time are averaged first; before the first and after the last time, the first and the last are held.

    Args:
        feature_s: seconds of the t features, in any order; column_s: of the T columns.
    """
    times, of = np.unique(np.round(feature_s, 6), return_inverse=True)
    mean = np.zeros((len(feature_s), len(times)))
    mean[np.arange(len(feature_s)), of] = 1.0 / np.bincount(of)[of]
    weights = np.stack([np.interp(column_s, times, row) for row in np.eye(len(times))])
    return torch.from_numpy(mean @ weights).float()
