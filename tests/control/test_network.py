"""The control branch: silent when new, steering once trained; the aligner's time axis; the paper's sizes.

Shape letters: B batch, F token rows, T token columns, N = F * T, D width, t video frames.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from specmaskfoley.backbone.objective import TokenClips
from specmaskfoley.backbone.specmaskgit.network import SpecMaskGIT
from specmaskfoley.backbone.trained import build_backbone
from specmaskfoley.control.network import ControlBranch, FTAligner, adaptive_average_pool, pooling_by_time
from specmaskfoley.control.objective import ControlObjective
from specmaskfoley.control.trained import build_control
from specmaskfoley.sampling.guidance import Condition, guidance_plan
from specmaskfoley.sampling.reference import sample_tokens
from specmaskfoley.settings import Control as ControlSettings
from specmaskfoley.settings import Params, Sample, TokenGrid
from specmaskfoley.settings import SpecMaskGIT as BackboneSettings

ROWS, COLUMNS, CODES, WIDTH = 2, 5, 11, 16
FRAMES, SYNC, SEMANTIC, PROMPT = 23, 7, 9, 6


def make(seed: int = 0) -> tuple[SpecMaskGIT, ControlBranch]:
    torch.manual_seed(seed)
    settings = BackboneSettings(kind="specmaskgit", depth=3, width=WIDTH, heads=2, mlp_width=32)
    backbone = SpecMaskGIT(settings, grid=TokenGrid(ROWS, COLUMNS, 1), codes=CODES, prompt_width=PROMPT)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    control = ControlBranch(
        backbone,
        ControlSettings(depth=2, aligner_mlp_width=24),
        sync_width=SYNC,
        semantic_width=SEMANTIC,
    )
    return backbone, control


def clips(count: int = 8) -> TokenClips:
    generator = torch.Generator().manual_seed(1)
    return TokenClips(
        ids=[f"clip{row}" for row in range(count)],
        tokens=torch.randint(CODES, (count, ROWS * COLUMNS), generator=generator, dtype=torch.int16),
        prompt=torch.randn(count, PROMPT, generator=generator),
        sync=torch.randn(count, FRAMES, SYNC, generator=generator),
        semantic=torch.randn(count, SEMANTIC, generator=generator),
    )


def train(backbone: SpecMaskGIT, control: ControlBranch, steps: int) -> ControlObjective:
    objective = ControlObjective(
        backbone, control, clips(), prompt_dropout=0.5, device=torch.device("cpu"), precision="float32"
    )
    optimizer = torch.optim.AdamW(objective.groups()["model"], lr=0.01)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        batch = {**objective.valid.columns(), **objective.draw(8, step, generator)}
        loss, _ = objective.loss("model", batch, step, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return objective


def outputs(backbone: SpecMaskGIT, control: ControlBranch, video: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits without and with the branch, the video features multiplied by `video`."""
    data = clips()
    masked = torch.arange(ROWS * COLUMNS).expand(8, -1) % 3 > 0
    with torch.inference_mode():
        inputs = backbone.embed(data.tokens.long(), masked, data.prompt, torch.ones(8, dtype=torch.bool))
        aligned = control.align(video * data.sync, video * data.semantic)
        return backbone(inputs), backbone(inputs, control(inputs, aligned))


def test_a_new_branch_changes_nothing_bit_for_bit():
    backbone, control = make()
    plain, steered = outputs(backbone, control)
    assert torch.equal(plain, steered)


def test_video_has_no_influence_on_a_new_branch():
    backbone, control = make()
    assert torch.equal(outputs(backbone, control)[1], outputs(backbone, control, video=-3.0)[1])


def test_one_step_makes_the_branch_count_and_two_the_video():
    """The zero linears behind the blocks move first; only then does the one in front get a gradient."""
    backbone, control = make()
    train(backbone, control, 1)
    plain, steered = outputs(backbone, control)
    assert not torch.allclose(plain, steered, atol=1e-4)
    assert torch.equal(steered, outputs(backbone, control, video=-3.0)[1])

    backbone, control = make()
    train(backbone, control, 2)
    assert not torch.allclose(outputs(backbone, control)[1], outputs(backbone, control, video=-3.0)[1], atol=1e-5)


