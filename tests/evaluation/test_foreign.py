"""Judges that were trained here say what they cannot judge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.small_judges import RATE, SECONDS, make_place, write_clip, write_sound
from typer.testing import CliRunner

from specmaskfoley.commands.main import app
from specmaskfoley.evaluation.foreign import APART, share_apart
from specmaskfoley.media.writing import write_audio
from specmaskfoley.storage.tables import USABLE_SCHEMA, write_table


def test_sounds_of_one_kind_lie_together_and_others_apart() -> None:
    rng = np.random.default_rng(0)
    own = rng.normal(size=(72, 96))
    assert share_apart(rng.normal(size=(500, 96)), own) < 0.15  # more than APART: these did not set the limit
    assert share_apart(own[:20], own) == 0
    assert share_apart(rng.normal(size=(20, 96)) + 1.5, own) == 1
    assert share_apart(rng.normal(size=(20, 96)) * 2, own) == 1
    assert APART < 0.15


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose test split is noise in bursts."""
    root = tmp_path_factory.mktemp("place")
    params = make_place(root)
    rows = []
    for number in range(40):
        clip = f"test-{number:02d}"
        write_clip(root / "clips" / f"{clip}.mp4", number)
        rows.append({"clip_id": clip, "path": f"clips/{clip}.mp4", "label": "noise", "split": "test",
                     "source": "world", "state": "ready", "reason": ""})  # fmt: skip
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
    for number in range(32):
        write_sound(tmp_path / "new" / f"{number:02d}.flac", 500 + number)
    clips, told = judged(place, tmp_path / "new", tmp_path / "out")
    assert (clips["warnings"], clips["ranked"]) == ([], True)
    assert "warning" not in told
    assert "**" in told


def test_sounds_of_another_kind_are_not_and_why_is_told(place: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tones").mkdir()
    time = np.arange(round(RATE * SECONDS)) / RATE
    for number in range(32):
        tone = 0.3 * np.sin(2 * np.pi * (200 + 30 * number) * time)
        write_audio(tmp_path / "tones" / f"{number:02d}.flac", tone.astype(np.float32), RATE)
    clips, told = judged(place, tmp_path / "tones", tmp_path / "out")
    assert not clips["ranked"]
    assert clips["warnings"][0].startswith("The judges of profile mini were trained on other sounds: 100%")
    assert f"warning: {clips['warnings'][0]}" in told
    assert "**" not in told
