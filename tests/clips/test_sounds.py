"""Folders of sounds: which files there are, which parts of them are usable, and what of val and test is kept out."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.demands import settings as demanded
from helpers.odd_media import ffmpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from specmaskfoley.clips.inspection import Demands
from specmaskfoley.clips.sounds import HeldOut, find_sounds, inspect_sound, inspect_sounds, set_aside, youtube_ids
from specmaskfoley.media.writing import write_audio, write_video
from specmaskfoley.processes.isolation import Lost
from specmaskfoley.storage.store import Store
from specmaskfoley.storage.tables import LEDGER_SCHEMA, read_table, write_table

RATE = 8000
DEMANDS = Demands(2.0, 1.0, -60.0, "hold")
ID = "-_Ab3Yy_x9Q"


def tone(seconds: float, level: float = 0.5) -> np.ndarray:
    return np.asarray(level * np.sin(np.arange(round(seconds * RATE)) * 0.3), np.float32)


def sound(path: Path, seconds: float = 2.0, level: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, tone(seconds, level), RATE)
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def inspect(path: Path, demands: Demands = DEMANDS) -> dict[str, Any]:
    return inspect_sound(str(path), demands=demands)


# ---- which files ----


def test_sounds_are_found_everywhere_below_by_their_ending(tmp_path: Path) -> None:
    names = ["b.WAV", "sub/deep/a.mp3", "v.mp4", "notes.txt", ".hidden.wav", ".dir/c.wav", "x.y.opus", "e\u0301.ogg"]
    touch(tmp_path / "set", *names)
    assert find_sounds([str(tmp_path / "set")]) == {
        "set/b": tmp_path / "set" / "b.WAV",
        "set/sub/deep/a": tmp_path / "set" / "sub" / "deep" / "a.mp3",
        "set/v": tmp_path / "set" / "v.mp4",
        "set/x.y": tmp_path / "set" / "x.y.opus",
        "set/\u00e9": tmp_path / "set" / "e\u0301.ogg",
    }


def test_ids_tell_folders_and_endings_apart(tmp_path: Path) -> None:
    for folder in ("one/set", "two/set", "other"):
        touch(tmp_path / folder, "a.wav")
    touch(tmp_path / "other", "a.flac")
    found = find_sounds([str(tmp_path / folder) for folder in ("one/set", "two/set", "other")])
    root = tmp_path.as_posix().lstrip("/")
    assert list(found) == sorted([f"{root}/one/set/a", f"{root}/two/set/a", "other/a.flac", "other/a.wav"])


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "set/a.wav", "none/a.txt")
    for folders, message in {
        ("set", "gone"): r"'\S+/gone' is not a directory",
        ("set", "none"): r"'\S+/none' holds no sound",
        ("set", "none/../set"): "names a directory twice",
    }.items():
        with pytest.raises(ValueError, match=message):
            find_sounds([str(tmp_path / folder) for folder in folders])
    touch(tmp_path, "set/b.wav", "set/b.mp3", "set/b.wav.ogg")
    with pytest.raises(ValueError, match=r"would both be 'set/b\.wav'; rename one"):
        find_sounds([str(tmp_path / "set")])


# ---- which parts ----


@settings(max_examples=40)
@given(
    samples=st.integers(1, 9 * RATE), window=st.sampled_from([1.0, 1.5, 2.0, 4.0]), least=st.sampled_from([0.5, 1.0])
)
def test_parts_follow_one_another_and_leave_out_too_little(
    tmp_path_factory: pytest.TempPathFactory, samples: int, window: float, least: float
) -> None:
    seconds = samples / RATE
    found = inspect(sound(tmp_path_factory.mktemp("parts") / "a.wav", seconds), Demands(window, least, -60.0, "hold"))
    if seconds < least - 0.001:
        assert found["state"] == "short"
        return
    parts = found["parts"]
    assert found["state"] == "ready"
    assert [part["start_s"] for part in parts] == [number * window for number in range(len(parts))]
    assert all(part["padded_s"] == 0 for part in parts[:-1])
    heard = sum(window - part["padded_s"] for part in parts)
    assert heard <= seconds + 1e-9
    assert seconds - heard < least
    assert parts[-1]["padded_s"] <= window - least + 0.001


def test_each_part_has_its_own_state(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", np.concatenate([tone(2), tone(2, 1e-4), tone(2), np.zeros(RATE)]), RATE)
    parts = inspect(tmp_path / "a.wav")["parts"]
    assert [part["state"] for part in parts] == ["ready", "silent", "ready", "silent"]
    assert "dBFS is below prepare.silence_db=-60" in parts[1]["reason"]


def test_without_padding_only_whole_parts_count(tmp_path: Path) -> None:
    unpadded = Demands(2.0, 1.0, -60.0, "none")
    assert len(inspect(sound(tmp_path / "a.wav", 5.2))["parts"]) == 3
    assert len(inspect(sound(tmp_path / "a.wav", 5.2), unpadded)["parts"]) == 2
    short = inspect(sound(tmp_path / "a.wav", 1.5), unpadded)
    assert short["state"] == "short"
    assert "less than audio.duration_s=2, and prepare.padding=none" in short["reason"]


@pytest.mark.parametrize(
    "name", ["a.wav", "a.flac", "a.mp3", "a.m4a", "a.aac", "a.ogg", "a.opus", "a.webm", "a.aif", "a.wma", "a.mkv"]
)
def test_every_usual_format_is_read(tmp_path: Path, name: str) -> None:
    whole = sound(tmp_path / "in.wav", 5.3)
    codec = {"a.ogg": ["-c:a", "libvorbis"], "a.mkv": ["-c:a", "aac"], "a.webm": ["-c:a", "libopus"]}
    ffmpeg("-i", whole, *codec.get(name, []), tmp_path / name)
    found = inspect(tmp_path / name)
    assert found["state"] == "ready"
    assert found["duration_s"] == pytest.approx(5.3, abs=0.25)
    assert [part["start_s"] for part in found["parts"]] == [0, 2, 4]


def test_the_picture_of_a_video_is_ignored(tmp_path: Path) -> None:
    pictures = np.zeros((10, 32, 48, 3), np.uint8)  # 0.4 s
    write_video(tmp_path / "a.mp4", pictures, 25, tone(2.0), RATE)
    assert inspect(tmp_path / "a.mp4")["state"] == "ready"
    write_video(tmp_path / "b.mp4", pictures, 25)
    assert inspect(tmp_path / "b.mp4")["state"] == "no_audio"


def test_a_late_and_short_sound_is_short(tmp_path: Path) -> None:
    video = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=4")
    ffmpeg(*video, "-itsoffset", "2.2", "-i", sound(tmp_path / "a.wav", 0.5), "-c:v", "libx264", tmp_path / "a.mkv")
    found = inspect(tmp_path / "a.mkv")
    assert found["state"] == "short"
    assert "from 2.20 s to 2.7" in found["reason"]


def test_what_cannot_be_used_has_a_reason(tmp_path: Path) -> None:
    whole = sound(tmp_path / "whole.wav", 4.0)
    ffmpeg("-i", whole, "-movflags", "+faststart", "-b:a", "64k", tmp_path / "whole.m4a")
    cut = (tmp_path / "whole.m4a").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(cut[: len(cut) // 2])
    (tmp_path / "text.mp3").write_text("no sound " * 100)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "link.wav").symlink_to(tmp_path / "nowhere.wav")
    sound(tmp_path / "short.wav", 0.4)
    sound(tmp_path / "silent.wav", 2.0, 0.0)
    ffmpeg("-f", "lavfi", "-i", "aevalsrc=0/0:d=2", "-c:a", "pcm_f32le", tmp_path / "nan.wav")
    expected = {
        "cut.m4a": ("corrupt", "cut off: the data end at"),
        "text.mp3": ("corrupt", "can"),
        "empty.wav": ("corrupt", "the file is empty"),
        "link.wav": ("missing", "a link to a file that does not exist"),
        "short.wav": ("short", "0.40 s of sound are less than prepare.min_duration_s=1"),
        "silent.wav": ("silent", "peak of -inf dBFS"),
        "nan.wav": ("corrupt", "NaN or infinite"),
    }
    for name, (state, reason) in expected.items():
        found = inspect(tmp_path / name)
        (told,) = found.get("parts", [found])
        assert (told["state"], reason in told["reason"]) == (state, True), (name, told)


# ---- what is kept out ----


@given(
    youtube_id=st.text("aZ0-_Y", min_size=11, max_size=11),
    before=st.sampled_from(["", "Y"]),
    after=st.sampled_from(["", "_30.000_40.000", "_000030", "_30000_40000", "-30", ".f251", " (1)"]),
)
def test_the_usual_names_tell_the_youtube_id(youtube_id: str, before: str, after: str) -> None:
    assert youtube_id in set(youtube_ids(before + youtube_id + after))


@pytest.mark.parametrize("stem", ["", "Y", "short", "averylongword", "Yaverylongword"])
def test_other_names_tell_none(stem: str) -> None:
    assert not list(youtube_ids(stem))


def clip(clip_id: str, split: str | None, state: str = "ready", sha256: str | None = None) -> dict[str, Any]:
    row = {"clip_id": clip_id, "path": f"{clip_id}.mp4", "label": "dog", "split": split, "source": "youtube"}
    return {**row, "state": state, "reason": "", "sha256": sha256}


def test_who_is_held_out() -> None:
    held_out = HeldOut(
        [
            clip(f"{ID}_000030", "test", "removed"),
            clip("bbbbbbbbbbb_000010", "val", sha256="v"),
            clip("ccccccccccc_000010", "train", sha256="t"),
            clip("ddddddddddd_000010", "train", "no_video", sha256="unused"),
            clip("eeeeeeeeeee_000010", "test", sha256="both"),
            clip("eeeeeeeeeee_000020", "train", sha256="both"),
            {**clip("sub__fffffffffff_000010", "test"), "path": "sub/fffffffffff_000010.mp4"},
            clip("dog_barking_7", "test"),
        ]
    )
    reasons = {
        ("x", f"Y{ID}"): f"by its name of the same YouTube video as the test clip {ID}_000030",
        ("x", f"{ID}_90.000_100.000"): f"by its name of the same YouTube video as the test clip {ID}_000030",
        ("x", "fffffffffff"): "by its name of the same YouTube video as the test clip sub__fffffffffff_000010",
        ("v", "any"): "the same file as the val clip bbbbbbbbbbb_000010",
        ("t", "any"): "the same file as the train clip ccccccccccc_000010",
        ("both", "any"): "the same file as the test clip eeeeeeeeeee_000010",
        ("x", "ccccccccccc_000010"): None,
        ("unused", "any"): None,
        ("x", "dog_barking_8"): None,
    }
    assert {case: held_out.reason(*case) for case in reasons} == reasons


# ---- all of it ----


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    found = demanded()
    found.run.workers = 1
    found.data = SimpleNamespace(audio=(str(tmp_path / "set"),))
    found.paths = SimpleNamespace(ledger=str(tmp_path / "ledger.parquet"))
    write_table(tmp_path / "ledger.parquet", [clip(f"{ID}_000030", "test", "removed")], LEDGER_SCHEMA)
    return found


def test_every_file_has_rows_that_fit_the_ledger(tmp_path: Path, params: SimpleNamespace) -> None:
    folder = tmp_path / "set"
    sound(folder / "long.wav", 5.0)
    sound(folder / f"{ID}_30.000.wav", 2.5)
    sound(folder / "short.wav", 0.5)
    shutil.copy(folder / "long.wav", folder / "long too.wav")
    shutil.copy(folder / "long.wav", os.fsencode(folder) + b"/latin1 \xe9.wav")
    (folder / "bad.mp3").write_text("no sound")
    rows = [part.row for part in inspect_sounds(params)]  # type: ignore[arg-type]
    write_table(tmp_path / "audio.parquet", rows, LEDGER_SCHEMA)
    assert read_table(tmp_path / "audio.parquet", LEDGER_SCHEMA) == rows
    assert {row["clip_id"]: (row["state"], row["padded_s"]) for row in rows} == {
        f"set/{ID}_30.000": ("duplicate", None),
        "set/bad": ("corrupt", None),
        "set/latin1 \\xe9": ("corrupt", None),
        "set/long/000000": ("ready", 0.0),
        "set/long/000002": ("ready", 0.0),
        "set/long/000004": ("ready", 1.0),
        "set/long too": ("duplicate", None),
        "set/short": ("short", None),
    }
    by_id = {row["clip_id"]: row for row in rows}
    assert by_id["set/long too"]["reason"] == "the same file as set/long"
    assert by_id["set/latin1 \\xe9"]["reason"] == "its name is not UTF-8 text; rename it"
    assert all(row["reason"] for row in rows if row["state"] != "ready")
    assert {row["split"] for row in rows} == {"train"}


def test_new_files_cost_only_themselves_and_what_is_set_aside_stays_so(tmp_path: Path, params: SimpleNamespace) -> None:
    for name in "ab":
        sound(tmp_path / "set" / f"{name}.wav", 2.0 + ord(name) / 1000)
    first = inspect_sounds(params)  # type: ignore[arg-type]
    (kept,) = tmp_path.glob(".work/sounds-*/files.sqlite")
    before = kept.read_bytes()
    assert inspect_sounds(params) == first  # type: ignore[arg-type]
    assert kept.read_bytes() == before
    sound(tmp_path / "set" / "c.wav", 2.3)
    assert [part.row["clip_id"] for part in inspect_sounds(params)][-1] == "set/c/000000"  # type: ignore[arg-type]
    with Store(kept) as store:
        assert len(store.known(str(tmp_path / "set" / f"{name}.wav") for name in "abc")) == 3
    set_aside(params, {str(tmp_path / "set" / "a.wav"): Lost("crashed", "reading it failed")})  # type: ignore[arg-type]
    states = [(part.row["clip_id"], part.row["state"]) for part in inspect_sounds(params)]  # type: ignore[arg-type]
    assert states == [("set/a", "crashed"), ("set/b/000000", "ready"), ("set/c/000000", "ready")]


def test_no_sound_is_ever_longer_than_told(tmp_path: Path) -> None:
    """A jump of the clock by a day gives no thousand empty parts."""
    sound(tmp_path / "a.wav", 2.0)
    ffmpeg("-i", tmp_path / "a.wav", tmp_path / "a.ts")
    ffmpeg("-itsoffset", "40000", "-i", tmp_path / "a.wav", tmp_path / "b.ts")
    (tmp_path / "c.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    found = inspect(tmp_path / "c.ts")
    assert found["duration_s"] > 3600
    assert 1 <= len(found["parts"]) <= math.ceil(4.0 / 2.0) + 2
