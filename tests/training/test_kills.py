"""Trainings that are killed, terminated or resumed from a damaged checkpoint give the undisturbed run's weights."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from helpers.forks import FORKS, Fork

KILLS, STEPS = 20, 400

# A small backbone on tokens made up; `python script FOLDER` trains it and leaves its weights in FOLDER/done.pt.
TRAINING = f"""
import sys
from pathlib import Path
import torch
sys.path.insert(0, {str(ROOT / "tests")!r})
from specmaskfoley.settings import SpecMaskGIT as Settings, TokenGrid, Training
from specmaskfoley.backbone.specmaskgit.network import SpecMaskGIT
from helpers.fitting import fit_on_cpu
from specmaskfoley.backbone.objective import BackboneObjective, TokenClips

def clips(count, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(16, (count, 20), generator=generator, dtype=torch.int16)
    return TokenClips([f"clip{{n}}" for n in range(count)], tokens, torch.randn(count, 4, generator=generator))

torch.set_num_threads(1)
torch.manual_seed(0)
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
sizes = Settings(kind="specmaskgit", depth=2, width=32, heads=2, mlp_width=64)
backbone = SpecMaskGIT(sizes, grid=TokenGrid(2, 10, 1), codes=16, prompt_width=4)
train = clips(50, 1)
objective = BackboneObjective(backbone, clips(8, 2), prompt_dropout=0.3, device=torch.device("cpu"))
settings = Training(
    steps={STEPS}, batch_size=8, base_learning_rate=0.03, warmup_steps=9, weight_decay=0.01, grad_clip=1.0,
    checkpoint_every=7, validate_every=50,
)
history = fit_on_cpu(objective, train.rows(), settings, name="backbone", scratch=folder)
torch.save({{"weights": backbone.state_dict(), "curves": history.curves}}, folder / "done.pt")
"""


def start(folder: Path) -> Fork | subprocess.Popen[bytes]:
    """The training; what it prints is in FOLDER.txt."""
    script = folder.with_name(f"{folder.name}.py")
    script.write_text(TRAINING, encoding="utf-8")
    with told(folder).open("wb") as output:
        return FORKS.start([str(script), str(folder)], folder.parent, os.environ, output.fileno())


def told(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.txt")


def finish(folder: Path) -> str:
    assert start(folder).wait() == 0
    return told(folder).read_text(encoding="utf-8")


def states(folder: Path) -> list[Path]:
    return sorted(folder.glob("backbone-????????.pt"))


def wait_for_a_state_after(folder: Path, step: int, process: Fork | subprocess.Popen[bytes]) -> None:
    while not any(int(path.stem[-8:]) > step for path in states(folder)):
        assert process.poll() is None, "over too early"
        time.sleep(0.002)


def steps_done(folder: Path) -> int:
    return max((int(path.stem[-8:]) for path in states(folder)), default=0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(folder)
    return torch.load(folder / "done.pt", weights_only=True)


def assert_the_same(folder: Path, undisturbed: dict) -> None:
    found = torch.load(folder / "done.pt", weights_only=True)
    assert found["curves"] == undisturbed["curves"]
    for name, value in undisturbed["weights"].items():
        assert torch.equal(found["weights"][name], value), name


@pytest.mark.kill
def test_twenty_kills_change_no_bit(tmp_path, undisturbed):
    moments, log = random.Random(0), []
    for _ in range(KILLS):
        with start(tmp_path) as process:
            wait_for_a_state_after(tmp_path, steps_done(tmp_path), process)
            time.sleep(moments.uniform(0, 0.08))
            process.kill()
        log.append(steps_done(tmp_path))
    print(f"steps done at the kills: {log}")
    assert log[-1] < STEPS, "killed too late to show anything"
    assert f"going on from step {log[-1]}" in finish(tmp_path)
    assert_the_same(tmp_path, undisturbed)
    assert len(states(tmp_path)) == 2


@pytest.mark.kill
@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM of POSIX")
def test_sigterm_writes_a_checkpoint_of_the_step_at_hand(tmp_path, undisturbed):
    with start(tmp_path) as process:
        wait_for_a_state_after(tmp_path, 0, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
    done = steps_done(tmp_path)
    assert f"backbone: terminated after step {done}; `dvc repro` goes on from there" in told(tmp_path).read_text(
        encoding="utf-8"
    )
    assert f"going on from step {done}" in finish(tmp_path)
    assert_the_same(tmp_path, undisturbed)


@pytest.mark.kill
def test_a_damaged_checkpoint_costs_some_steps_and_no_bit(tmp_path, undisturbed):
    with start(tmp_path) as process:
        wait_for_a_state_after(tmp_path, 7, process)
        process.kill()
    before, newest = states(tmp_path)
    newest.write_bytes(newest.read_bytes()[:1000])
    output = finish(tmp_path)
    assert f"{newest}: damaged checkpoint" in output
    assert f"going on from step {int(before.stem[-8:])}" in output
    assert_the_same(tmp_path, undisturbed)


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    torch.save({"step": 7, "modules": {"other": torch.zeros(1)}, "optimizers": {}, "curves": {}, "best": 0.0},
               tmp_path / "backbone-00000007.pt")  # fmt: skip
    assert start(tmp_path).wait() == 1
    assert "backbone-00000007.pt: the checkpoint of another model" in told(tmp_path).read_text(encoding="utf-8")
