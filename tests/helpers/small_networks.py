"""A small real backbone and control branch for the tests of the samplers.

Shape letters: N tokens a clip.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch import Tensor

from specmaskfoley.backbone.role import Backbone
from specmaskfoley.backbone.specmaskgit.network import SpecMaskGIT
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.sampling.guidance import Condition, guidance_plan
from specmaskfoley.sampling.reference import sample_tokens
from specmaskfoley.settings import Control as ControlSettings
from specmaskfoley.settings import GuidanceMode, Ramp, Sample, TokenGrid
from specmaskfoley.settings import SpecMaskGIT as BackboneSettings

ROWS, COLUMNS, CODES = 2, 6, 13
N = ROWS * COLUMNS
STEPS = Sample(steps=6, gumbel_temperature=9.0, batch_size=4, videos=0)


class Networks:
    """A backbone and a control branch with large random weights, and the batches that went through them.

    Args:
        backbone: None: a SpecMaskGIT of so many blocks.
    """

    backbone: Backbone

    def __init__(self, depth: int = 2, control_depth: int = 1, backbone: Backbone | None = None) -> None:
        torch.manual_seed(0)
        self.backbone = (
            backbone
            or SpecMaskGIT(
                BackboneSettings(kind="specmaskgit", depth=depth, width=16, heads=2, mlp_width=32),
                grid=TokenGrid(ROWS, COLUMNS, 1),
                codes=CODES,
                prompt_width=5,
            )
        ).eval()
        self.control = ControlBranch(
            self.backbone,
            ControlSettings(depth=control_depth, aligner_mlp_width=16),
            sync_width=7,
            semantic_width=9,
        ).eval()
        for parameter in itertools.chain(self.backbone.parameters(), self.control.parameters()):
            torch.nn.init.normal_(parameter, std=0.3)
        self.backbone_rows: list[int] = []
        self.control_rows: list[int] = []
        self.backbone.register_forward_pre_hook(lambda _, args: self.backbone_rows.append(args[0].x.shape[0]))
        self.control.register_forward_pre_hook(lambda _, args: self.control_rows.append(args[0].x.shape[0]))

    def sample(
        self,
        condition: Condition,
        seeds: list[int],
        *,
        mode: GuidanceMode = "multi",
        scale: float = 3.0,
        start: float = 0.0,
        negative: float = 0.0,
        ramp: Ramp = "rising",
        settings: Sample = STEPS,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        plan = guidance_plan(mode, settings.steps_of(self.backbone.levels), scale, start, negative, ramp)
        return sample_tokens(
            self.backbone, self.control, condition, plan=plan, settings=settings, seeds=seeds, known=known
        )


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
