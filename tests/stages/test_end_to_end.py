"""The whole pipeline through `dvc`, as a user runs it: every stage, again, killed, and on bad input."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import yaml
from helpers import ROOT
from helpers.stage_calls import call_stage
from helpers.tiny import COUNTS, STAGES, Project, shrink

from specmaskfoley.clips.ledger import ready_hash
from specmaskfoley.device import precision_name
from specmaskfoley.encoders.trained import ROLES
from specmaskfoley.judges.objectives import JUDGES
from specmaskfoley.media.probe import probe
from specmaskfoley.media.writing import write_video
from specmaskfoley.report.results import SCORES_SCHEMA
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import LEDGER_SCHEMA, SPLITS, read_arrays, read_table
from specmaskfoley.systems import generated

KEPT = {"prepare", "features", "tokens", "judged"}
COMPUTING = {"encoders", "features", "codec", "tokens", "backbone", "control", "sample", "judges", "evaluate"}
GENERATED = generated(Params.load(ROOT / "params.yaml"))
SCORED = {"ground_truth", "shuffled", *GENERATED}
SILENT_RMS = 1e-4
SCORES = ["fd", "fad", "kl", "isc", "ib", "desync", "onset_f1"]


MINI_1D = pytest.param("reproduced_1d", marks=pytest.mark.pipeline, id="mini_1d")


@pytest.fixture(params=[pytest.param("project", id="mini"), MINI_1D])
def finished(request: pytest.FixtureRequest) -> Project:
    """A project in which every stage has run, with each kind of codec and backbone."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=[pytest.param("reproduced", id="mini"), MINI_1D])
