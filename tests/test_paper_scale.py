"""The vggsound profile has the paper's sizes."""

import pytest
import torch
import yaml
from helpers import ROOT

from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.codec.network import Codec
from specmaskfoley.control.trained import build_control
from specmaskfoley.settings import Params


@pytest.fixture(scope="module")
def params() -> Params:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return Params.from_mapping({**raw, "profile": "vggsound"})


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_networks_have_the_papers_sizes(params):
    with torch.device("meta"):
        backbone = build_backbone(params)
        control = build_control(backbone, params)
        codec = Codec(params.codec)
    assert count(backbone.blocks) == 170_108_928
    assert count(control) == 125_960_448
    assert count(codec) == 72_137_089
    assert len(control.zero_out) + 1 == 13


def test_token_grid_and_recipe_are_the_papers(params):
    assert (params.audio.token_rows, params.audio.token_columns, params.audio.num_samples) == (5, 53, 217_088)
    recipe = params.train_control.optim
    assert (recipe.steps, recipe.batch_size, recipe.warmup_steps) == (140_000, 64, 2_800)
    assert recipe.peak_learning_rate == pytest.approx(2.5e-4)
    assert params.train_control.prompt_dropout == 0.9


def test_decoding_and_guidance_are_the_papers(params):
    """Section 4.1: scale from 0 to 3 over 12 steps, Gumbel temperature 9."""
    assert (params.sample.steps, params.sample.gumbel_temperature, params.sample.schedule) == (12, 9.0, "cosine")
    assert (params.cfg.scale, params.cfg.mode, params.cfg.start) == (3.0, "multi", 0.0)