def test_three_steps_reach_every_parameter_of_the_branch():
    backbone, control = make()
    before = copy.deepcopy(control.state_dict())
    train(backbone, control, 3)
    still = [name for name, value in control.state_dict().items() if torch.equal(value, before[name])]
    assert not still


def test_every_number_of_the_branch_can_learn():
    """Each has a gradient in some step; a convolution over a single vector would leave its outer taps without."""
    backbone, control = make()
    reached = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in control.named_parameters()}

    def note(name: str, grad: Tensor | None) -> None:
        assert grad is not None
        reached[name] |= grad != 0

    def watch(name: str, parameter: Tensor) -> None:
        parameter.register_post_accumulate_grad_hook(lambda one: note(name, one.grad))

    for name, parameter in control.named_parameters():
        watch(name, parameter)
    train(backbone, control, 4)
    assert {name: int((~found).sum()) for name, found in reached.items() if not found.all()} == {}


def test_the_backbone_stays_frozen():
    backbone, control = make()
    before = copy.deepcopy(backbone.state_dict())
    objective = train(backbone, control, 3)
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    trained = {id(p) for p in objective.groups()["model"]}
    assert trained == {id(p) for p in control.parameters()}


def test_the_branch_starts_as_a_copy_that_is_not_shared():
    backbone, control = make()
    for mine, theirs in zip(control.blocks, backbone.blocks, strict=False):
        for (name, a), (_, b) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
            assert torch.equal(a, b), name
            assert a.data_ptr() != b.data_ptr(), name


def test_a_branch_of_a_frozen_backbone_can_be_trained():
    backbone, _ = make()
    backbone.requires_grad_(False)
    settings = ControlSettings(depth=2, aligner_mlp_width=24)
    control = ControlBranch(backbone, settings, sync_width=SYNC, semantic_width=SEMANTIC)
    assert all(p.requires_grad for p in control.parameters())


def aligner(pooling: Tensor | None = None) -> FTAligner:
    torch.manual_seed(0)
    return FTAligner(
        width=WIDTH,
        sync_width=SYNC,
        semantic_width=SEMANTIC,
        mlp_width=24,
        rows=ROWS,
        columns=COLUMNS,
        pooling=pooling,
    ).eval()


@torch.inference_mode()
def test_every_token_of_a_column_gets_the_same_feature():
    x = aligner()(clips().sync, clips().semantic)
    assert x.shape == (8, ROWS * COLUMNS, WIDTH)
    grid = x.view(8, ROWS, COLUMNS, WIDTH)
    assert torch.equal(grid[:, :1].expand_as(grid), grid)
    assert not torch.allclose(grid[:, 0, 0], grid[:, 0, 1], atol=1e-4)


@torch.inference_mode()
def test_a_frame_reaches_the_columns_of_its_time_only():
    aligned = aligner()
    sync, semantic = torch.zeros(1, 200, SYNC), torch.zeros(1, SEMANTIC)
    event = sync.clone()
    event[:, 100] = 1.0  # the middle of five columns of 40 frames
    moved = (aligned(event, semantic) - aligned(sync, semantic)).abs().amax(-1).view(ROWS, COLUMNS)
    assert (moved[:, 2] > 1e-4).all()
    assert (moved[:, [0, 1, 3, 4]] == 0).all()


@torch.inference_mode()
def test_semantic_features_reach_all_columns():
    """Added before the projection, they act through what is seen; beside a still picture, on all times alike."""
    aligned = aligner()
    change = aligned(clips().sync, clips().semantic) - aligned(clips().sync, torch.zeros(8, SEMANTIC))
    assert change.abs().amax(-1).min() > 1e-4
    still = aligned(torch.ones(8, 200, SYNC), clips().semantic).view(8, ROWS, COLUMNS, WIDTH)[
        :, :, 1:-1
    ]  # not the edges
    torch.testing.assert_close(still, still[:, :1, :1].expand_as(still), atol=1e-5, rtol=1e-4)