def repeated(request: pytest.FixtureRequest) -> Project:
    """The same, run by `dvc repro`."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def params(finished: Project) -> Params:
    return Params.load(finished.path("params.yaml"))


def ran(output: str) -> list[str]:
    """Stages that dvc ran, in its order."""
    return re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE)


def scores(project: Project) -> dict[str, dict[str, Any]]:
    """The files of metrics/systems, by system."""
    return {file.stem: json.loads(file.read_text()) for file in project.path("metrics", "systems").iterdir()}


def results(project: Project) -> dict[str, bytes]:
    """Every file that one seed must give again byte for byte."""
    folders = ["data", "metrics/curves", "metrics/systems"]
    files = [file for folder in folders for file in project.path(folder).rglob("*") if file.is_file()]
    return {str(file.relative_to(project.root)): file.read_bytes() for file in files}


def assert_same_results(found: Project, expected: Project) -> None:
    first, second = results(expected), results(found)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def kept_work(project: Project) -> set[str]:
    """Stages that keep something for other clips and settings; nothing half-done may be left of the others."""
    return {path.name.rsplit("-", 1)[0] for path in project.path(".work").iterdir()}


# ------------------------------------------------------------------ one run of everything


@pytest.mark.pipeline
def test_every_stage_runs_once(repeated):
    assert sorted(ran(repeated.first_output)) == sorted(STAGES)
    parts = re.split(r"^Running stage '(\w+)':\n> .*\n", repeated.first_output, flags=re.MULTILINE)
    first = {stage: text.split("\n")[:2] for stage, text in zip(parts[1::2], parts[2::2], strict=True)}
    auto = precision_name("auto", torch.device("cpu"))
    told = {stage: "float32" if stage in ("tokens", "evaluate") else auto for stage in COMPUTING}
    assert {stage for stage in told if f"device cpu (1 threads), {told[stage]}" in first[stage]} == COMPUTING
    assert not any(line.startswith("device ") for stage in first.keys() - COMPUTING for line in first[stage])
    assert kept_work(repeated) == KEPT
    assert not list(repeated.root.rglob(".tmp-*"))


def test_the_ledger_counts_every_clip(project):
    ledger = read_table(project.path("data", "ledger.parquet"), LEDGER_SCHEMA)
    assert Counter(row["split"] for row in ledger) == COUNTS
    assert {row["state"] for row in ledger} == {"ready"}
    assert {row["source"] for row in ledger} == {"world"}
    assert all(project.path(row["path"]).is_file() for row in ledger)
    assert all(row["duration_s"] == pytest.approx(2.0, abs=0.05) for row in ledger)


def test_shards_hold_what_the_settings_say(finished, params):
    audio, encoders = params.audio, params.encoders
    grid = (params.grid.rows, params.grid.columns)
    frames = round(25 * audio.token_duration_s)
    fields = {
        "sync": ("float16", (frames, encoders.sync.width)),
        "semantic": ("float16", (round(8 * audio.token_duration_s), encoders.semantic.width)),
        "semantic_mean": ("float32", (encoders.semantic.width,)),
        "audio_prompt": ("float16", (encoders.prompt.width,)),
        "text_prompt": ("float16", (encoders.prompt.width,)),
    }
    for split in SPLITS:
        expected_ids = [f"{split}-{index:05d}" for index in range(COUNTS[split])]
        ids, tokens = read_arrays(finished.path("data", "tokens"), split)
        assert ids == expected_ids
        assert list(tokens) == ["tokens"]
        assert tokens["tokens"].dtype == np.int16
        assert tokens["tokens"].shape == (COUNTS[split], *grid)
        assert tokens["tokens"].min() >= 0
        assert tokens["tokens"].max() < params.codec.codebook_size
        ids, features = read_arrays(finished.path("data", "features"), split)
        assert ids == expected_ids
        assert {name: (a.dtype.name, a.shape[1:]) for name, a in features.items()} == fields
        assert all(np.isfinite(array).all() for array in features.values())
        # shard_rows is 10
        assert len(list(finished.path("data", "tokens").glob(f"{split}-*.parquet"))) == -(-COUNTS[split] // 10)
    shard = pq.read_schema(finished.path("data", "tokens", "test-00000.parquet"))
    assert shard.names == ["clip_id", "key", "tokens"]
    assert json.loads(shard.field("tokens").metadata[b"shape"]) == list(grid)
    assert shard.field("tokens").metadata[b"dtype"] == b"int16"


def test_every_system_has_a_sound_for_every_test_clip(finished, params):
    test = [f"test-{index:05d}" for index in range(COUNTS["test"])]
    samples = finished.path("data", "samples")
    takes = {system: range(1 if system == "codec_roundtrip" else 2) for system in GENERATED}
    for system, numbers in takes.items():
        drawn = []
        for take in numbers:
            ids, tokens = read_arrays(samples / f"take-{take}" / "tokens", system)
            assert ids == test
            assert tokens["tokens"].shape == (COUNTS["test"], params.grid.rows, params.grid.columns)
            assert sorted(path.stem for path in (samples / f"take-{take}" / system).glob("*.flac")) == test
            drawn.append(tokens["tokens"])
        assert len(drawn) == 1 or (drawn[0] != drawn[1]).any(), "another seed gave the same take"
    assert not (samples / "take-1" / "codec_roundtrip").exists()
    true = read_arrays(finished.path("data", "tokens"), "test")[1]["tokens"]
    np.testing.assert_array_equal(read_arrays(samples / "take-0" / "tokens", "codec_roundtrip")[1]["tokens"], true)
    for path in samples.glob("take-*/*/*.flac"):
        heard, rate = soundfile.read(path)
        assert (rate, len(heard)) == (params.audio.sample_rate, params.audio.num_samples), path
        assert np.sqrt(np.square(heard).mean()) > SILENT_RMS, path


@pytest.mark.slow
def test_the_report_does_without_curves_of_official_networks(project, tmp_path):
    """Stage `encoders` leaves a table without rows for an encoder that it did not train."""
    changed = project.copy(tmp_path / "project")
    changed.path("metrics", "curves", "encoder_sync.csv").write_text("step\n")
    changed.path("metrics", "curve_pictures", "encoder_sync.png").unlink()
    code, output = changed.stage("report")
    assert code == 0, output
    made = {path.stem for path in changed.path("metrics", "curve_pictures").iterdir()}
    assert "encoder_semantic" in made
    assert "encoder_sync" not in made


def test_videos_play_with_the_new_sound(finished):
    videos = sorted(finished.path("data", "samples", "videos").iterdir())
    assert [path.name for path in videos] == ["test-00000.mp4", "test-00001.mp4"]
    for path in videos:
        source, made = probe(finished.path("data", "clips", path.name)), probe(path)
        assert made.duration_s == pytest.approx(source.duration_s, abs=1 / source.fps)
        assert made.audio_rate is not None
        with av.open(str(path)) as file:
            assert sum(1 for _ in file.decode(video=0)) == 50
        with av.open(str(path)) as file:
            assert sum(frame.samples for frame in file.decode(audio=0)) > file.streams.audio[0].rate


def test_all_systems_are_scored_on_all_test_clips(finished):
    found = scores(finished)
    assert set(found) == SCORED
    for system, row in found.items():
        assert list(row) == SCORES, system
        assert all(np.isfinite(value) for value in row.values())
        assert 0 <= row["onset_f1"] <= 1
        assert -1 <= row["ib"] <= 1
    assert found["ground_truth"]["fd"] == pytest.approx(0, abs=1e-6)
    assert found["ground_truth"]["kl"] == pytest.approx(0, abs=1e-9)
    assert json.loads(finished.path("metrics", "scores.json").read_text()) == found["specmaskfoley"]


def test_scores_say_what_they_are_of(finished):
    found = scores(finished)
    clips = json.loads(finished.path("metrics", "clips.json").read_text())
    assert (clips["clips"], clips["coverage"], clips["takes"]) == (COUNTS["test"], 1.0, 2)
    assert clips["hash"] == ready_hash(f"test-{index:05d}" for index in range(COUNTS["test"]))
    assert clips["excluded"] == {}
    assert set(clips["counts"]) == SCORED
    for count in clips["counts"].values():
        assert (count["clips"], count["coverage"]) == (COUNTS["test"], 1.0)
        assert 0 < count["onset_clips"] <= COUNTS["test"]
    intervals = json.loads(finished.path("metrics", "intervals.json").read_text())
    for system, row in intervals.items():
        for name, interval in row.items():
            score, rounding = found[system][name], 1e-3 * abs(found[system][name])
            assert interval["low"] - rounding <= score <= interval["high"] + rounding, (system, name)
        assert (row["kl"]["sd"] is None) == (system not in GENERATED or system == "codec_roundtrip")
    rows = read_table(finished.path("data", "evaluation", "clips.parquet"), SCORES_SCHEMA)
    assert Counter(row["system"] for row in rows) == dict.fromkeys(SCORED, COUNTS["test"])
    mine = [row["desync"] for row in rows if row["system"] == "specmaskfoley"]
    assert np.mean(mine) == pytest.approx(found["specmaskfoley"]["desync"], rel=1e-3)


@pytest.mark.slow
def test_the_command_gives_the_stages_numbers(project, tmp_path):
    """`specmaskfoley evaluate` on the folders that stage sample wrote."""
    mine = project.copy(tmp_path / "project")
    takes = [f"specmaskfoley={mine.path('data', 'samples', f'take-{take}', 'specmaskfoley')}" for take in range(2)]
    generated = [word for take in takes for word in ("--generated", take)]
    out = tmp_path / "result"
    code, output = mine.command(
        "evaluate", *generated, "--reference", str(mine.path("data", "clips")), "--pattern", "test-*.flac",
        "--min-coverage", "0.1", "--out", str(out),
    )  # fmt: skip
    assert code == 0, output
    row = json.loads((out / "systems" / "specmaskfoley.json").read_text())
    expected = scores(project)["specmaskfoley"]
    for name in ("fd", "fad", "kl", "ib", "desync", "isc"):
        assert row[name] == pytest.approx(expected[name], rel=1e-5), name


def test_curves_reach_the_last_step(finished, params):
    levels = [f"val_loss_level{level}" for level in range(params.backbone.levels)] if params.backbone.levels > 1 else []
    for path in finished.path("metrics", "curves").glob("*.csv"):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        steps = 60 if path.stem == "control" else 6
        assert int(rows[-1]["step"]) == steps, path.name
        assert any(name.startswith("val_") and rows[-1][name] for name in rows[-1]), path.name
        by_level = [name for name in rows[-1] if name.startswith("val_loss_level") and rows[-1][name]]
        assert by_level == (levels if path.stem in ("backbone", "control") else []), path.name


def outside_links(html: str) -> list[str]:
    """Addresses that a browser would fetch from a network; not those of papers, which a reader may follow."""
    found = re.findall(r"""(?:src|poster|data|<link[^>]+href)\s*=\s*["']?\s*((?:https?:)?//[^"'\s>]+)""", html)
    return found + re.findall(r"""url\(\s*["']?((?:https?:)?//[^"')]+)""", html) + re.findall(r"@import[^;]+", html)


def test_report_needs_no_network_and_no_other_file(finished):
    html = finished.path("metrics", "report.html").read_text(encoding="utf-8")
    assert outside_links(html) == []
    sources = re.findall(r"""\bsrc\s*=\s*["']([^"']{0,40})""", html)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert html.count("data:video/mp4") == 2
    assert "test-00001" in html
    table = finished.path("metrics", "table.md").read_text(encoding="utf-8").splitlines()
    first = table[: table.index("### Published on VGGSound")]
    assert sum(line.startswith("| ") for line in first) == 2 + len(SCORED)
    assert sorted(path.name for path in finished.path("metrics", "pictures").iterdir()) == [
        "test-00000.png",
        "test-00001.png",
    ]


@pytest.mark.pipeline
def test_dvc_shows_metrics_and_plots_without_a_network(reproduced):
    (shown,) = json.loads(reproduced.dvc("metrics", "show", "--json")).values()
    assert list(shown["data"]) == ["metrics/scores.json"]
    assert shown["data"]["metrics/scores.json"]["data"] == scores(reproduced)["specmaskfoley"]
    printed = reproduced.dvc("plots", "show")
    page = reproduced.path("dvc_plots", "index.html")
    assert page.as_uri() in printed
    html = page.read_text(encoding="utf-8")
    assert not re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)\s*=\s*["']?(?:https?:)?//""", html)
    assert "val_loss" in html
    assert "test-00000.png" in html


