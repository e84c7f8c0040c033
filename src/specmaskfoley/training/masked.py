"""How the backbone and its control branch learn: cross entropy on masked tokens, nothing else.

Shape letters: n clips, N tokens a clip, P prompt width, t video frames, d feature width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specmaskfoley.models.backbone import Backbone
from specmaskfoley.models.control import ControlBranch
from specmaskfoley.runtime import autocast
from specmaskfoley.training.loop import Scores


@dataclass(frozen=True)
class TokenClips:
    """Clips of one split.

    n ids, tokens (n, N) int16, audio prompts (n, P); for control sync (n, t, d) and semantic (n, d).
    """

    ids: Sequence[str]
    tokens: Tensor
    prompt: Tensor
    sync: Tensor | None = None
    semantic: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)


def random_mask(batch: int, num_tokens: int, generator: torch.Generator) -> Tensor:
    """(batch, num_tokens) bool; the masked share is cos(pi/2 * u), u uniform (MaskGIT), and at least one token."""
    share = torch.cos(math.pi / 2 * torch.rand(batch, generator=generator))
    count = (share * num_tokens).ceil().clamp(min=1)
    order = torch.rand(batch, num_tokens, generator=generator).argsort(1).argsort(1)
    return order < count[:, None]


class BackboneObjective:
    """Mask reconstruction with the clip's audio embedding as the mask, dropped at `prompt_dropout`."""

    def __init__(
        self,
        backbone: Backbone,
        train: TokenClips,
        valid: TokenClips,
        *,
        prompt_dropout: float,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        self.backbone, self.train, self.valid = backbone, train, valid
        self.prompt_dropout, self.device, self.precision = prompt_dropout, device, precision
        self.modules: nn.Module = backbone

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"model": [p for p in self.modules.parameters() if p.requires_grad]}

    def loss(self, group: str, rows: np.ndarray, step: int, generator: torch.Generator) -> tuple[Tensor, Scores]:
        loss, accuracy = self._reconstruct(self.train, torch.from_numpy(rows), generator, self.prompt_dropout)
        return loss, {"loss": loss.item(), "accuracy": accuracy}

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Nothing changes without a gradient."""

    def validate(self, generator: torch.Generator) -> Scores:
        """Masked cross entropy and accuracy with the training's mix of prompts; equal masks at every call."""
        sums = np.zeros(2)
        for rows in torch.split(torch.arange(len(self.valid)), 64):
            loss, accuracy = self._reconstruct(self.valid, rows, generator, self.prompt_dropout)
            sums += np.array([loss.item(), accuracy]) * len(rows)
        loss_mean, accuracy_mean = sums / len(self.valid)
        return {"loss": float(loss_mean), "accuracy": float(accuracy_mean)}

    def logits(self, clips: TokenClips, rows: Tensor, x: Tensor) -> Tensor:
        return self.backbone(x)  # type: ignore[no-any-return]

    def _reconstruct(
        self, clips: TokenClips, rows: Tensor, generator: torch.Generator, dropout: float
    ) -> tuple[Tensor, float]:
        tokens = clips.tokens[rows].long().to(self.device)
        masked = random_mask(len(rows), tokens.shape[1], generator).to(self.device)
        use_prompt = (torch.rand(len(rows), generator=generator) >= dropout).to(self.device)
        with autocast(self.precision, self.device):
            x = self.backbone.embed(tokens, masked, clips.prompt[rows].float().to(self.device), use_prompt)
            logits = self.logits(clips, rows, x)
        hidden, target = logits[masked].float(), tokens[masked]
        accuracy = float((hidden.argmax(-1) == target).float().mean())
        return F.cross_entropy(hidden, target), accuracy


class ControlObjective(BackboneObjective):
    """The same task with video: only the control branch learns, the backbone is frozen (section 3.1)."""

    def __init__(
        self,
        backbone: Backbone,
        control: ControlBranch,
        train: TokenClips,
        valid: TokenClips,
        *,
        prompt_dropout: float,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        super().__init__(
            backbone.requires_grad_(False),
            train,
            valid,
            prompt_dropout=prompt_dropout,
            device=device,
            precision=precision,
        )
        self.control = control
        self.modules = control

    def logits(self, clips: TokenClips, rows: Tensor, x: Tensor) -> Tensor:
        assert clips.sync is not None
        assert clips.semantic is not None
        sync = clips.sync[rows].float().to(self.device)
        semantic = clips.semantic[rows].float().to(self.device)
        return self.backbone(x, self.control(x, self.control.align(sync, semantic)))  # type: ignore[no-any-return]
