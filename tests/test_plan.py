"""`specmaskfoley plan`: what a profile will take, before it takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from specmaskfoley.cli import app

ROOT = Path(__file__).parents[1]


def planned(folder: Path, **changes: Any) -> str:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    (folder / "params.yaml").write_text(yaml.safe_dump(raw | changes, sort_keys=False), encoding="utf-8")
    (folder / "weights.lock.yaml").write_text((ROOT / "weights.lock.yaml").read_text(encoding="utf-8"))
    result = CliRunner().invoke(app, ["plan", "--params", str(folder / "params.yaml")])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(autouse=True)
def _stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # the command changes the directory


def test_mini_downloads_nothing(tmp_path: Path) -> None:
    told = planned(tmp_path)
    assert "720 train, 48 val, 72 test clips to render" in told
    assert "downloaded: nothing" in told
    assert "tokens 5 x 26" in told


def test_vggsound_says_bytes_licences_and_shapes(tmp_path: Path) -> None:
    told = planned(tmp_path, profile="vggsound")
    assert "sync 240 x 768, semantic 80 x 1024, prompts 2 x 512" in told
    assert "tokens 5 x 53" in told
    assert "950.1 MB" in told
    assert "CC-BY-NC-SA-4.0; NOT for commercial use" in told
    assert "126.0 M parameters" in told
    assert "140000 steps of batch 64" in told


def test_another_profile_can_be_planned_for(tmp_path: Path) -> None:
    expected = planned(tmp_path, profile="vggsound")
    planned(tmp_path)
    result = CliRunner().invoke(app, ["plan", "--profile", "vggsound", "--params", str(tmp_path / "params.yaml")])
    assert result.output == expected
    wrong = CliRunner().invoke(app, ["plan", "--profile", "huge", "--params", str(tmp_path / "params.yaml")])
    assert wrong.exit_code == 2
    assert "profile='huge'" in wrong.output


def test_a_weight_file_that_is_there_is_not_counted(tmp_path: Path) -> None:
    before = planned(tmp_path, profile="vggsound")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "synchformer_state_dict.pth").write_bytes(b"here")
    after = planned(tmp_path, profile="vggsound")
    line = next(line for line in after.splitlines() if line.split()[:1] == ["synchformer"])
    assert " here " in line
    assert [line for line in before.splitlines() if "still to download" in line] != [
        line for line in after.splitlines() if "still to download" in line
    ]


def test_a_folder_of_videos_is_counted(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.MKV", "notes.txt"):
        (tmp_path / "videos" / name).touch()
    told = planned(tmp_path, data={"source": "folder", "folder": "videos", "labels": None})
    assert "2 videos in videos" in told