def test_mlflow_has_one_run_with_everything(finished, params, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{finished.path('.mlflow', 'mlflow.db')}")
    experiment = client.get_experiment_by_name("specmaskfoley")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["dvc.experiment"] == "workspace"
    assert run.data.tags["dvc.baseline"] == finished.git("rev-parse", "HEAD").strip()
    assert run.data.params["cfg.scale"] == str(params.cfg.scale)
    assert run.data.params["train_control.optim.steps"] == "60"
    mine = {name: score for name, score in scores(finished)["specmaskfoley"].items() if score is not None}
    assert {name: value for name, value in run.data.metrics.items() if "/" not in name} == pytest.approx(mine)
    networks = {"codec", "backbone", "control", *(f"encoder_{role}" for role in ROLES), *(f"judge_{n}" for n in JUDGES)}
    assert {name.partition("/")[0] for name in run.data.metrics if "/" in name} == networks
    assert {"codec/reconstruction", "backbone/val_loss", "encoder_sync/loss"} <= set(run.data.metrics)
    history = client.get_metric_history(run.info.run_id, "control/val_loss")
    assert [point.step for point in sorted(history, key=lambda point: point.step)] == list(range(2, 61, 2))
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"report.html", "table.md", "scores.json", "systems", "pictures", "videos"} <= artifacts
    heard = {item.path for item in client.list_artifacts(run.info.run_id, "control/00000060")}
    assert {f"control/00000060/val-0000{n}.{kind}" for n in range(3) for kind in ("png", "flac")} == heard
    assert client.list_artifacts(run.info.run_id, "backbone/00000004")
    assert not finished.path(".mlflow", "unsent").exists()


