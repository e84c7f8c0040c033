"""The training loop, with a linear regression as the network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fitting import RUN, fit_on_cpu
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from specmaskfoley.settings import Training
from specmaskfoley.training.batches import InMemory, RowOrder
from specmaskfoley.training.loop import learning_rate, step_generator

ROWS = 23
CLIPS = [f"clip{row}" for row in range(ROWS)]


def training(**changes: float) -> Training:
    settings = {
        "steps": 40,
        "batch_size": 8,
        "base_learning_rate": 1.0,
        "warmup_steps": 5,
        "weight_decay": 0.01,
        "grad_clip": 1.0,
        "checkpoint_every": 7,
        "validate_every": 9,
    }
    return Training(**(settings | changes))


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop may catch it."""


class Regression:
    """y = 3 x_0 - x_1 + noise, with a buffer that changes without a gradient; `bad` turns a step's loss into NaN."""

    def __init__(self, killed_at: int | None = None, bad: int | None = None) -> None:
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(ROWS, 2, generator=generator)
        self.y = self.x @ torch.tensor([[3.0], [-1.0]])
        self.model = nn.Linear(2, 1)
        self.modules = nn.ModuleDict({"model": self.model, "average": nn.BatchNorm1d(1, affine=False)})
        self.criterion, self.splits = "error", True
        self.killed_at, self.bad = killed_at, bad
        self.steps: list[int] = []
        self.modes: list[tuple[str, bool, bool]] = []

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"weight": [self.model.weight], "bias": [self.model.bias]}

    def distribute(self, prepare: Callable[..., nn.Module], total: Callable[[Tensor], Tensor]) -> None:
        prepare(self.model)

    def draw(self, size: int, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"noise": 0.1 * torch.randn(size, 1, generator=generator), "share": torch.full((size,), 1 / size)}

    def loss(
        self, group: str, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if step == self.killed_at:
            raise Killed
        self.steps.append(step)
        self.modes.append(("loss", self.modules.training, torch.is_grad_enabled()))
        rows = batch["row"]
        loss = (self.model(self.x[rows]) - self.y[rows] - batch["noise"]).square().mean() * batch["share"].sum()
        if step == self.bad:
            loss = loss * torch.nan
        return loss, {group: loss.detach()}

    def after_step(self, step: int, generator: torch.Generator) -> None:
        self.modules["average"].running_mean += torch.rand(1, generator=generator)

    def validate(self, generator: torch.Generator) -> dict[str, float]:
        self.modes.append(("validate", self.modules.training, torch.is_grad_enabled()))
        noise = 0.1 * torch.randn(ROWS, 1, generator=generator)
        return {"error": float((self.model(self.x) - self.y - noise).abs().mean())}


class Log:
    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []

    def metrics(self, network: str, values: dict[str, float], step: int) -> None:
        self.seen.append((step, dict(values)))


def run(objective: Regression, scratch: Path, settings: Training | None = None, seed: int = 0, **changes: Any):
    return fit_on_cpu(
        objective, InMemory(CLIPS), settings or training(), seed=seed, name="line", scratch=scratch, **changes
    )


def test_training_finds_the_line(tmp_path):
    objective = Regression()
    history = run(objective, tmp_path, training(steps=300, base_learning_rate=2.0))
    torch.testing.assert_close(objective.model.weight.data, torch.tensor([[3.0, -1.0]]), atol=0.1, rtol=0)
    first, last = history.curves["val_error"][0][1], history.last()["val_error"]
    assert last < 0.2 * first


@pytest.mark.parametrize("killed_at", [3, 7, 20, 39])
def test_resume_equals_uninterrupted_bit_for_bit(tmp_path, killed_at):
    straight = Regression()
    history = run(straight, tmp_path / "straight")

    with pytest.raises(Killed):
        run(Regression(killed_at=killed_at), tmp_path / "killed")
    resumed = Regression()
    resumed_history = run(resumed, tmp_path / "killed")

    assert resumed.steps[0] == killed_at // 7 * 7
    assert resumed_history.curves == history.curves
    for name, value in straight.modules.state_dict().items():
        assert torch.equal(value, resumed.modules.state_dict()[name]), name


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = Regression()
    history = run(first, tmp_path)
    again = Regression()
    assert run(again, tmp_path).curves == history.curves
    assert not again.steps
    assert torch.equal(again.model.weight, first.model.weight)


def test_another_seed_takes_other_steps(tmp_path):
    first, second = Regression(), Regression()
    run(first, tmp_path / "0", seed=0)
    run(second, tmp_path / "1", seed=1)
    assert not torch.equal(first.model.weight, second.model.weight)


def test_validation_runs_in_eval_mode_without_gradients(tmp_path):
    objective = Regression()
    run(objective, tmp_path)
    assert set(objective.modes) == {("loss", True, True), ("validate", False, False)}
    assert not objective.modules.training


def test_curves_have_the_steps_that_the_settings_ask_for(tmp_path):
    log = Log()
    history = run(Regression(), tmp_path, training(steps=25), log=log)
    assert [step for step, _ in history.curves["weight"]] == [10, 20, 25]
    assert [step for step, _ in history.curves["val_error"]] == [9, 18, 25]
    logged: dict[str, list[tuple[int, float]]] = {}
    for step, values in log.seen:
        for name, value in values.items():
            logged.setdefault(name, []).append((step, value))
    assert logged == history.curves


def test_nan_names_the_step_its_clips_and_the_last_good_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"line: loss of weight, or its gradient, is not finite at step 16") as caught:
        run(Regression(bad=16), tmp_path)
    assert str(tmp_path / "line-00000014.pt") in str(caught.value)
    batch = RowOrder(np.array([ROWS]), 0).rows(np.arange(16 * 8, 17 * 8))
    assert str(caught.value).endswith(f"The step's clips: {', '.join(f'clip{row}' for row in batch)}")
    state = torch.load(tmp_path / "line-00000014.pt", weights_only=True)
    assert state["step"] == 14
    assert all(torch.isfinite(value).all() for value in state["modules"].values())


