"""Mask reconstruction: which tokens are hidden, which count, and going on after a kill.

Shape letters: n clips, N tokens a clip.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.fitting import RUN, fit_on_cpu
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from specmaskfoley import device
from specmaskfoley.backbone.objective import BackboneObjective, TokenClips
from specmaskfoley.backbone.role import Inputs
from specmaskfoley.backbone.specmaskgit.network import SpecMaskGIT
from specmaskfoley.control.network import ControlBranch
from specmaskfoley.control.objective import ControlObjective
from specmaskfoley.settings import Control as ControlSettings
from specmaskfoley.settings import SpecMaskGIT as BackboneSettings
from specmaskfoley.settings import TokenGrid, Training

ROWS, COLUMNS, CODES, CLIPS = 2, 5, 9, 14
N = ROWS * COLUMNS


class Diary(SpecMaskGIT):
    """A backbone that writes down the masks and prompts it was given."""

    masked: Tensor
    use_prompt: Tensor

    def embed(self, tokens: Tensor, masked: Tensor, prompt: Tensor, use_prompt: Tensor, **others: Any) -> Inputs:
        self.masked, self.use_prompt = masked, use_prompt
        return super().embed(tokens, masked, prompt, use_prompt, **others)


def backbone(std: float = 0.3) -> Diary:
    torch.manual_seed(0)
    settings = BackboneSettings(kind="specmaskgit", depth=2, width=16, heads=2, mlp_width=32)
    made = Diary(settings, grid=TokenGrid(ROWS, COLUMNS, 1), codes=CODES, prompt_width=4)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return made


def clips(count: int = CLIPS) -> TokenClips:
    generator = torch.Generator().manual_seed(1)
    return TokenClips(
        ids=[f"clip{row}" for row in range(count)],
        tokens=torch.randint(CODES, (count, N), generator=generator, dtype=torch.int16),
        prompt=torch.randn(count, 4, generator=generator).half(),
        sync=torch.randn(count, 12, 3, generator=generator).half(),
        semantic=torch.randn(count, 5, generator=generator),
    )


def objective(
    data: TokenClips, network: Diary | None = None, dropout: float = 0.5, **changes: Any
) -> BackboneObjective:
    made = network or backbone()
    return BackboneObjective(made, data, prompt_dropout=dropout, device=torch.device("cpu"), **changes)


def control_objective(data: TokenClips, frozen: Diary | None = None, **changes: Any) -> ControlObjective:
    frozen = frozen or backbone()
    branch = ControlBranch(
        frozen,
        ControlSettings(depth=1, aligner_mlp_width=8),
        sync_width=3,
        semantic_width=5,
    )
    return ControlObjective(frozen, branch, data, prompt_dropout=0.9, device=torch.device("cpu"), **changes)


def loss(made: BackboneObjective, seed: int = 0) -> float:
    generator = torch.Generator().manual_seed(seed)
    batch = {**made.valid.columns(), **made.draw(len(made.valid), 0, generator)}
    return made.loss("model", batch, 0, generator)[0].item()


def random_mask(size: int, num_tokens: int, seed: int) -> Tensor:
    settings = BackboneSettings(kind="specmaskgit", depth=1, width=2, heads=1, mlp_width=2)
    made = SpecMaskGIT(settings, grid=TokenGrid(1, num_tokens, 1), codes=2, prompt_width=1)
    return made.random_mask(size, 0, torch.Generator().manual_seed(seed))


@given(st.integers(1, 8), st.integers(1, 300), st.integers(0, 2**31))
def test_at_least_one_token_is_masked(batch, num_tokens, seed):
    masked = random_mask(batch, num_tokens, seed)
    assert masked.shape == (batch, num_tokens)
    assert masked.dtype == torch.bool
    assert masked.sum(1).min() >= 1


def test_masked_share_is_the_cosine_of_a_uniform_number():
    masked = random_mask(20_000, 200, 0)
    share = masked.float().mean(1)
    assert share.mean().item() == pytest.approx(2 / math.pi, abs=0.01)
    for bound in (0.2, 0.5, 0.8, 0.95):
        # P(cos(pi/2 u) > bound); counting in whole tokens rounds up by half a token on average.
        expected = math.acos(bound) / (math.pi / 2)
        assert (share > bound).float().mean().item() == pytest.approx(expected, abs=0.02)


def test_no_position_is_masked_more_often_than_another():
    often = random_mask(20_000, 50, 0).float().mean(0)
    assert (often - often.mean()).abs().max() < 0.02


def test_only_masked_tokens_count():
    """Two codes that look alike: swapping them where a token is visible changes a target but no input."""
    network = backbone()
    network.tokens.weight.data[1] = network.tokens.weight.data[0]
    alike = clips()
    alike = replace(alike, tokens=alike.tokens.clamp(min=1))  # no code 0 yet
    first = objective(alike, network)
    expected = loss(first)
    masked, ones = network.masked, alike.tokens == 1
    assert (ones & ~masked).any()
    assert (ones & masked).any()

    visible = replace(alike, tokens=torch.where(ones & ~masked, 0, alike.tokens))
    assert loss(objective(visible, network)) == expected
    hidden = replace(alike, tokens=torch.where(ones & masked, 0, alike.tokens))
    assert loss(objective(hidden, network)) != expected


def test_loss_is_the_mean_cross_entropy_of_the_masked_tokens():
    network, data = backbone(), clips()
    found = loss(objective(data, network))
    with torch.no_grad():
        tokens = data.tokens.long()
        x = network.embed(tokens, network.masked, data.prompt.float(), network.use_prompt)
        each = F.cross_entropy(network(x).flatten(0, 1), tokens.flatten(), reduction="none").view(CLIPS, N)
    assert found == pytest.approx(float(each[network.masked].mean()), rel=1e-5)


@pytest.mark.parametrize("control", [False, True])
def test_label_smoothing_spreads_targets_over_all_codes_in_training_only(control):
    network, data = backbone(), clips()
    build = control_objective if control else objective
    made, smooth = (build(data, network, label_smoothing=share) for share in (0.0, 0.1))
    plain, smoothed = loss(made), loss(smooth)
    with torch.no_grad():
        batch = made._on_device({**data.columns(), **made.draw(CLIPS, 0, torch.Generator().manual_seed(0))})
        logits = made.network(batch, 0).log_softmax(-1)
    targets = 0.9 * F.one_hot(batch["tokens"], CODES) + 0.1 / CODES
    each = -(targets * logits).sum(-1)
    assert smoothed == pytest.approx(float(each[batch["masked"]].mean()), rel=1e-5)
    assert smoothed != pytest.approx(plain, rel=1e-3)
    with torch.no_grad():
        scores = [one.validate(torch.Generator().manual_seed(0)) for one in (made, smooth)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(("dropout", "share"), [(0.0, 1.0), (0.9, 0.1), (1.0, 0.0)])
def test_the_prompt_is_dropped_as_often_as_asked(dropout, share):
    network = backbone()
    made = objective(clips(2000), network, dropout)
    loss(made)
    assert float(network.use_prompt.float().mean()) == pytest.approx(share, abs=0.03)


def test_validation_hides_the_same_tokens_at_every_call():
    made = objective(clips(70))
    with torch.no_grad():
        first = made.validate(torch.Generator().manual_seed(0))
        assert made.validate(torch.Generator().manual_seed(0)) == first
        assert made.validate(torch.Generator().manual_seed(1)) != first
    assert 0 <= first["accuracy"] <= 1


def test_a_network_that_knows_nothing_has_the_loss_of_a_guess():
    assert loss(objective(clips(), backbone(std=1e-4))) == pytest.approx(math.log(CODES), rel=1e-3)


class Killed(BaseException):
    pass


def run(made: BackboneObjective, scratch: Path, compiles: str = "never", **changes: Any) -> Any:
    settings = {
        "steps": 12,
        "batch_size": 4,
        "base_learning_rate": 0.5,
        "warmup_steps": 2,
        "weight_decay": 0.01,
        "grad_clip": 1.0,
        "checkpoint_every": 5,
        "validate_every": 4,
    }
    rows, run = made.valid.rows(), RUN.model_copy(update={"compile": compiles})
    return fit_on_cpu(made, rows, Training(**(settings | changes)), name="model", scratch=scratch, run=run)


@pytest.mark.parametrize("make", [objective, control_objective])
def test_resume_equals_uninterrupted(tmp_path, make):
    straight = make(clips())
    history = run(straight, tmp_path / "straight")

    killed = make(clips())
    original = killed.loss

    def dying(group, batch, step, generator):
        if step == 8:
            raise Killed
        return original(group, batch, step, generator)

    killed.loss = dying
    with pytest.raises(Killed):
        run(killed, tmp_path / "killed")
    resumed = make(clips())
    assert run(resumed, tmp_path / "killed").curves == history.curves
    for name, value in straight.modules.state_dict().items():
        assert torch.equal(value, resumed.modules.state_dict()[name]), name


@pytest.mark.parametrize("make", [objective, control_objective])
def test_without_bfloat16_auto_learns_what_float32_does(tmp_path, monkeypatch, make):
    monkeypatch.setattr(device, "fast_bfloat16", lambda _: False)
    expected = run(make(clips(), precision="float32"), tmp_path / "float32")
    assert run(make(clips(), precision="auto"), tmp_path / "auto").curves == expected.curves
    monkeypatch.setattr(device, "fast_bfloat16", lambda _: True)
    half = run(make(clips(), precision="auto"), tmp_path / "bfloat16")
    assert half.curves != expected.curves
    assert half.last()["val_loss"] == pytest.approx(expected.last()["val_loss"], rel=0.02)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_networks_learn_the_same(tmp_path):
    plain = run(control_objective(clips()), tmp_path / "plain")  # which holds the backbone, too
    compiled = run(control_objective(clips()), tmp_path / "compiled", compiles="always")
    for name, points in plain.curves.items():
        assert compiled.curves[name] == [(step, pytest.approx(value, rel=1e-4)) for step, value in points], name


def test_the_backbone_learns_clips_by_heart(tmp_path):
    made = objective(clips(), dropout=0.0)
    history = run(made, tmp_path, steps=150, batch_size=14, base_learning_rate=0.2)
    assert history.last()["val_loss"] < 0.7 * history.curves["val_loss"][0][1]


def test_control_learns_from_video_what_the_backbone_cannot_know(tmp_path):
    """Every clip is one repeated code, told by its video features alone."""
    codes = torch.arange(CLIPS) % CODES
    data = TokenClips(
        ids=[f"clip{row}" for row in range(CLIPS)],
        tokens=codes[:, None].expand(-1, N).to(torch.int16),
        prompt=torch.zeros(CLIPS, 4),
        sync=F.one_hot(codes % 3, 3).float()[:, None].expand(-1, 12, -1).contiguous(),
        semantic=F.one_hot(codes // 3, 5).float(),
    )
    trained = backbone(std=0.1)
    longer = {"steps": 150, "batch_size": 14, "base_learning_rate": 0.5}
    blind = run(objective(data, trained), tmp_path / "backbone", **longer).last()["val_loss"]
    seeing = run(control_objective(data, trained), tmp_path / "control", **longer).last()["val_loss"]
    assert seeing < 0.5 * blind