@pytest.mark.pipeline
def test_git_sees_only_the_lock_file_the_metrics_and_the_lineage(reproduced):
    changed = {line[3:] for line in reproduced.git("status", "--porcelain").splitlines()}
    assert changed == {"dvc.lock", "metrics/", "data/code/"}


# ------------------------------------------------------------------ a second run


@pytest.mark.pipeline
def test_nothing_changed_nothing_runs(repeated):
    before = results(repeated)
    output = repeated.dvc("repro")
    assert ran(output) == []
    assert "up to date" in output
    assert "up to date" in repeated.dvc("status")
    assert results(repeated) == before


@pytest.mark.pipeline
def test_an_experiment_reruns_only_what_its_setting_touches(reproduced, tmp_path):
    mine = reproduced.copy(tmp_path / "project")
    mine.commit()
    before = results(mine)
    output = mine.dvc("exp", "run", "--name", "weaker", "-S", "cfg.scale=2")
    assert ran(output) == ["sample", "evaluate", "report"]
    changed = {line[3:].split("/")[0] for line in mine.git("status", "--porcelain").splitlines()}
    assert changed == {"dvc.lock", "metrics", "params.yaml"}
    assert mine.git("branch", "--show-current").strip() == "main"
    assert Params.load(mine.path("params.yaml")).cfg.scale == 2.0
    assert {name for name in before if before[name] != results(mine)[name]} >= {"data/evaluation/clips.parquet"}
    kept = [name for name in before if not name.startswith(("metrics/systems", "data/samples", "data/evaluation"))]
    assert [name for name in kept if before[name] != results(mine)[name]] == []
    table = json.loads(mine.dvc("exp", "show", "--json"))
    assert "weaker" in json.dumps(table)

    # Back to what is committed: nothing is sampled or judged again, and the old numbers are there. (What DVC does not
    # keep in its cache may be put together anew from what the judges have said before.)
    mine.git("checkout", "-q", "-f", "main")
    mine.path("params.yaml").touch()
    (judged,) = mine.path(".work").glob("judged-*/features.sqlite")
    written = judged.stat().st_mtime_ns
    assert set(ran(mine.dvc("repro"))) <= {"evaluate", "report"}
    assert judged.stat().st_mtime_ns == written
    assert results(mine) == before
    assert "weaker" in mine.dvc("exp", "list")