def test_nan_before_any_checkpoint_says_so(tmp_path):
    with pytest.raises(ValueError, match="at step 2; there is no checkpoint yet"):
        run(Regression(bad=2), tmp_path)


def test_the_best_state_is_taken_if_asked(tmp_path):
    """With steps far too long, the line gets worse after a while; the checkpoints stay those of the last steps."""
    wild = {"base_learning_rate": 30.0, "validate_every": 2}
    last, best = Regression(), Regression()
    history = run(last, tmp_path / "last", training(**wild))
    assert run(best, tmp_path / "best", training(**wild, result="best")).curves == history.curves
    errors = dict(history.curves["val_error"])
    assert min(errors.values()) < errors[40]

    found = dict(run(best, tmp_path / "best", training(**wild, result="best")).curves["val_error"])
    assert found == errors  # a finished run gives its best state too
    for made, wanted in ((best, min(errors.values())), (last, errors[40])):
        made.modules.eval()
        with torch.no_grad():
            assert made.validate(step_generator(0, 2**31))["error"] == wanted
    assert len(list((tmp_path / "best").glob("line-????????.pt"))) == 2


def test_the_best_state_survives_a_kill(tmp_path):
    settings = training(base_learning_rate=30.0, validate_every=2, result="best")
    straight = Regression()
    run(straight, tmp_path / "straight", settings)
    with pytest.raises(Killed):
        run(Regression(killed_at=37), tmp_path / "killed", settings)
    resumed = Regression()
    run(resumed, tmp_path / "killed", settings)
    assert torch.equal(resumed.model.weight, straight.model.weight)


def test_a_dry_run_measures_and_keeps_nothing(tmp_path, capsys):
    objective, log = Regression(), Log()
    with pytest.raises(SystemExit) as ended:
        run(objective, tmp_path, dry_run=True, log=log)
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert re.search(r"line: .* parameters to train; .* checkpoints up to .* free disk", told)
    assert re.search(r"line: peak .* of main memory; 40 steps of \d+ ms \([\d.]+ clips/s\) will take about", told)
    assert max(objective.steps) == 4
    assert not list(tmp_path.iterdir())
    assert not log.seen


def test_a_disk_too_small_for_the_checkpoints_is_refused_before_the_first_step(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    objective = Regression()
    with pytest.raises(ValueError, match=r"checkpoints of line need .* of disk, 10 B are free"):
        run(objective, tmp_path)
    assert not objective.steps


def test_checkpoints_come_by_the_minute_too(tmp_path):
    run(
        Regression(), tmp_path, training(checkpoint_every=1000), run=RUN.model_copy(update={"checkpoint_minutes": 1e-9})
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["line-00000039.pt", "line-00000040.pt"]


def test_parts_of_a_batch_give_the_same_step(tmp_path):
    whole, parts = Regression(), Regression()
    run(whole, tmp_path / "whole")
    run(parts, tmp_path / "parts", run=RUN.model_copy(update={"micro_batch": 3}))
    torch.testing.assert_close(parts.model.weight, whole.model.weight, rtol=1e-5, atol=1e-6)
    assert len(parts.steps) == 3 * len(whole.steps)


def test_what_cannot_be_spread_is_not(tmp_path):
    class Two:
        num_processes = 2

    objective = Regression()
    objective.splits = False
    with pytest.raises(ValueError, match="cannot be spread over 2 processes"):
        run(objective, tmp_path, accelerator=Two())


def test_gradients_are_clipped(tmp_path):
    class Steep(Regression):
        def loss(self, group, batch, step, generator):
            if group == "bias":  # the weight's step has just been taken
                norms.append(float(self.model.weight.grad.norm()))
            loss, scores = super().loss(group, batch, step, generator)
            return 1e6 * loss, scores

    norms: list[float] = []
    run(Steep(), tmp_path, training(steps=5, grad_clip=0.5))
    assert norms == pytest.approx([0.5] * 5, rel=1e-4)


def test_learning_rate_warms_up_to_the_peak_and_ends_at_zero():
    settings = training(steps=1000, warmup_steps=100, batch_size=64, base_learning_rate=1e-3)
    rates = [learning_rate(settings, step) for step in range(1001)]
    assert rates[0] == pytest.approx(2.5e-4 / 100)
    assert rates[49] == pytest.approx(2.5e-4 / 2)
    assert max(rates) == rates[99] == rates[100] == pytest.approx(2.5e-4)
    assert rates[550] == pytest.approx(1.25e-4)
    assert rates[999] < 1e-9
    assert rates[1000] == 0.0


@given(st.integers(1, 300), st.integers(0, 400))
def test_learning_rate_is_never_above_the_peak_nor_zero_in_training(steps, warmup):
    settings = training(steps=steps, warmup_steps=warmup)
    for step in range(steps):
        assert 0 < learning_rate(settings, step) <= settings.peak_learning_rate


def test_step_generators_follow_from_seed_and_step_alone():
    def drawn(seed: int, step: int) -> tuple[float, ...]:
        return tuple(torch.rand(3, generator=step_generator(seed, step)).tolist())

    expected = {(seed, step): drawn(seed, step) for seed in range(3) for step in range(20)}
    assert len(set(expected.values())) == 60
    for (seed, step), values in reversed(expected.items()):
        torch.manual_seed(step)
        assert drawn(seed, step) == values
