"""The first two stages on both sources, with the project's own params.yaml made small."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import ROOT
from helpers.stage_calls import call_stage, load_stage

from specmaskfoley.clips.world import LABELS, source
from specmaskfoley.media.probe import probe
from specmaskfoley.media.writing import write_video
from specmaskfoley.storage.tables import CLIP_LIST_SCHEMA, LEDGER_SCHEMA, read_table, ready_clips


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Write params.yaml with one worker and few short clips; returns a function that changes it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["run"]["workers"] = 1
    params["profiles"]["mini"]["audio"]["duration_s"] = 1.0
    params["profiles"]["mini"]["prepare"]["min_duration_s"] = 0.5
    params["profiles"]["mini"]["prepare"]["silence_db"] = -120.0  # short clips may hold no event
    params["profiles"]["mini"]["world"] |= {"train_clips": 4, "val_clips": 1, "test_clips": 2}

    def write(**data):
        params["data"] |= data
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))

    write(source="world")
    return write


def test_world_is_rendered_listed_and_checked(small, tmp_path, capsys):
    load_stage("clips").main()
    rows = read_table("data/clips.parquet", CLIP_LIST_SCHEMA)
    assert [row["clip_id"] for row in rows] == [
        *(f"train-{i:05d}" for i in range(4)),
        "val-00000",
        "test-00000",
        "test-00001",
    ]
    assert {row["label"] for row in rows} <= set(LABELS)
    assert sorted(os.listdir("data/clips")) == sorted(Path(row["path"]).name for row in rows)
    assert probe(rows[0]["path"]).duration_s == pytest.approx(1.0)
    assert not os.listdir(tmp_path / ".work")
    load_stage("prepare").main()
    assert len(read_table("data/ledger.parquet", LEDGER_SCHEMA)) == 7
    assert [clip.clip_id for clip in ready_clips("data/usable.parquet", "test")] == ["test-00000", "test-00001"]
    assert "prepare: 7 ready" in capsys.readouterr().out


def test_killed_rendering_continues_and_gives_the_same_files(small, monkeypatch):
    load_stage("clips").main()
    before = {path.name: path.read_bytes() for path in Path("data/clips").iterdir()}
    table = Path("data/clips.parquet").read_bytes()
    rendered = []

    def render(**kwargs):
        if len(rendered) == 3:
            raise KeyboardInterrupt
        rendered.append(kwargs["index"])
        return real(**kwargs)

    real = source.render_clip
    monkeypatch.setattr(source, "render_clip", render)
    with pytest.raises(KeyboardInterrupt):
        load_stage("clips").main()
    rendered[:] = [None] * 4  # no more kills
    load_stage("clips").main()
    assert len(rendered) == 4 + 4  # of 7, 3 were kept
    assert {path.name: path.read_bytes() for path in Path("data/clips").iterdir()} == before
    assert Path("data/clips.parquet").read_bytes() == table


def test_folder_with_some_broken_videos(small, tmp_path, capsys):
    videos = tmp_path / "my videos"
    videos.mkdir()
    tone = 0.5 * np.sin(np.arange(16000) * 0.3)
    for name in ("-dog_bark.mp4", 'it\'s a "cat".mp4', "é.mp4"):
        write_video(videos / name, np.zeros((25, 32, 48, 3), np.uint8), 25, tone, 16000)
    (videos / "text.mp4").write_text("no video")
    small(source="folder", folder="my videos")
    load_stage("clips").main()
    load_stage("prepare").main()
    out = capsys.readouterr().out
    assert "prepare: 3 ready, 1 corrupt (cannot be decoded" in out
    assert os.listdir("data/clips") == ["README.txt"]
    assert {clip.label for clip in ready_clips("data/usable.parquet")} == {"dog bark", 'it\'s a "cat"', "é"}


def test_too_few_test_clips_are_told_at_once(small, tmp_path, capsys):
    videos, tone = tmp_path / "videos", 0.5 * np.sin(np.arange(16000) * 0.3)
    for number in range(4):
        write_video(videos / f"{number}.mp4", np.zeros((25, 32, 48, 3), np.uint8), 25, tone, 16000)
    small(source="folder", folder="videos")
    load_stage("clips").main()
    assert capsys.readouterr().out == "clips: 4 listed (1 train, 1 val, 2 test)\n"
    tests = [row["path"] for row in read_table("data/clips.parquet", CLIP_LIST_SCHEMA) if row["split"] == "test"]
    Path(tests[0]).write_bytes(b"damaged")
    load_stage("prepare").main()
    assert "prepare: 1 test clips: stage evaluate will fail, it needs at least 2" in capsys.readouterr().out
    Path(tests[1]).unlink()
    load_stage("clips").main()
    assert "clips: 1 test clips: stage evaluate will fail, it needs at least 2" in capsys.readouterr().out


def test_no_usable_clip_is_one_line_and_exit_1(small, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "text.mp4").write_text("no video")
    small(source="folder", folder="videos")
    load_stage("clips").main()
    code, output = call_stage("prepare", tmp_path)
    assert code == 1
    counted, error = output.splitlines()
    assert counted.startswith("prepare: 1 corrupt (")
    assert error.startswith("error: data/ledger.parquet: no usable clip in any split: 1 corrupt (")
    assert len(read_table("data/ledger.parquet", LEDGER_SCHEMA)) == 1


def test_workers_need_no_torch():
    names = "specmaskfoley.clips.world, specmaskfoley.clips.inspection, specmaskfoley.extraction.decoding"
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
