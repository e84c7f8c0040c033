"""`specmaskfoley generate` with a model of the profile mini_1d, and with one whose prompts are words alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.shared import made_once
from helpers.untrained import shrink_waveform, write_noise, write_untrained
from helpers.worded import write_worded
from typer.testing import CliRunner, Result

from specmaskfoley.commands.main import app


@pytest.fixture(scope="module")
def model_1d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "model-1d", lambda folder: write_untrained(folder, shrink_waveform))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("clip") / "clip.mp4", 2.4)


def generate(model: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["generate", "--model", str(model), *map(str, arguments)])


def test_a_sound_its_record_and_what_is_there_already(model_1d: Path, clip: Path, tmp_path: Path):
    out = tmp_path / "out"
    given = (clip, "--out", out, "--text", "0-1: rain falling; 1-2: playing drum", "--negative", "engine running")
    result = generate(model_1d, *given, "--seed", 2)
    assert result.exit_code == 0, result.output
    sound, rate = soundfile.read(out / "clip.flac")
    assert (len(sound) / rate, rate) == (pytest.approx(2.4, abs=1e-3), 22050)
    result = generate(model_1d, *given, "--seed", 2, "--skip-existing")
    assert "made already" in result.output
    result = generate(model_1d, *given, "--seed", 2, "--steps", 3, "--skip-existing")  # 3 and thrice 1
    assert "made already" not in result.output
    assert json.loads((out / "clip.json").read_text(encoding="utf-8"))["history"][0]["sampling"]["steps"] == 3


def test_a_record_is_remade_to_the_bit(model_1d: Path, clip: Path, tmp_path: Path):
    for number, more in enumerate((["--text", "rain falling"], ["--only", "0.5-1.1"])):
        first, again = tmp_path / f"first-{number}", tmp_path / f"again-{number}"
        result = generate(model_1d, clip, "--out", first, *more)
        assert result.exit_code == 0, result.output
        result = generate(model_1d, clip, "--out", again, "--record", first / "clip.json")
        assert result.exit_code == 0, result.output
        assert np.array_equal(soundfile.read(first / "clip.flac")[0], soundfile.read(again / "clip.flac")[0])


def test_words_alone(model_1d: Path, tmp_path: Path):
    result = generate(model_1d, "--duration", 3, "--text", "rain falling", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert soundfile.info(tmp_path / "rain-falling.flac").duration == pytest.approx(3.0, abs=1e-3)


def test_codebooks_are_no_bands(model_1d: Path, clip: Path, tmp_path: Path):
    result = generate(model_1d, clip, "--out", tmp_path / "out", "--extend-band", 4000)
    assert result.exit_code == 2
    assert "error: --extend-band 4000 (hz): the tokens of codec.kind=encodec are no bands" in result.output
    assert "take a model whose codec is specvqgan" in result.output


# ---- a model with T5 ----


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return made_once(tmp_path_factory, "model-worded", write_worded)


def test_a_sound_to_be_like_is_refused_before_anything_is_loaded_or_written(worded: Path, clip: Path, tmp_path: Path):
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(worded, model, ignore=shutil.ignore_patterns("weights"))  # so that nothing can be loaded
    for more in ([clip], ["--duration", 2]):
        result = generate(model, *more, "--like", tmp_path / "no.wav", "--out", out)
        assert result.exit_code == 2
        assert result.output.startswith(f"error: like={tmp_path / 'no.wav'}: this model's prompts are words alone")
        assert result.output.count("\n") == 1
        assert not out.exists()
    table = tmp_path / "table.csv"
    table.write_text(f"video,like\n{clip},{clip}\n", encoding="utf-8")
    result = generate(model, "--prompts", table, "--out", out)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1, result.output
    assert not out.exists()


def test_of_a_table_only_the_rows_with_such_a_sound_are_refused(worded: Path, clip: Path, tmp_path: Path, monkeypatch):
    from specmaskfoley.encoders.trained import PROMPT

    monkeypatch.setitem(PROMPT.kinds, "t5", "helpers.worded:OneLayerT5")
    table, out = tmp_path / "table.csv", tmp_path / "out"
    table.write_text(f"video,text,like\n{clip},,{clip}\n{clip},rain,\n", encoding="utf-8")
    result = generate(worded, "--prompts", table, "--out", out)
    assert result.exit_code == 1, result.output
    errors = [line for line in result.output.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert f"row 2: clip.mp4: like={clip}: this model's prompts are words alone" in errors[0]
    assert len(list(out.glob("*.flac"))) == 1
