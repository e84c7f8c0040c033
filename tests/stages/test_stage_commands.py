"""Training stages as their own commands: a dry run, several processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import Project
from helpers.untrained import shrink_waveform
from safetensors.torch import load_file


def test_a_dry_run_says_what_a_training_needs_and_changes_nothing(project, tmp_path):
    mine = project.copy(tmp_path / "mine")
    before = {path: path.read_bytes() for path in mine.path("data").glob("*.safetensors")}
    code, told = mine.stage("control", "--dry-run")
    assert code == 0
    assert "control: peak" in told
    assert "60 steps of" in told
    assert {path: path.read_bytes() for path in mine.path("data").glob("*.safetensors")} == before
    assert "control/loss" not in told


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun with gloo")
def test_a_stage_starts_itself_in_several_processes(project, tmp_path):
    """Started by run.launch, with the same network as one process made, up to the order of sums."""
    made = []
    for launch in (None, "torchrun --standalone --nproc-per-node 2"):
        # In float32: rounded to bfloat16, sums in another order differ by more.
        mine = Project(_copy(project, tmp_path / str(launch), {"launch": launch, "precision": "float32"}))
        code, told = mine.stage("control")
        assert code == 0, told
        made.append(load_file(mine.path("data", "control.safetensors")))
    assert_same_weights(*made)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun with gloo")
def test_a_backbone_of_several_codebooks_trains_in_several_processes(tmp_path):
    """Of its heads a step gives a gradient to one."""
    project = Project.create(tmp_path / "project", shrink_waveform)
    for stage in ("fetch_weights", "clips", "prepare", "encoders", "features", "codec", "tokens", "audio"):
        code, told = project.stage(stage)
        assert code == 0, told
    made = []
    for launch in (None, "torchrun --standalone --nproc-per-node 2"):
        project.change(lambda params, launch=launch: params["run"].update(launch=launch, precision="float32"))
        code, told = project.stage("backbone")
        assert code == 0, told
        made.append(load_file(project.path("data", "backbone.safetensors")))
    assert_same_weights(*made)


def assert_same_weights(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.linalg.vector_norm(found[name] - value) <= 0.02 * torch.linalg.vector_norm(value) + 1e-4, name


def test_a_launcher_that_does_not_exist_is_one_line(project, tmp_path):
    mine = Project(_copy(project, tmp_path, {"launch": "no-such-launcher --now"}))
    code, told = mine.stage("control")
    assert code == 1
    assert told.startswith("error: run.launch='no-such-launcher --now': cannot be run (No such file or directory)")


def _copy(project: Project, folder: Path, run: dict[str, Any]) -> Path:
    mine = project.copy(folder / "mine")
    mine.change(lambda params: params["run"].update(run))
    return mine.root