# ------------------------------------------------------------------ the same seed, and kills


@pytest.mark.pipeline
def test_the_same_seed_gives_the_same_bytes(reproduced, project):
    """By `dvc repro` with two workers in one folder, and stage by stage with one worker in another."""
    assert_same_results(reproduced, project)


def wait_until_gone(processes: list[psutil.Process], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while alive := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, f"still running: {alive}"
        time.sleep(0.05)


def holder(project: Project, stage: str) -> psutil.Process | None:
    """The process that works on a stage, by the file beside its lock."""
    for file in project.path(".work").glob(f"{stage}-*.holder"):
        if text := file.read_text().strip():
            return psutil.Process(int(text))
    return None


@pytest.mark.pipeline
@pytest.mark.kill
def test_killed_in_the_middle_it_goes_on_and_gives_the_same_bytes(project, tmp_path):
    mine = Project.create(tmp_path / "project")
    work = mine.path(".work")

    # Rendering: dvc and the stage die, and must take the stage's workers with them.
    with mine.start("repro") as running:
        running.wait_for(lambda: len(list(work.glob("clips-*/facts/*.json"))) >= 3, "the third clip")
        everything = mine.processes()
        stage = holder(mine, "clips")
        assert stage is not None
        running.process.kill()
        stage.kill()
        running.process.wait()
        wait_until_gone(everything)
    assert 3 <= len(list(work.glob("clips-*/facts/*.json"))) < sum(COUNTS.values())
    assert not mine.path("data", "clips.parquet").exists()

    # Training: the whole process group dies after a checkpoint. Rendering has gone on before.
    with mine.start("repro") as running:
        running.wait_for(lambda: list(work.glob("control-*/control-*.pt")), "the first checkpoint")
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()
        wait_until_gone(mine.processes())
        assert ran(running.output)[0] == "clips"
    assert list(work.glob("control-*/control-*.pt"))
    assert not mine.path("data", "control.safetensors").exists()

    # dvc alone dies: its stage works on, and the next run waits for it. (The stage is held until that is seen.)
    with mine.start("repro") as running:
        stage = running.wait_for(lambda: holder(mine, "judges"), "the judges")
        stage.suspend()
        running.process.kill()
        running.process.wait()
        assert stage.is_running()
        with mine.start("repro") as second:
            waiting = f"judges: process {stage.pid} is doing the same work; waiting for it"
            second.wait_for(lambda: waiting in second.output, "the second run saw the first")
            stage.resume()
            last = second.finish()
        wait_until_gone([stage])
    found = re.search(r"control: going on from step (\d+)", running.output)
    assert found, running.output
    assert 2 <= int(found[1]) < 60
    assert ran(last) == ["judges", "evaluate", "report"]
    assert_same_results(mine, project)
    assert kept_work(mine) == KEPT


# ------------------------------------------------------------------ bad input


def with_folder(folder: str | None, **data: Any) -> Any:
    def change(params: dict[str, Any]) -> None:
        shrink(params)
        params["data"] |= {"source": "folder", "folder": folder, **data}
        params["profiles"]["mini"]["prepare"] |= {"silence_db": -60.0, "min_duration_s": 0.5}

    return change


@pytest.fixture
def own(tmp_path: Path) -> Project:
    """A project whose source is the folder `my videos`, which does not exist yet."""
    return Project.create(tmp_path / "project", with_folder("my videos"))


def good_clip(path: Path, *, seconds: float = 1.0, loud: float = 0.5, sound: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(0).integers(0, 255, (round(25 * seconds), 32, 48, 3), np.uint8)
    wave = loud * np.sin(np.arange(round(16000 * seconds)) * 0.3).astype(np.float32)
    write_video(path, frames, 25, wave if sound else None, 16000)


def bad_clips(folder: Path) -> dict[str, str]:
    """Files that cannot be used; file name -> the state they must get."""
    good_clip(folder / "mute.mp4", sound=False)
    good_clip(folder / "still.mp4", loud=0.0)
    good_clip(folder / "blink.mp4", seconds=0.2)
    good_clip(folder / "cut.mp4", seconds=2.0)
    whole = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("this is no video\n")
    (folder / "empty.mp4").touch()
    states = {"mute": "no_audio", "still": "silent", "blink": "short"}
    return states | dict.fromkeys(("cut", "text", "empty"), "corrupt")


def error_of(code: int, output: str) -> str:
    """The one line that a user's mistake is answered with."""
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert code == 1, output
    assert "Traceback" not in output, output
    assert len(errors) == 1, output
    assert output.rstrip().endswith(errors[0]), output
    return errors[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_folder("nowhere"), ["data.folder='nowhere'", "not a directory"]),
        (with_folder("no videos"), ["data.folder='no videos'", "holds no video", ".mp4"]),
        (with_folder(None), ["data.folder is null"]),
        (with_folder("no videos", labels="absent.tsv"), ["data.labels='absent.tsv'"]),
        (lambda params: params["sample"].update(step=3), ["sample.step", "not a known setting"]),
        (lambda params: params["sample"].update(steps="many"), ["sample.steps='many'", "integer"]),
        (lambda params: params["data"].update(source="cloud"), ["data.source='cloud'", "'world'"]),
        (lambda params: params.update(profile="huge"), ["profile='huge'", "mini"]),
    ],
    ids=["missing", "empty", "no-folder", "no-labels-file", "unknown-key", "wrong-type", "unknown-source", "profile"],
)
def test_a_wrong_setting_is_one_line(tmp_path, change, told):
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    change(params)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (tmp_path / "no videos").mkdir()
    (tmp_path / "no videos" / "notes.txt").write_text("nothing here")
    if "data.labels='absent.tsv'" in told:
        good_clip(tmp_path / "no videos" / "a.mp4")
    line = error_of(*call_stage("clips", tmp_path))
    for part in told:
        assert part in line


