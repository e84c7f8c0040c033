"""`specmaskfoley bench`: every part is timed, and the numbers add up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from helpers import ROOT
from helpers.stage_calls import call_command
from helpers.tiny import Project

from specmaskfoley.commands.bench import PARTS, bench
from specmaskfoley.settings import Params

RAW = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def test_new_networks_are_timed_without_any_file(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = bench(Params.from_mapping(RAW), torch.device("cpu"), [], runs=3, trained=False, out=Path("bench.json"))
    found = json.loads(Path("bench.json").read_text())
    assert found["runs"] == 3
    assert set(found["seconds"]) == {"sample", "vocode", "generate"}
    for row in found["seconds"].values():
        assert 0 < row["median"] <= row["p95"]
    assert any(line.startswith("features to waveform") for line in lines)


def test_the_command_times_the_whole_way(project: Project, tmp_path: Path):
    code, output = call_command(project.root, "bench", "--runs", "2", "--out", str(tmp_path / "bench.json"))
    assert code == 0, output
    seconds = json.loads((tmp_path / "bench.json").read_text())["seconds"]
    assert set(seconds) == {*PARTS, "generate", "total"}
    # The median of two is their mean, so that sums and medians change places.
    assert seconds["total"]["median"] == pytest.approx(sum(seconds[part]["median"] for part in PARTS), abs=1e-3)
    assert "file to file" in output


def test_without_models_it_is_one_line(project: Project, tmp_path: Path):
    copy = project.copy(tmp_path / "copy")
    copy.path("data", "backbone.safetensors").unlink()
    code, output = call_command(copy.root, "bench")
    assert code == 2
    assert "backbone.safetensors" in output
    assert "Traceback" not in output