@given(st.integers(1, 300), st.integers(1, 80))
def test_pooling_equals_the_built_in_one(frames, columns):
    x = torch.randn(2, 3, frames, generator=torch.Generator().manual_seed(frames * 100 + columns))
    torch.testing.assert_close(
        adaptive_average_pool(x, columns), F.adaptive_avg_pool1d(x, columns), atol=1e-5, rtol=1e-5
    )


times = st.lists(st.integers(0, 400).map(lambda tick: tick / 25), min_size=1, max_size=60)


@given(feature_s=times, column_s=times)
def test_pooling_by_time_is_linear_between_the_nearest_features(feature_s, column_s):
    """Features of one time count as their mean; beyond the first and the last time these are held."""
    features = np.random.default_rng(len(feature_s)).normal(size=len(feature_s))
    pooling = pooling_by_time(feature_s, column_s).double().numpy()
    assert pooling.shape == (len(feature_s), len(column_s))
    assert pooling.min() >= 0
    np.testing.assert_allclose(pooling.sum(0), 1.0, atol=1e-6)
    means = {at: features[np.equal(feature_s, at)].mean() for at in sorted(set(feature_s))}
    found = features @ pooling
    np.testing.assert_allclose(found, np.interp(column_s, list(means), list(means.values())), atol=1e-5)
    for column, at in enumerate(column_s):
        if at in means:
            assert set(np.flatnonzero(pooling[:, column])) == set(np.flatnonzero(np.equal(feature_s, at)))
            assert found[column] == pytest.approx(means[at], abs=1e-5)
    # Alike, in whatever order the features come.
    order = np.random.default_rng(0).permutation(len(feature_s))
    shuffled = pooling_by_time([feature_s[one] for one in order], column_s).double().numpy()
    np.testing.assert_allclose(shuffled, pooling[order], atol=1e-6)


def test_pooling_by_time_by_hand():
    pooling = pooling_by_time([1.0, 3.0, 1.0, 2.0], [0.5, 1.0, 1.25, 2.0, 2.9, 3.0, 7.0])
    expected = [
        [0.5, 0.5, 0.375, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.9, 1.0, 1.0],
        [0.5, 0.5, 0.375, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.25, 1.0, 0.1, 0.0, 0.0],
    ]
    torch.testing.assert_close(pooling, torch.tensor(expected))


def test_pooling_by_time_of_equal_times_is_not_split_by_rounding():
    """0.1 + 0.2 is not 0.3 in floating point."""
    pooling = pooling_by_time([0.1 + 0.2, 0.3, 1.0], [0.3])
    torch.testing.assert_close(pooling, torch.tensor([[0.5], [0.5], [0.0]]))


@torch.inference_mode()
def test_alignment_by_time_looks_where_the_time_is():
    """A feature late in the sequence but early in time reaches the early columns."""
    feature_s = [3.0, 4.0, 0.0, 1.0, 2.0]
    aligned = aligner(pooling=pooling_by_time(feature_s, [0.0, 1.0, 2.0, 3.0, 4.0]))
    aligned.project = torch.nn.Conv1d(SYNC, WIDTH, 1)  # without its view of the neighbours in the sequence
    sync, semantic = torch.zeros(1, 5, SYNC), torch.zeros(1, SEMANTIC)
    event = sync.clone()
    event[:, 2] = 1.0
    moved = (aligned(event, semantic) - aligned(sync, semantic)).abs().amax(-1).view(ROWS, COLUMNS)
    assert (moved[:, 0] > 1e-4).all()
    assert (moved[:, 1:] == 0).all()


@pytest.mark.parametrize("alignment", ["index", "time"])
@pytest.mark.parametrize("profile", ["mini", "mini_1d"])
def test_the_setting_decides_by_what_features_and_columns_meet(profile, alignment):
    params = Params.load(ROOT / "params.yaml", profile)
    control = params.control.model_copy(update={"alignment": alignment})
    with torch.device("meta"):
        made = build_control(build_backbone(params), params.model_copy(update={"control": control}))
    assert "aligner.pooling" not in made.state_dict(), "it follows from the settings, whatever the weights"
    pooling, columns = made.aligner.pooling, params.grid.columns
    if alignment == "index":
        assert pooling is None
        return
    features_s = np.array(params.sync_features_s)
    assert pooling.shape == (len(features_s), columns)
    middles_s = (np.arange(columns) + 0.5) * params.grid.step / params.audio.sample_rate
    np.testing.assert_allclose(
        features_s @ pooling.numpy(), middles_s.clip(features_s.min(), features_s.max()), atol=1e-4
    )