@pytest.mark.slow
def test_a_folder_of_unusable_files_is_one_line_with_the_reasons(own):
    states = bad_clips(own.path("my videos"))
    code, output = own.stage("clips")
    assert code == 0, output
    line = error_of(*own.stage("prepare"))
    for state, count in Counter(states.values()).items():
        assert f"{count} {state} (" in line
    # The ledger says which, although the stage has failed.
    ledger = read_table(own.path("data", "ledger.parquet"), LEDGER_SCHEMA)
    assert {row["clip_id"]: row["state"] for row in ledger} == states


@pytest.mark.pipeline
def test_dvc_passes_the_one_line_on(own):
    output = own.dvc("repro", "prepare", check=False)
    assert len(re.findall(r"^error: data\.folder='my videos' is not a directory", output, re.MULTILINE)) == 1
    assert "Traceback" not in output
    assert output.rstrip().splitlines()[-1].startswith("ERROR: failed to reproduce 'clips'")


ODD_NAMES = ['it\'s a "dog".mp4', "-leading dash.mp4", "tab\tand ünïcödé 犬.mp4", "$HOME; rm -rf *.mp4", "deep/er.mp4"]


@pytest.mark.pipeline
def test_good_clips_go_on_beside_bad_ones(own):
    folder = own.path("my videos")
    states = bad_clips(folder)
    for name in ODD_NAMES:
        good_clip(folder / name, seconds=2.5)
    own.path("labels.tsv").write_text("id\tlabel\tsplit\n-leading dash\tdog bark\ttest\ngone\tcat\ttrain\n")
    own.change(with_folder("my videos", labels="labels.tsv"))
    output = own.dvc("repro", "prepare")
    assert ran(output) == ["lineage", "clips", "prepare"]
    assert f"prepare: {len(ODD_NAMES)} ready" in output
    ledger = {row["clip_id"]: row for row in read_table(own.path("data", "ledger.parquet"), LEDGER_SCHEMA)}
    good = {name.removesuffix(".mp4").replace("/", "__"): "ready" for name in ODD_NAMES}
    assert {name: row["state"] for name, row in ledger.items()} == states | good | {"gone": "missing"}
    assert all(row["reason"] for row in ledger.values() if row["state"] != "ready")
    assert ledger["-leading dash"]["label"] == "dog bark"
    assert ledger["-leading dash"]["split"] == "test"
    assert {row["split"] for row in ledger.values() if row["state"] == "ready"} <= set(SPLITS)
    # The videos themselves stay as they were, and nothing is done twice.
    assert list(own.path("data", "clips").iterdir()) == [own.path("data", "clips", "README.txt")]
    assert ran(own.dvc("repro", "prepare")) == []


@pytest.mark.official
def test_real_videos_are_ready(own, clips):
    own.change(with_folder(str(clips.resolve())))
    for stage in ("clips", "prepare"):
        code, output = own.stage(stage)
        assert code == 0, output
    ledger = read_table(own.path("data", "ledger.parquet"), LEDGER_SCHEMA)
    assert {row["clip_id"]: row["state"] for row in ledger} == {path.stem: "ready" for path in clips.glob("*.mp4")}
    assert {row["split"] for row in ledger} == set(SPLITS)
    assert all(row["duration_s"] == pytest.approx(10, abs=0.2) for row in ledger)
