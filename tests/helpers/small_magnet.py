"""A small MAGNeT and its control branch for the tests of the samplers.

Shape letters: N tokens a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from helpers.small_networks import Networks
from specmaskfoley.backbone.magnet.decoding import MagnetFastDecoding, Plan
from specmaskfoley.backbone.magnet.network import MagnetNetwork
from specmaskfoley.sampling.guidance import Condition
from specmaskfoley.settings import Decoding, Magnet, Sample, TokenGrid

CODEBOOKS, COLUMNS, CODES = 3, 7, 13  # the last span has one column
N = CODEBOOKS * COLUMNS
STEPS = Sample(steps=(5, 3, 2), temperature=2.0, top_p=0.8, batch_size=4, videos=0)


def networks(
    depth: int = 2, control_depth: int = 1, arrangement: Literal["nonoverlap", "stride1"] = "nonoverlap"
) -> Networks:
    settings = Magnet(
        kind="magnet",
        codebooks=CODEBOOKS,
        depth=depth,
        width=16,
        heads=2,
        mlp_width=32,
        window=2,
        arrangement=arrangement,
    )
    grid = TokenGrid(CODEBOOKS, COLUMNS, 1)
    return Networks(
        control_depth=control_depth, backbone=MagnetNetwork(settings, grid=grid, codes=CODES, prompt_width=5)
    )


def conditions(count: int = 3, *, prompts: int = 0, negative: bool = False, vectors: int = 3) -> Condition:
    """
    Args:
        prompts: how many a clip has, of which each column takes one or none; 0: one for all columns.
        negative: whether there is something that is not to be heard.
        vectors: of a prompt, of which every second clip has one less; 0: a prompt is a vector.
    """
    generator = torch.Generator().manual_seed(2)

    def words(*before: int) -> Tensor:
        made = torch.randn(count, *before, *([vectors] if vectors else []), 5, generator=generator)
        if vectors > 1:
            made[1::2, ..., -1, :] = 0.0
        return made

    condition = Condition(
        prompt=words(),
        sync=torch.randn(count, 20, 7, generator=generator),
        semantic=torch.randn(count, 9, generator=generator),
    )
    if prompts:
        columns = torch.randint(-1, prompts, (count, COLUMNS), generator=generator)
        condition = replace(condition, prompt=words(prompts), at=columns.repeat(1, CODEBOOKS))
    if negative:
        condition = replace(condition, negative=words())
    return condition


def plan_elsewhere(
    network: MagnetNetwork, how: Decoding, seeds: Sequence[int], move: Callable[[Tensor], Tensor]
) -> MagnetFastDecoding:
    """A decoding for devices whose tensors have no values: planned on the CPU, then moved."""
    with _disable_current_modes():
        plan = Plan(network.settings, network.grid, network.codes, how, seeds, None, torch.device("cpu"))
        made = MagnetFastDecoding(plan)
    made.tensors = tuple(map(move, made.tensors))
    made.tokens, made.at = move(made.tokens), move(made.at)
    return made
