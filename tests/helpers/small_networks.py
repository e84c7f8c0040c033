"""A small real backbone and control branch for the tests of the samplers.

Shape letters: N tokens a clip.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from specmaskfoley.backbone.network import Backbone
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.sampling.guidance import Condition
from specmaskfoley.sampling.reference import sample_tokens
from specmaskfoley.settings import Backbone as BackboneSettings
from specmaskfoley.settings import Control as ControlSettings
from specmaskfoley.settings import Sample

ROWS, COLUMNS, CODES = 2, 6, 13
N = ROWS * COLUMNS
STEPS = Sample(steps=6, gumbel_temperature=9.0, batch_size=4, videos=0)


class Networks:
    """A backbone and a control branch with large random weights, and the batches that went through them."""

    def __init__(self, depth: int = 2, control_depth: int = 1) -> None:
        torch.manual_seed(0)
        self.backbone = Backbone(
            BackboneSettings(depth=depth, width=16, heads=2, mlp_width=32),
            codebook_size=CODES,
            num_tokens=N,
            prompt_width=5,
        ).eval()
        self.control = ControlBranch(
            self.backbone,
            ControlSettings(depth=control_depth, aligner_mlp_width=16),
            sync_width=7,
            semantic_width=9,
            token_rows=ROWS,
            token_columns=COLUMNS,
        ).eval()
        for parameter in itertools.chain(self.backbone.parameters(), self.control.parameters()):
            torch.nn.init.normal_(parameter, std=0.3)
        self.backbone_rows: list[int] = []
        self.control_rows: list[int] = []
        self.backbone.register_forward_pre_hook(lambda _, args: self.backbone_rows.append(args[0].shape[0]))
        self.control.register_forward_pre_hook(lambda _, args: self.control_rows.append(args[0].shape[0]))

    def sample(self, condition: Condition, seeds: list[int], **changes: Any) -> Tensor:
        given = {"mode": "multi", "scale": 3.0, "settings": STEPS, "precision": "float32"} | changes
        return sample_tokens(self.backbone, self.control, condition, seeds=seeds, **given)


def conditions(count: int = 3, *, prompts: int = 0, negative: bool = False) -> Condition:
    """
    Args:
        prompts: how many a clip has, of which each token takes one or none; 0: one for all tokens.
        negative: whether there is something that is not to be heard.
    """
    generator = torch.Generator().manual_seed(2)
    condition = Condition(
        prompt=torch.randn(count, 5, generator=generator),
        sync=torch.randn(count, 20, 7, generator=generator),
        semantic=torch.randn(count, 9, generator=generator),
    )
    if prompts:
        several = torch.randn(count, prompts, 5, generator=generator)
        at = torch.randint(-1, prompts, (count, N), generator=generator)
        condition = replace(condition, prompt=several, at=at)
    if negative:
        condition = replace(condition, negative=torch.randn(count, 5, generator=generator))
    return condition


def of_clip(condition: Condition, index: int) -> Condition:
    return Condition(*(None if part is None else part[index : index + 1] for part in vars(condition).values()))
