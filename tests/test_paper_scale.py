"""The vggsound profile has the paper's sizes, vggsound_small but for what it says, and magnet those of its backbone."""

import pytest
import torch
import yaml
from helpers import ROOT

from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.codec.specvqgan.network import SpecVQGAN
from specmaskfoley.codec.trained import build_codec
from specmaskfoley.control.trained import build_control
from specmaskfoley.settings import Params
from specmaskfoley.tracking import flatten

RAW = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def params() -> Params:
    return Params.from_mapping({**RAW, "profile": "vggsound"})


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_networks_have_the_papers_sizes(params):
    with torch.device("meta"):
        backbone = build_backbone(params)
        control = build_control(backbone, params)
        codec = SpecVQGAN(params.codec)
    assert count(backbone.blocks) == 170_108_928
    assert count(control) == 125_960_448
    assert count(codec) == 72_137_089
    assert len(control.zero_out) + 1 == 13


def test_token_grid_and_recipe_are_the_papers(params):
    assert (params.grid.rows, params.grid.columns, params.audio.num_samples) == (5, 53, 217_088)
    recipe = params.train_control.optim
    assert (recipe.steps, recipe.batch_size, recipe.warmup_steps) == (140_000, 64, 2_800)
    assert recipe.peak_learning_rate == pytest.approx(2.5e-4)
    assert params.train_control.prompt_dropout == 0.9


def test_decoding_and_guidance_are_the_papers(params):
    """Section 4.1: scale from 0 to 3 over 12 steps, Gumbel temperature 9."""
    assert (params.sample.steps, params.sample.gumbel_temperature, params.sample.schedule) == (12, 9.0, "cosine")
    assert (params.cfg.scale, params.cfg.mode, params.cfg.start) == (3.0, "multi", 0.0)


def test_the_small_profile_is_another_codec_smaller_networks_and_fewer_steps():
    small, paper = (flatten(RAW["profiles"][name]) for name in ("vggsound_small", "vggsound"))
    changed = {name: value for name, value in small.items() if paper.get(name, "absent") != value}
    assert changed == {
        "audio.mel": "specvqgan", "audio.fmin": 125.0, "audio.fmax": 7600.0,
        "codec.weights": "specvqgan_vggsound", "train_codec": None,
        "vocoder.kind": "melgan", "vocoder.weights": "specvqgan_melgan",
        "backbone.depth": 12, "backbone.width": 512, "backbone.mlp_width": 2048,
        "control.depth": 6, "control.aligner_mlp_width": 2048,
        "train_backbone.optim.steps": 60_000, "train_control.optim.steps": 30_000,
    }  # fmt: skip
    gone = set(paper) - set(small)
    assert all(name.startswith("train_codec.") for name in gone)


def test_the_small_profile_has_networks_and_recipe_for_a_card_of_24_gb():
    params = Params.from_mapping({**RAW, "profile": "vggsound_small"})
    with torch.device("meta"):
        backbone = build_backbone(params)
        control = build_control(backbone, params)
        codec = SpecVQGAN(params.codec)
    assert count(backbone.blocks) == 37_828_608
    assert len(control.blocks) == 6
    assert count(codec) == 72_137_089
    assert (params.grid.rows, params.grid.columns) == (5, 53)
    assert params.train_control.optim.batch_size == 64
    assert {"specvqgan_vggsound", "specvqgan_melgan", "synchformer", "passt"} <= set(params.needed_weights())


@pytest.fixture(scope="module")
def magnet() -> Params:
    return Params.from_mapping({**RAW, "profile": "magnet"})


def test_the_magnet_profile_has_the_public_networks_and_a_branch_of_half_their_blocks(magnet):
    with torch.device("meta"):
        backbone = build_backbone(magnet)
        control = build_control(backbone, magnet)
        codec = build_codec(magnet)
    assert count(backbone) == 420_633_600
    assert count(codec) == 56_819_138
    copied, zeros = 12 * 16_783_360, 13 * (1024 * 1024 + 1024)
    clip, convolution, gated = 1024 * 768 + 768, 7 * 768 * 1024 + 1024, 3 * 3 * 1024 * 4096
    assert count(control) == copied + zeros + clip + convolution + gated == 259_087_104
    assert control.aligner.pooling is not None
    assert control.aligner.pooling.shape == (240, 498)
    for branch, block in zip(control.blocks, backbone.blocks, strict=False):
        assert count(branch) == count(block)


def test_the_magnet_profile_decodes_whole_spans_as_published(magnet):
    assert (magnet.grid.rows, magnet.grid.columns, magnet.grid.step) == (4, 498, 320)
    assert magnet.audio.token_duration_s == pytest.approx(9.96)
    assert (magnet.backbone.span, magnet.backbone.window, magnet.backbone.arrangement) == (3, 5, "nonoverlap")
    assert magnet.grid.columns % magnet.backbone.span == 0
    assert magnet.sample.steps_of(magnet.backbone.levels) == (20, 10, 10, 10)
    assert (magnet.sample.temperature, magnet.sample.top_p) == (3.5, 0.8)
    assert (magnet.cfg.scale, magnet.cfg.mode, magnet.cfg.ramp) == (3.0, "multi", "rising")


def test_the_magnet_profile_trains_the_branch_alone_by_the_papers_recipe(magnet, params):
    assert magnet.train_codec is magnet.train_backbone is magnet.vocoder is None
    ours, papers = magnet.train_control, params.train_control
    assert ours.optim == papers.optim.model_copy(update={"steps": 30_000})
    assert (ours.prompt_dropout, ours.label_smoothing) == (papers.prompt_dropout, papers.label_smoothing)
    assert magnet.judges == params.judges
    assert magnet.encoders.prompt.shape == (32, 1024)
    assert magnet.needed_weights() == (
        "synchformer", "dfn5b_clip", "t5_large", "t5_large_tokenizer", "encodec_16khz", "magnet_small", "passt",
        "vggish", "imagebind",
    )  # fmt: skip
