"""`specmaskfoley plan`: what a profile will take, before it takes it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT
from typer.testing import CliRunner

from specmaskfoley.commands.main import app
from specmaskfoley.storage.tables import CLIP_LIST_SCHEMA, LEDGER_SCHEMA, write_table


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
    assert "fetched into" not in told
    assert "tokens 5 x 26" in told


def test_vggsound_says_bytes_licences_and_shapes(tmp_path: Path) -> None:
    told = planned(tmp_path, profile="vggsound")
    assert "sync 240 x 768, semantic 80 x 1024, prompts 2 x 512" in told
    assert "tokens 5 x 53" in told
    assert "950.1 MB" in told
    assert "CC-BY-NC-SA-4.0; NOT for commercial use" in told
    assert "126.0 M parameters" in told
    assert "140000 steps of batch 64" in told


def test_magnet_says_what_is_official_and_what_the_branch_takes(tmp_path: Path) -> None:
    told = planned(tmp_path, profile="magnet")
    assert re.search(r"magnet_small +841.4 MB  missing  CC-BY-NC-4.0; NOT for commercial use", told)
    assert "prompts 1 x 32 x 1024" in told
    assert "tokens 4 x 498" in told
    assert "1000 test clips in 3 takes by 3 systems" in told
    for network, size in (("codec", "56.8"), ("backbone", "420.6")):
        assert re.search(rf"{network} +{size} M parameters, \S+ .B: official, not trained", told)
    computed = told[told.index("computed on one GPU") : told.index("computed and stored")]
    check_times(computed, 60e12)
    # Frozen backbone: forward, and backward to its inputs; branch: both, and to its weights; 0.4 and 0.2 TFLOP each.
    assert "control   30000 steps x 64 clips x 1.44 TFLOP" in computed
    assert "(control): weights, gradients and Adam 5.0 GB, activations of 64 clips" in computed


def test_hours_memory_and_disk_are_estimated_with_their_arithmetic(tmp_path: Path) -> None:
    limit = {"train": 20000, "val": 500, "test": 1500}
    told = planned(tmp_path, profile="vggsound_small", data=data("youtube", limit=limit))
    computed = told[told.index("computed on one GPU (an estimate: operations counted") :]
    assert "at an assumed 60 TFLOP/s in bfloat16" in computed
    check_times(computed, 60e12)
    assert re.search(r"encoders  22000 clips x 60.0 TFLOP: 1.3e\+18 operations, 6.1 h", computed)
    assert "backbone  60000 steps x 112 clips x" in computed
    assert "\n  codec     " not in computed[: computed.index("together")]  # official
    assert "(backbone): weights, gradients and Adam 628.4 MB, activations of 112 clips" in computed
    assert "together with official weights (12.7 GB), without videos: " in computed
    run = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["run"]
    told = planned(tmp_path, profile="vggsound_small", run=run | {"micro_batch": 8})
    assert "activations of 8 clips" in told


def check_times(computed: str, flops: float) -> None:
    """Every line of an estimate is its own arithmetic, and the last their sum."""
    sum_s = 0.0
    for line in re.findall(r"  (?:encoders|codec|backbone|control) .*TFLOP: .*", computed):
        *factors, work, said = (float(number) for number in re.findall(r"[\d.]+(?:e\+\d+)?", line))
        assert math.prod(factors) * 1e12 == pytest.approx(work, rel=0.05), line  # as printed
        unit_s = 3600 if line.endswith(" h") else 60
        assert work / flops == pytest.approx(said * unit_s, rel=0.05, abs=0.06 * unit_s), line
        sum_s += said * unit_s
    said, unit = re.search(r"together .*, ([\d.]+) (h|min)", computed).groups()
    assert float(said) * {"h": 3600, "min": 60}[unit] == pytest.approx(sum_s, rel=0.05)


def test_mini_is_estimated_for_a_cpu(tmp_path: Path) -> None:
    """9.5 minutes of trainings in float32; docs/results.md has what is measured."""
    told = planned(tmp_path)
    computed = told[
        told.index("computed on a CPU (an estimate: operations counted") : told.index("computed and stored")
    ]
    assert "at an assumed 0.06 TFLOP/s in float32" in computed
    check_times(computed, 0.06e12)
    assert 8.5 < float(re.search(r"together .*, ([\d.]+) min", computed)[1]) < 10.5
    assert "encoders" not in computed  # trained here, which is not counted


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
    assert "test clips: stage evaluate will fail, it needs at least 2" in told
    for name in "cdefghijkl":
        (tmp_path / "videos" / f"{name}.mp4").touch()
    told = planned(tmp_path, data={"source": "folder", "folder": "videos", "labels": None})
    assert "9 train, 1 val, 2 test clips; 12 videos in videos" in told
    assert "evaluate will fail" not in told


def test_sounds_without_picture_are_counted(tmp_path: Path) -> None:
    assert "sounds" not in planned(tmp_path)
    for name in ("one/a.wav", "one/b/a.OPUS", "one/notes.txt", "two/a.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(1000))
    settings = {"source": "world", "audio": ["one", "two"]}
    told = planned(tmp_path, data=settings)
    assert "sounds without picture (data.audio): 3 files of 3.0 kB" in told
    assert "stored: 388 B for every 5 s, at least 1.2 kB" in told  # 5 x 26 tokens and a prompt of 64
    write_clips(tmp_path, "audio_ledger.parquet", LEDGER_SCHEMA, "audio", {"train": ["ready", "ready", "short"]})
    told = planned(tmp_path, data=settings)
    assert "2 usable parts of 5 s among 3 rows of data/audio_ledger.parquet: tokens and prompts 776 B" in told


def data(source: str, **more: Any) -> dict[str, Any]:
    return {"source": source, "lists": "mmaudio", **more}


def write_lists(folder: Path, **counts: int) -> None:
    (folder / "lists").mkdir()
    for split, count in counts.items():
        lines = [f"{split}{number:0{11 - len(split)}d}_000010\tdog" for number in range(count)]
        (folder / "lists" / f"{split}.tsv").write_text("\n".join(["id\tlabel", *lines]), encoding="utf-8")


def write_clips(folder: Path, name: str, schema: Any, source: str, states: dict[str, list[str]]) -> None:
    rows = [
        {
            "clip_id": f"{split}{number}",
            "path": "a.mp4",
            "label": "dog",
            "split": split,
            "source": source,
            "state": state,
            "reason": "",
        }
        for split, found in states.items()
        for number, state in enumerate(found)
    ]
    write_table(folder / "data" / name, rows, schema)


def test_all_of_vggsound_from_youtube(tmp_path: Path) -> None:
    told = planned(tmp_path, data=data("youtube"))
    assert "data.source youtube: about 182000 train, 2000 val, 15000 test clips wanted" in told
    assert "fetched into vggsound (sizes are estimates" in told
    assert "199000 clips of about 2.2 MB: 437.8 GB; 0 clips are here" in told
    assert "199000 clips: features" in told
    assert "free for the part" not in told


def test_the_archive_comes_in_parts(tmp_path: Path) -> None:
    told = planned(tmp_path, data=data("archive"))
    assert "up to 20 of 20 parts of about 16.0 GB, 320.0 GB; keep about 16.0 GB free for the part at hand" in told
    fetch = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["fetch"]
    told = planned(tmp_path, data=data("archive"), fetch=fetch | {"parts": ["vggsound_00.tar.gz"]})
    assert "about 9100 train, 100 val, 750 test clips wanted" in told
    assert "up to 1 of 20 parts of about 16.0 GB, 16.0 GB" in told


def test_a_limit_is_what_is_wanted(tmp_path: Path) -> None:
    told = planned(tmp_path, data=data("youtube", limit={"train": 2000, "val": 100, "test": 500}))
    assert "youtube: 2000 train, 100 val, 500 test clips wanted" in told
    assert "2600 clips of about 2.2 MB: 5.7 GB" in told
    assert "2600 clips: features" in told
    told = planned(tmp_path, data=data("youtube", limit=5000))
    assert "about 5000 train, 2000 val, 5000 test clips wanted" in told


def test_lists_of_ones_own_are_counted(tmp_path: Path) -> None:
    write_lists(tmp_path, train=30, val=4, test=5)
    told = planned(tmp_path, data=data("youtube", lists=str(tmp_path / "lists"), limit=10))
    assert "youtube: 10 train, 4 val, 5 test clips wanted" in told
    with (tmp_path / "lists" / "test.tsv").open("a") as file:
        file.writelines(f"\ntrain{number:06d}_000040\tdog" for number in range(25))  # videos of train
    told = planned(tmp_path, data=data("youtube", lists=str(tmp_path / "lists"), limit=10))
    assert "youtube: 5 train, 4 val, 10 test clips wanted" in told
    told = planned(tmp_path, data=data("youtube", lists=str(tmp_path / "lists"), limit=10, exclude_shared=False))
    assert "youtube: 10 train, 4 val, 10 test clips wanted" in told


def test_a_folder_with_lists(tmp_path: Path) -> None:
    write_lists(tmp_path, train=30, val=4, test=5)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    told = planned(tmp_path, data=data("folder", folder="videos", lists=str(tmp_path / "lists")))
    assert "folder: 30 train, 4 val, 5 test clips wanted; 1 videos in videos" in told
    assert "fetched into" not in told


def test_after_the_clips_and_after_the_ledger(tmp_path: Path) -> None:
    write_lists(tmp_path, train=3, val=1, test=1)
    settings = data("youtube", lists=str(tmp_path / "lists"))
    listed = {"train": ["listed", "listed", "duplicate"], "val": ["listed"], "test": ["removed"]}
    write_clips(tmp_path, "clips.parquet", CLIP_LIST_SCHEMA, "youtube", listed)
    (tmp_path / "vggsound" / "clips" / "ab").mkdir(parents=True)
    (tmp_path / "vggsound" / "clips" / "ab" / "train0.mp4").touch()
    told = planned(tmp_path, data=settings)
    assert "youtube: 2 train, 1 val, 0 test listed clips of 5 by data/clips.parquet" in told
    assert "4 clips of about 2.2 MB: 8.8 MB; 1 clips are here" in told

    ledger = {"train": ["ready", "silent", "duplicate"], "val": ["ready"], "test": ["removed"]}
    write_clips(tmp_path, "ledger.parquet", LEDGER_SCHEMA, "youtube", ledger)
    told = planned(tmp_path, data=settings)
    assert "youtube: 1 train, 1 val, 0 test usable clips of 5 by data/ledger.parquet" in told
    assert "  2 clips: features" in told

    told = planned(tmp_path, data=settings | {"limit": 1})
    assert "1 train, 1 val, 1 test clips wanted (data/ledger.parquet is of another choice: 3 train" in told
    assert "data.source world: 720 train" in planned(tmp_path)  # a ledger of another source says nothing


def test_a_ledger_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_clips(tmp_path, "ledger.parquet", LEDGER_SCHEMA, "folder", {"train": ["ready", "silent"], "test": ["ready"]})
    told = planned(tmp_path, data={"source": "folder", "folder": "videos"})
    assert "folder: 1 train, 0 val, 1 test usable clips of 3 by data/ledger.parquet" in told


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ledger.parquet").write_text("no table")
    planned(tmp_path)
    raw = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8")) | {"data": data("youtube")}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    result = CliRunner().invoke(app, ["plan", "--params", str(tmp_path / "params.yaml")])
    assert result.exit_code == 2
    assert "data/ledger.parquet: not a table of clips" in result.output
