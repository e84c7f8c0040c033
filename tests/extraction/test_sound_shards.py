"""Stage audio: rows as the clips' stages make them, after any kill, for new files only, and whatever is broken."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import Project, shrink

from specmaskfoley.clips.sounds import inspect_sounds
from specmaskfoley.codec.specvqgan.network import SpecVQGAN
from specmaskfoley.codec.trained import codec_description
from specmaskfoley.encoders.trained import ROLES, build_encoder, encoder_description, encoder_file
from specmaskfoley.media.writing import write_audio, write_video
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.files import write_json
from specmaskfoley.storage.tables import LEDGER_SCHEMA, USABLE_SCHEMA, read_arrays, read_keys, read_table, write_table

RATE = 22050
LONG = 20
"""Parts of the long sound, of 2 s."""


def small(params: dict[str, Any]) -> None:
    shrink(params)
    params["run"]["unit_clips"] = 16
    params["data"]["audio"] = ["sounds"]
    params["profiles"]["mini"]["encoders"]["batch_size"] = 16


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that changes, so that no two parts give the same tokens."""
    wave = np.random.default_rng(seed).standard_normal(round(seconds * RATE)) * 0.1
    return np.asarray(wave * np.linspace(0.1, 1, len(wave)), np.float32)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tiny project with new networks, no clip, and a folder of sounds."""
    made = Project.create(tmp_path_factory.mktemp("sounds") / "project", small)
    params = Params.load(made.path("params.yaml"))
    torch.manual_seed(0)
    save_model(made.path(params.paths.codec), SpecVQGAN(params.codec), **codec_description(params))
    for role in ROLES:
        file = made.path(str(encoder_file(params, role)))
        save_model(file, build_encoder(ROLES[role], params), **encoder_description(params, role))
    write_json(made.path(params.paths.weights), {})
    write_table(made.path(params.paths.ledger), [], LEDGER_SCHEMA)
    folder = made.path("sounds")
    write_audio(folder / "long.wav", noise(2 * LONG + 0.5), RATE)
    for number in range(12):
        write_audio(folder / "short" / f"{number}.flac", noise(1.5, number + 1), RATE)
    write_video(folder / "video.mp4", np.zeros((50, 32, 48, 3), np.uint8), 25, noise(2, 99), RATE)
    (folder / "broken.mp3").write_text("no sound")
    shutil.copy(folder / "long.wav", folder / "same.wav")
    return made


@pytest.fixture(scope="module")
def alone(untrained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same after an undisturbed run."""
    made = untrained.copy(tmp_path_factory.mktemp("alone") / "project")
    code, made.first_output = made.stage("audio")
    assert code == 0, made.first_output
    return made


def files(project: Project) -> dict[str, bytes]:
    found = [project.path("data", "audio_ledger.parquet"), *project.path("data", "audio").iterdir()]
    return {path.name: path.read_bytes() for path in found}


def states(project: Project) -> dict[str, str]:
    rows = read_table(project.path("data", "audio_ledger.parquet"), LEDGER_SCHEMA)
    return {row["clip_id"]: row["state"] for row in rows}


@pytest.mark.slow
def test_every_usable_part_has_a_row(alone: Project) -> None:
    ids, arrays = read_arrays(alone.path("data", "audio"), "train")
    assert ids == [clip_id for clip_id, state in states(alone).items() if state == "ready"]
    assert len(ids) == LONG + 12 + 1
    assert [name for name in ids if "long" in name] == [f"sounds/long/{2 * n:06d}" for n in range(LONG)]
    assert {name: (array.dtype.name, array.shape[1:]) for name, array in arrays.items()} == {
        "tokens": ("int16", (5, 10)),
        "audio_prompt": ("float16", (16,)),
    }
    assert len(np.unique(arrays["audio_prompt"], axis=0)) == len(ids), "parts that are not alike have alike prompts"
    assert {path.name for path in alone.path("data", "audio").iterdir()} == {f"train-{n:05d}.parquet" for n in range(4)}


