"""What `dvc repro` trained makes sound, as a project and as an exported folder; the command itself: tests/foley."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.stage_calls import call_command
from helpers.tiny import Project
from helpers.untrained import write_noise

from specmaskfoley.foley import Foley


def test_the_trained_model_as_a_project_as_a_folder_and_from_python(project: Project, tmp_path: Path):
    video = write_noise(tmp_path / "clip.mp4", 3.0)
    code, output = call_command(project.root, "export", str(tmp_path / "model"))
    assert code == 0, output
    for name, model in (("project", []), ("folder", ["--model", str(tmp_path / "model")])):
        options = ["--out", str(tmp_path / name), "--text", "playing drum", "--seed", "1"]
        code, output = call_command(project.root, "generate", str(video), *options, *model)
        assert code == 0, output
    sounds = [(tmp_path / name / "clip.flac").read_bytes() for name in ("project", "folder")]
    assert sounds[0] == sounds[1]
    take = Foley.load(tmp_path / "model").generate(video, text="playing drum", seed=1)[0]
    assert soundfile.read(take.save(tmp_path / "python").audio)[0] == pytest.approx(
        soundfile.read(tmp_path / "project" / "clip.flac")[0], abs=1e-3
    )
    assert np.abs(take.waveform).max() > 0


def test_mistakes_in_the_arguments_are_one_line(project: Project, tmp_path: Path):
    code, output = call_command(project.root, "generate", str(tmp_path / "gone.mp4"), "--out", str(tmp_path / "out"))
    assert code == 2
    assert output.splitlines() == [f"error: {tmp_path / 'gone.mp4'}: no such file or folder"]
