"""Operations and memory of training steps: counted without memory, and right."""

from __future__ import annotations

import pytest
import torch
from helpers import ROOT
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.commands.estimate import count_networks
from specmaskfoley.control.trained import build_control
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import KEPT


def params(profile: str) -> Params:
    return Params.load(ROOT / "params.yaml", profile)


def test_the_backbone_costs_three_forward_passes() -> None:
    settings = params("vggsound_small")
    network = count_networks(settings)["backbone"]
    tokens, width, mlp = 265, 512, 2048
    block = tokens * 2 * (4 * width**2 + 2 * width * mlp) + 4 * tokens**2 * width
    forward = 12 * block + 2 * tokens * width * 1024
    assert network.clip_flops == pytest.approx(3 * forward, rel=0.02)
    assert network.flops == network.clip_flops * 112 * 60_000
    assert network.checkpoint_bytes == (KEPT + 1) * 12 * network.parameters


def test_the_count_is_that_of_a_whole_step() -> None:
    """Forward and backward of the control branch, by the counter: the frozen backbone has no gradients of weights."""
    settings = params("vggsound_small")
    networks = count_networks(settings)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        backbone = build_backbone(settings)
        control = build_control(backbone, settings)
        backbone.requires_grad_(False)
        tokens = torch.zeros(2, 265, dtype=torch.int64)
        x = backbone.embed(tokens, tokens.bool(), torch.zeros(2, 512), torch.zeros(2, dtype=torch.bool))
        aligned = control.align(torch.zeros(2, 240, 768), torch.zeros(2, 1024))
        backbone(x, control(x, aligned)).sum().backward()
    assert networks["control"].clip_flops == pytest.approx(counter.get_total_flops() / 2, rel=0.03)
    assert networks["control"].frozen == networks["backbone"].parameters
    fixed = 16 * networks["control"].parameters + 2 * networks["backbone"].parameters
    assert networks["control"].memory(1, half=True)[0] == fixed


def test_what_is_counted_without_memory_is_what_a_step_keeps() -> None:
    settings = params("mini")
    backbone = build_backbone(settings)
    tokens = torch.zeros(4, 5 * 26, dtype=torch.int64)
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone(backbone.embed(tokens, tokens.bool(), torch.zeros(4, 64), torch.zeros(4, dtype=torch.bool)))
    weights = {value.untyped_storage().data_ptr() for value in backbone.parameters()}
    kept = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in saved}
    real = sum(size for place, size in kept.items() if place not in weights)
    # The CPU's attention keeps no table of weights, which the count has.
    assert real / 4 == pytest.approx(count_networks(settings)["backbone"].clip_bytes, rel=0.25)


def test_an_official_codec_is_not_trained() -> None:
    networks = count_networks(params("vggsound_small"))
    assert networks["codec"].recipe is None
    assert networks["codec"].flops == networks["codec"].checkpoint_bytes == 0
