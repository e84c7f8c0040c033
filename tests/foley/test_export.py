"""A model as a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import ROOT
from helpers.untrained import write_noise, write_untrained
from typer.testing import CliRunner

from specmaskfoley.clips.world import LABELS
from specmaskfoley.commands.main import app
from specmaskfoley.commands.project import enter
from specmaskfoley.foley import Foley
from specmaskfoley.foley.export import export_model, model_card
from specmaskfoley.report.results import read_folder, write_evaluation
from specmaskfoley.settings import Params
from specmaskfoley.weights.lock import read_lock


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose paths count from its own folder, as those of the real one."""
    folder = write_untrained(tmp_path_factory.mktemp("project"))
    raw = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    raw["paths"] = {name: Path(path).name for name, path in raw["paths"].items()}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    scores, counts = {"specmaskfoley": {"fd": 12.5, "onset_f1": 0.93}}, {"specmaskfoley": {"clips": 72}}
    write_evaluation(folder / raw["paths"]["metrics"], scores, {}, {"clips": 72, "counts": counts})
    return folder


def test_the_exported_folder_makes_the_same_sound_anywhere(project: Path, tmp_path: Path):
    result = CliRunner().invoke(app, ["export", str(tmp_path / "model"), "--params", str(project / "params.yaml")])
    assert result.exit_code == 0, result.output
    moved = shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    suffixes = {path.suffix for path in Path(moved).rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".yaml", ".md", ".txt"}
    video = write_noise(tmp_path / "clip.mp4", 2.5)
    takes = [Foley.load(source).generate(video, candidates=2)[0] for source in (project / "params.yaml", moved)]
    assert np.array_equal(takes[0].waveform, takes[1].waveform)
    assert takes[0].record == takes[1].record


def test_a_model_in_a_hub_s_cache_of_links(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    export_model(project / "params.yaml", tmp_path / "model")
    blobs, snapshot = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "1a2b3c"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in (tmp_path / "model").rglob("*") if path.is_file())):
        link = snapshot / path.relative_to(tmp_path / "model")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.rename(blobs / f"{number:064x}"))
    before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    video = write_noise(tmp_path / "clip.mp4", 1.0)
    assert Foley.load(snapshot).generate(video)
    monkeypatch.chdir(tmp_path)
    enter(Path("cache/snapshots/1a2b3c/params.yaml"))
    assert Path("codec.safetensors").is_file()
    assert {path: path.lstat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == before  # may be read-only


@pytest.mark.parametrize("role", ["codec", "control", "encoders/prompt"])
def test_a_pointer_in_place_of_a_file_is_recognised(project: Path, tmp_path: Path, role: str):
    export_model(project / "params.yaml", tmp_path / "model")
    file = tmp_path / "model" / f"{role}.safetensors"
    file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n")
    with pytest.raises(ValueError, match=rf"{role}.safetensors: is a git-lfs pointer.*git lfs pull.*hf download"):
        Foley.load(tmp_path / "model")
    with pytest.raises(ValueError, match="is a git-lfs pointer"):
        export_model(tmp_path / "model" / "params.yaml", tmp_path / "copy")


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_an_exported_model_has_no_stages_to_run(project: Path, tmp_path: Path, content: bytes | None):
    export_model(project / "params.yaml", tmp_path / "model")
    file = tmp_path / "model" / "codec.safetensors"
    file.unlink()
    if content:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"codec.safetensors: .*get the model again"):
        Foley.load(tmp_path / "model")


def test_the_card_tells_data_metrics_and_licences(project: Path, tmp_path: Path):
    export_model(project / "params.yaml", tmp_path / "model")
    text = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "mit"
    for told in ("procedural audio-visual world", "| SpecMaskFoley |", "12.50", "0.930", "MIT"):
        assert told in text
    assert "steered by a control\nbranch that reads the video." in text, "one sentence"
    for sound in LABELS:
        assert sound in text


@pytest.mark.parametrize("ranked", [True, False])
def test_scores_of_few_clips_mark_no_system_as_best_in_the_card(tmp_path: Path, ranked: bool):
    scores = {"specmaskfoley": {"fad": 1.0}, "backbone_text": {"fad": 2.0}}
    counts = {name: {"clips": 2} for name in scores}
    clips = {"counts": counts, "ranked": ranked, "warnings": [] if ranked else ["2 clips are few."]}
    write_evaluation(tmp_path, scores, {}, clips)
    card = model_card(Params.load(ROOT / "params.yaml"), {}, read_folder(tmp_path), [])
    assert ("**1.00**" in card) == ranked
    assert ("\n2 clips are few.\n" in card) != ranked


def test_an_exported_model_knows_its_sounds(project: Path, tmp_path: Path):
    export_model(project / "params.yaml", tmp_path / "model")
    (tmp_path / "again").mkdir()
    export_model(tmp_path / "model" / "params.yaml", tmp_path / "again")
    for folder in (project, tmp_path / "model", tmp_path / "again"):
        assert Foley.load(folder).knowledge.words == tuple(sorted(LABELS))


def test_the_card_names_licences_of_official_weights():
    params = Params.load("params.yaml", "vggsound")
    lock = read_lock()
    card = model_card(params, {name: lock[name] for name in params.needed_weights()}, None, [])
    assert yaml.safe_load(card.split("---")[1])["license"] == "other"
    assert "NOT for commercial use" in card
    for name in params.needed_weights():
        assert name in card


def test_mistakes_are_one_line(project: Path, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ValueError, match="not an empty folder"):
        export_model(project / "params.yaml", tmp_path / "full")
    copy = Path(shutil.copytree(project, tmp_path / "copy"))
    next(copy.glob("control*")).unlink()
    with pytest.raises(ValueError, match=r"control.*dvc repro"):
        export_model(copy / "params.yaml", tmp_path / "model")
    assert not (tmp_path / "model").exists()
