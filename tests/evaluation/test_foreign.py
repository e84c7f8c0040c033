"""Judges that were trained here say what they cannot judge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.small_judges import RATE, SECONDS, make_place
from typer.testing import CliRunner

from specmaskfoley.clips.world import render_clip
from specmaskfoley.commands.main import app
from specmaskfoley.evaluation.foreign import FAR, distance_ratio, foreign
from specmaskfoley.media.writing import write_audio
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import USABLE_SCHEMA, write_table


def test_the_ratio_is_one_for_one_kind_and_grows_with_the_distance() -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(size=(200, 50))
    assert distance_ratio(rng.normal(size=(100, 50)), known) == pytest.approx(1, abs=0.1)
    assert distance_ratio(known, known) == pytest.approx(0, abs=1e-6)
    assert 2 < distance_ratio(rng.normal(size=(100, 50)) + 3, known) < distance_ratio(known + 9, known)


def write_world(folder: Path, split: str, count: int) -> list[Path]:
    """Sounds of the procedural world."""
    folder.mkdir(parents=True)
    paths = [folder / f"{split}-{number:03d}.flac" for number in range(count)]
    for number, path in enumerate(paths):
        clip = render_clip(seed=0, split=split, index=number, duration_s=SECONDS, fps=2, sample_rate=RATE)
        write_audio(path, clip.waveform, RATE)
    return paths


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that knows sounds of the procedural world."""
    root = tmp_path_factory.mktemp("place")
    params = make_place(root)
    rows = [
        {"clip_id": path.stem, "path": f"clips/{path.name}", "label": "", "split": "train", "source": "world",
         "state": "ready", "reason": ""}
        for path in write_world(root / "clips", "train", 120)
    ]  # fmt: skip
    write_table(root / params.paths.usable, rows, USABLE_SCHEMA)
    return root


def judged(place: Path, reference: Path, out: Path) -> tuple[dict, str]:
    arguments = ["evaluate", "--params", place / "params.yaml", "--reference", reference]
    arguments += ["--generated", f"one={reference}", "--generated", f"two={reference}", "--out", out]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return json.loads((out / "clips.json").read_text()), result.stdout


def test_sounds_like_those_of_the_project_are_ranked(place: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_world(tmp_path / "new", "test", 36)
    clips, told = judged(place, tmp_path / "new", tmp_path / "out")
    assert (clips["warnings"], clips["ranked"]) == ([], True)
    assert "warning" not in told
    assert "**" in told


def test_sounds_of_another_kind_are_not_and_why_is_told(place: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rumble").mkdir()
    rng = np.random.default_rng(0)
    for number in range(32):
        rumble = np.cumsum(rng.normal(size=round(RATE * SECONDS)))
        rumble *= 0.3 / np.abs(rumble).max()
        write_audio(tmp_path / "rumble" / f"{number:02d}.flac", rumble.astype(np.float32), RATE)
    clips, told = judged(place, tmp_path / "rumble", tmp_path / "out")
    assert not clips["ranked"]
    assert clips["warnings"][0].startswith("The judges of profile mini were trained on other sounds: these lie")
    assert f"warning: {clips['warnings'][0]}" in told
    assert "**" not in told


def test_without_clips_to_compare_with_it_says_so(place: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "dvc pull" in foreign(write_world(tmp_path / "new", "test", 2), Params.load(place / "params.yaml"))


@pytest.mark.official
def test_real_clips_are_foreign_to_judges_of_the_world(place: Path, clips: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(place)
    params, real = Params.load("params.yaml"), sorted(clips.glob("*.mp4"))
    assert f"(limit {FAR:g})" in foreign(real, params)
    assert foreign(write_world(tmp_path / "new", "test", 12), params) == ""  # one of each class
