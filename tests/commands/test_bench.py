"""`specmaskfoley bench`: every part is timed, and the numbers add up."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from helpers import ROOT
from helpers.stage_calls import call_command
from helpers.tiny import Project

from specmaskfoley.commands.bench import PARTS, bench
from specmaskfoley.device import precision_name
from specmaskfoley.settings import Params

PRECISION = precision_name("auto", torch.device("cpu"))
RAW = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def test_new_networks_are_timed_without_any_file(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = bench(Params.from_mapping(RAW), torch.device("cpu"), [], runs=3, trained=False, out=Path("bench.json"))
    found = json.loads(Path("bench.json").read_text())
    assert found["runs"] == 3
    assert (found["mode"], found["steps"], found["batch"], found["precision"]) == ("multi", 12, 1, PRECISION)
    assert found["seconds"] == found["seconds_per_clip"]
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


def test_mode_steps_and_batch_are_chosen_and_named(project: Project, tmp_path: Path):
    out = tmp_path / "bench.json"
    given = ["--runs", "1", "--mode", "text", "--steps", "3", "--batch", "2", "--out", str(out)]
    code, output = call_command(project.root, "bench", *given)
    assert code == 0, output
    said = rf"mini: [\d.]+ s of sound, text, 3 steps, batch 2, {PRECISION}, cpu \(\d+ threads\), 1 runs\n"
    assert re.match(said, output)
    found = json.loads(out.read_text())
    assert (found["mode"], found["steps"], found["batch"]) == ("text", 3, 2)
    for name, row in found["seconds"].items():
        assert found["seconds_per_clip"][name]["median"] == pytest.approx(row["median"] / 2, abs=1e-4)


def test_an_unknown_mode_is_one_line(project: Project):
    code, output = call_command(project.root, "bench", "--untrained", "--mode", "vidio")
    assert code == 2
    assert "mode='vidio'" in output
    assert "no_text_video" in output


def test_the_mode_and_the_steps_decide_how_much_is_sampled(tmp_path: Path, monkeypatch):
    """The backbone alone, in fewer steps, is faster by more than any noise of the clock."""
    monkeypatch.chdir(tmp_path)
    params = Params.from_mapping(RAW)
    medians = []
    for mode, steps in (("multi", 24), ("text", 1)):
        sampling = params.sampling.changed(mode=mode, steps=steps)
        bench(params, torch.device("cpu"), [], runs=3, sampling=sampling, trained=False, out=Path("bench.json"))
        medians.append(json.loads(Path("bench.json").read_text())["seconds"]["sample"]["median"])
    assert medians[0] > 3 * medians[1]


def test_without_models_it_is_one_line(project: Project, tmp_path: Path):
    copy = project.copy(tmp_path / "copy")
    copy.path("data", "backbone.safetensors").unlink()
    code, output = call_command(copy.root, "bench")
    assert code == 2
    assert "backbone.safetensors" in output
    assert "Traceback" not in output