def test_a_branch_aligned_by_time_learns_and_starts_silent():
    backbone, _ = make()
    settings = ControlSettings(depth=2, aligner_mlp_width=24, alignment="time")
    pooling = pooling_by_time([0.1 * frame for frame in range(FRAMES)], [0.5 * column for column in range(COLUMNS)])
    control = ControlBranch(backbone, settings, sync_width=SYNC, semantic_width=SEMANTIC, pooling=pooling)
    plain, steered = outputs(backbone, control)
    assert torch.equal(plain, steered)
    train(backbone, control, 2)
    assert not torch.allclose(outputs(backbone, control)[1], outputs(backbone, control, video=-3.0)[1], atol=1e-5)
    assert torch.equal(control.aligner.pooling, pooling)


# The paper's sizes (section 4.1; 10 s of Synchformer and CLIP features, CLAP of 512).
PAPER_BACKBONE = BackboneSettings(kind="specmaskgit", depth=24, width=768, heads=12, mlp_width=3072)
PAPER_CONTROL = ControlSettings(depth=12, aligner_mlp_width=4096)


def paper() -> tuple[SpecMaskGIT, ControlBranch]:
    backbone = SpecMaskGIT(PAPER_BACKBONE, grid=TokenGrid(5, 53, 4096), codes=1024, prompt_width=512)
    control = ControlBranch(backbone, PAPER_CONTROL, sync_width=768, semantic_width=1024)
    return backbone, control


def test_parameter_counts_of_the_paper():
    with torch.device("meta"):
        backbone, control = paper()
    branch = sum(p.numel() for p in control.parameters())
    assert branch == 125_960_448
    assert sum(p.numel() for p in backbone.parameters()) + branch == pytest.approx(298e6, abs=0.5e6)
    assert 1 + len(control.zero_out) == 13


@pytest.mark.official
def test_one_training_step_and_one_sampling_run_at_the_papers_size():
    """In half precision, where the processor has it: without, it takes ten minutes."""
    torch.manual_seed(0)
    backbone, control = paper()
    one = TokenClips(
        ids=["clip"],
        tokens=torch.randint(1024, (1, 265), dtype=torch.int16),
        prompt=F.normalize(torch.randn(1, 512), dim=-1),
        sync=torch.randn(1, 240, 768),
        semantic=torch.randn(1, 1024),
    )
    objective = ControlObjective(
        backbone, control, one, prompt_dropout=0.9, device=torch.device("cpu"), precision="auto"
    )
    optimizer = torch.optim.SGD(objective.groups()["model"], lr=0.1)
    generator = torch.Generator().manual_seed(0)
    loss, _ = objective.loss("model", {**one.columns(), **objective.draw(1, 0, generator)}, 0, generator)
    assert loss.item() == pytest.approx(np.log(1024), rel=0.1)
    loss.backward()
    assert all(p.grad is not None for p in control.zero_out.parameters())
    assert all(p.grad is None for p in backbone.parameters())
    optimizer.step()
    assert all(zero.weight.abs().max() > 0 for zero in control.zero_out)

    tokens = sample_tokens(
        backbone.eval(),
        control.eval(),
        Condition(prompt=one.prompt, sync=one.sync, semantic=one.semantic),
        plan=guidance_plan("multi", [2], 3.0),
        settings=Sample(steps=2, gumbel_temperature=9.0, batch_size=1, videos=0),
        seeds=[0],
        precision="auto",
    )
    assert tokens.shape == (1, 265)
    assert tokens.min() >= 0
    assert tokens.max() < 1024
    assert len(tokens.unique()) > 50