@pytest.mark.slow
def test_its_ledger_is_shown_like_any_other(alone: Project) -> None:
    code, output = alone.command("ledger", "data/audio_ledger.parquet")
    assert code == 0, output
    assert "duplicate" in output
    assert "the same file as sounds/long" in output
    assert f"in {LONG + 13} ready clips of 2 s" in output
    assert f"{LONG + 13} usable parts of 2 s among {LONG + 15} rows of data/audio_ledger" in alone.command("plan")[1]


@pytest.mark.slow
def test_rows_are_those_of_the_clips_stages(untrained: Project, tmp_path: Path) -> None:
    """The same sounds as videos, through stages tokens and features."""
    mine = untrained.copy(tmp_path / "project")
    rows = []
    for number, split in enumerate(("train", "train", "val", "test")):
        path = mine.path("videos", f"{number}.mp4")
        write_video(path, np.full((50, 32, 48, 3), 60 * number, np.uint8), 25, noise(2, number), RATE)
        row = {"clip_id": f"c{number}", "path": f"videos/{number}.mp4", "label": "dog", "split": split}
        rows.append({**row, "source": "folder", "state": "ready", "reason": "", "sha256": str(number)})
    write_table(mine.path("data", "usable.parquet"), rows, USABLE_SCHEMA)
    mine.change(lambda params: params["data"].update(audio=["videos"]))
    for stage in ("tokens", "features", "audio"):
        code, output = mine.stage(stage)
        assert code == 0, output
    ids, found = read_arrays(mine.path("data", "audio"), "train")
    assert ids == [f"videos/{number}/000000" for number in range(4)]
    splits = [("train", [0, 1]), ("val", [2]), ("test", [3])]
    for split, numbers in splits:
        tokens = read_arrays(mine.path("data", "tokens"), split)[1]["tokens"]
        prompts = read_arrays(mine.path("data", "features"), split)[1]["audio_prompt"]
        np.testing.assert_array_equal(found["tokens"][numbers], tokens)
        np.testing.assert_array_equal(found["audio_prompt"][numbers], prompts)


def kill_when(project: Project, seen: Callable[[], bool]) -> None:
    with project.start_stage("audio") as process:
        while not seen():
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.002)
        process.kill()


@pytest.mark.kill
def test_a_killed_run_goes_on_and_gives_the_same_bytes(untrained: Project, alone: Project, tmp_path: Path) -> None:
    mine = untrained.copy(tmp_path / "project")

    def checked() -> dict[str, int]:
        """Sounds that were inspected, and the number of the entry; of a copy, for a running stage locks the store."""
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        try:
            for file in mine.path(".work").glob("sounds-*/files.sqlite*"):
                shutil.copy(file, copy)
            with closing(sqlite3.connect(copy / "files.sqlite")) as connection:
                return dict(connection.execute("SELECT key, rowid FROM entries"))
        except (FileNotFoundError, sqlite3.DatabaseError):  # it is just being made
            return {}

    def units() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in mine.path(".work").glob("audio-*/unit-*.parquet")}

    kill_when(mine, lambda: len(checked()) > 3)
    before = checked()
    assert not mine.path("data", "audio").exists()
    kill_when(mine, lambda: len(units()) > 0)
    kept = units()
    assert before.items() <= checked().items()
    assert sorted(checked().values()) == list(range(1, 17)), "a sound was inspected twice"
    rows = sum(len(read_keys(path)) for path in mine.path(".work").glob("audio-*/unit-*.parquet"))
    code, output = mine.stage("audio")
    assert code == 0, output
    assert f"{LONG + 13} clips, {rows} of them kept from before" in output
    assert kept
    assert sorted(checked().values()) == list(range(1, 17))
    assert files(mine) == files(alone)


