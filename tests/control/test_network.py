"""The control branch: silent when new, steering once trained; the aligner's time axis; the paper's sizes.

Shape letters: B batch, F token rows, T token columns, N = F * T, D width, t video frames.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from specmaskfoley.backbone.network import Backbone
from specmaskfoley.backbone.objective import TokenClips
from specmaskfoley.control.network import ControlBranch, FTAligner, adaptive_average_pool
from specmaskfoley.control.objective import ControlObjective
from specmaskfoley.sampling.guidance import Condition
from specmaskfoley.sampling.reference import sample_tokens
from specmaskfoley.settings import Backbone as BackboneSettings
from specmaskfoley.settings import Control as ControlSettings
from specmaskfoley.settings import Sample

ROWS, COLUMNS, CODES, WIDTH = 2, 5, 11, 16
FRAMES, SYNC, SEMANTIC, PROMPT = 23, 7, 9, 6


def make(seed: int = 0) -> tuple[Backbone, ControlBranch]:
    torch.manual_seed(seed)
    settings = BackboneSettings(depth=3, width=WIDTH, heads=2, mlp_width=32)
    backbone = Backbone(settings, codebook_size=CODES, num_tokens=ROWS * COLUMNS, prompt_width=PROMPT)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    control = ControlBranch(
        backbone,
        ControlSettings(depth=2, aligner_mlp_width=24),
        sync_width=SYNC,
        semantic_width=SEMANTIC,
        token_rows=ROWS,
        token_columns=COLUMNS,
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


def train(backbone: Backbone, control: ControlBranch, steps: int) -> ControlObjective:
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


def outputs(backbone: Backbone, control: ControlBranch, video: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits without and with the branch, the video features multiplied by `video`."""
    data = clips()
    masked = torch.arange(ROWS * COLUMNS).expand(8, -1) % 3 > 0
    with torch.inference_mode():
        x = backbone.embed(data.tokens.long(), masked, data.prompt, torch.ones(8, dtype=torch.bool))
        return backbone(x), backbone(x, control(x, control.align(video * data.sync, video * data.semantic)))


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
    control = ControlBranch(
        backbone, settings, sync_width=SYNC, semantic_width=SEMANTIC, token_rows=ROWS, token_columns=COLUMNS
    )
    assert all(p.requires_grad for p in control.parameters())


def aligner() -> FTAligner:
    torch.manual_seed(0)
    return FTAligner(
        width=WIDTH, sync_width=SYNC, semantic_width=SEMANTIC, mlp_width=24, token_rows=ROWS, token_columns=COLUMNS
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


# The paper's sizes (section 4.1; 10 s of Synchformer and CLIP features, CLAP of 512).
PAPER_BACKBONE = BackboneSettings(depth=24, width=768, heads=12, mlp_width=3072)
PAPER_CONTROL = ControlSettings(depth=12, aligner_mlp_width=4096)


def paper() -> tuple[Backbone, ControlBranch]:
    backbone = Backbone(PAPER_BACKBONE, codebook_size=1024, num_tokens=265, prompt_width=512)
    control = ControlBranch(
        backbone, PAPER_CONTROL, sync_width=768, semantic_width=1024, token_rows=5, token_columns=53
    )
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
        backbone, control, one, prompt_dropout=0.9, device=torch.device("cpu"), precision="bfloat16"
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
        mode="multi",
        scale=3.0,
        settings=Sample(steps=2, gumbel_temperature=9.0, batch_size=1, videos=0),
        seeds=[0],
        precision="bfloat16",
    )
    assert tokens.shape == (1, 265)
    assert tokens.min() >= 0
    assert tokens.max() < 1024
    assert len(tokens.unique()) > 50