@pytest.mark.ray
def test_a_cluster_gives_the_same_bytes(untrained: Project, alone: Project, tmp_path: Path) -> None:
    """Ray on this machine alone, beside the note of a cluster that has died."""
    pytest.importorskip("ray")
    mine = untrained.copy(tmp_path / "project")
    mine.change(lambda params: params["run"].update(engine="ray", workers=1))
    with tempfile.TemporaryDirectory() as folder:  # a short path: Ray keeps sockets in it
        Path(folder, "ray").mkdir()
        Path(folder, "ray", "ray_current_cluster").write_text("127.0.0.1:9")
        mine.env["RAY_TMPDIR"] = folder
        code, output = mine.stage("audio")
    assert code == 0, output
    assert files(mine) == files(alone)


@pytest.mark.slow
def test_a_larger_folder_costs_its_new_files(alone: Project, tmp_path: Path) -> None:
    mine = alone.copy(tmp_path / "project")
    another = noise(5, 50)
    write_audio(mine.path("sounds", "another.wav"), another, RATE)
    write_audio(mine.path("sounds", "cut.wav"), another[2 * RATE : 4 * RATE], RATE)
    code, output = mine.stage("audio")
    assert code == 0, output
    assert f"{LONG + 17} clips, {LONG + 13} of them kept from before" in output
    ids, arrays = read_arrays(mine.path("data", "audio"), "train")
    assert ids[:4] == [*(f"sounds/another/{second:06d}" for second in (0, 2, 4)), "sounds/cut/000000"]
    old_ids, old = read_arrays(alone.path("data", "audio"), "train")
    assert ids[4:] == old_ids
    for name, array in arrays.items():
        np.testing.assert_array_equal(array[4:], old[name])
        np.testing.assert_array_equal(array[1], array[3], err_msg="a part is not what it is as a file of its own")


@pytest.mark.slow
def test_a_sound_that_breaks_after_its_inspection_costs_no_other(
    untrained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = untrained.copy(tmp_path / "project")
    monkeypatch.chdir(mine.root)
    monkeypatch.setenv("DVC_ROOT", str(mine.root))
    inspect_sounds(Params.load())
    victim = mine.path("sounds", "short", "3.flac")
    status = victim.stat()
    victim.write_bytes(bytes(status.st_size))
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    code, output = mine.stage("audio")
    assert code == 0, output
    assert states(mine)["sounds/short/3"] == "corrupt"
    ids, _ = read_arrays(mine.path("data", "audio"), "train")
    assert len(ids) == LONG + 12
    assert not any("short/3" in name for name in ids)


@pytest.mark.slow
def test_without_folders_there_are_empty_files(untrained: Project, tmp_path: Path) -> None:
    mine = untrained.copy(tmp_path / "project")
    mine.change(lambda params: params["data"].update(audio=[]))
    code, output = mine.stage("audio")
    assert code == 0, output
    ids, arrays = read_arrays(mine.path("data", "audio"), "train")
    assert ids == []
    assert {name: (array.dtype.name, array.shape) for name, array in arrays.items()} == {
        "tokens": ("int16", (0, 5, 10)),
        "audio_prompt": ("float16", (0, 16)),
    }
    assert states(mine) == {}
    code, output = mine.command("ledger", "data/audio_ledger.parquet")
    assert code == 0, output
    assert "no clip is ready" in output
    assert not mine.path(".work").exists()


@pytest.mark.slow
def test_folders_of_no_use_are_told_in_one_line(untrained: Project, tmp_path: Path) -> None:
    mine = untrained.copy(tmp_path / "project")
    for folder, message in {"gone": "error: data.audio: 'gone' is not a directory", "bad": "no usable sound"}.items():
        mine.path("bad").mkdir(exist_ok=True)
        mine.path("bad", "a.wav").write_text("no sound")
        mine.change(lambda params, folder=folder: params["data"].update(audio=[folder]))  # type: ignore[misc]
        code, output = mine.stage("audio")
        assert code == 1
        assert message in output
        assert "Traceback" not in output
    assert states(mine) == {"bad/a": "corrupt"}
