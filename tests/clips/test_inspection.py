import hashlib
import os
import re
import time
from functools import wraps
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.bad_decoder import misbehave
from helpers.demands import row, settings

from specmaskfoley.clips import inspection
from specmaskfoley.clips.inspection import Demands, inspect_clip, inspect_clips, set_aside
from specmaskfoley.media.writing import write_video
from specmaskfoley.storage.store import Store
from specmaskfoley.storage.tables import LEDGER_SCHEMA, read_table, write_table

RATE = 16000
DEMANDS = Demands(2.0, 1.0, -60.0, "hold")


def tone(seconds, level=0.5):
    return level * np.sin(np.arange(round(seconds * RATE)) * 0.3)


def inspect(path, demands=DEMANDS):
    return inspect_clip(str(path), demands=demands)


def video(path, seconds=2.0, wave=None):
    write_video(path, np.zeros((round(seconds * 25), 32, 48, 3), np.uint8), 25, wave, RATE)
    return path


@pytest.mark.parametrize(
    ("seconds", "wave", "state", "reason"),
    [
        (2.0, tone(2.0), "ready", ""),
        (2.0, None, "no_audio", "no sound track"),
        (2.0, tone(2.0, 1e-4), "silent", "dBFS is below prepare.silence_db=-60"),
        (2.0, tone(2.0, 0.0), "silent", "peak of -inf dBFS"),
        (0.2, tone(2.0), "short", "0.20 s of video and 2.00 s of sound are less than prepare.min_duration_s=1"),
        (2.0, tone(0.5), "short", "2.00 s of video and 0.50 s of sound"),
        (1.0, tone(1.0), "ready", ""),
    ],
)
def test_states_and_reasons(tmp_path, seconds, wave, state, reason):
    found = inspect(video(tmp_path / "a.mp4", seconds, wave))
    assert found["state"] == state
    assert reason in found["reason"]
    assert (found["reason"] == "") == (state == "ready")
    assert (found["duration_s"], found["width"], found["height"]) == (pytest.approx(seconds), 48, 32)


def test_sound_only_after_the_part_that_is_used_is_silence(tmp_path):
    wave = np.concatenate([np.zeros(3 * RATE), tone(1.0)])
    assert inspect(video(tmp_path / "a.mp4", 4.0, wave))["state"] == "silent"


def test_padding_is_what_either_stream_lacks(tmp_path):
    found = inspect(video(tmp_path / "a.mp4", 2.0, tone(1.5)))
    assert found["padded_s"] == pytest.approx(0.5, abs=0.07)
    assert found["padding"] == "hold"
    found = inspect(video(tmp_path / "b.mp4", 3.0, tone(3.0)))
    assert (found["padded_s"], found["padding"]) == (0, None)


@pytest.mark.parametrize(
    ("seconds", "wave", "state"),
    [(2.0, tone(2.0), "ready"), (1.96, tone(1.95), "ready"), (1.88, tone(2.0), "short"), (2.0, tone(1.7), "short")],
)
def test_without_padding_a_frame_or_a_packet_may_lack(tmp_path, seconds, wave, state):
    found = inspect(video(tmp_path / "a.mp4", seconds, wave), Demands(2.0, 1.0, -60.0, "none"))
    assert found["state"] == state
    assert ("audio.duration_s=2, and prepare.padding=none" in found["reason"]) == (state == "short")


def test_what_the_file_is_and_who_read_it(tmp_path):
    path = video(tmp_path / "a.mp4", 2.0, tone(2.0))
    found = inspect(path)
    assert found["size_bytes"] == path.stat().st_size
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert re.fullmatch(r"PyAV [\d.]+, FFmpeg \S+ \(libavcodec [\d.]+\)", found["decoder"])


def test_a_fault_of_the_reading_is_told_and_ends_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("odd file")

    monkeypatch.setattr(inspection, "probe", fail)
    found = inspect(video(tmp_path / "a.mp4", 2.0, tone(2.0)))
    assert (found["state"], found["reason"]) == ("corrupt", "reading it fails: ZeroDivisionError: odd file")


# ---- many clips ----


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    found = settings()
    found.run.workers = 1
    return found


@pytest.fixture
def opened(monkeypatch):
    """Paths that a run opened; the pool's work is done here."""
    paths = []

    class Pool:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def map(self, function, items, **_):
            for item in items:
                paths.append(os.path.basename(item))
                yield function(item)

    monkeypatch.setattr(inspection, "IsolatedPool", Pool)
    return paths


def test_rows_of_all_clips_fit_the_ledger(tmp_path, params):
    (tmp_path / "text.mp4").write_text("no video")
    gone = row(
        tmp_path / "gone.mp4", state="removed", reason="Video unavailable", tried_at="2026-01-31T12:00:00Z", tries=2
    )
    listed = [
        row(video(tmp_path / "a.mp4", 2.0, tone(2.0))),
        gone,
        row(tmp_path / "text.mp4"),
        row(tmp_path / "no.mp4"),
    ]
    ledger = inspect_clips(listed, params)
    assert [entry["state"] for entry in ledger] == ["ready", "removed", "corrupt", "missing"]
    assert {name: value for name, value in ledger[1].items() if value is not None} == {
        name: value for name, value in gone.items() if value is not None
    }
    write_table(tmp_path / "ledger.parquet", ledger, LEDGER_SCHEMA)
    back = read_table(tmp_path / "ledger.parquet", LEDGER_SCHEMA)
    assert [entry["duration_s"] for entry in back] == [2.0, None, None, None]
    assert [entry["size_bytes"] for entry in back][2] == 8


def test_more_clips_cost_only_themselves(tmp_path, params, opened):
    rows = [row(video(tmp_path / f"{name}.mp4", 2.0, tone(2.0))) for name in "abc"]
    first = inspect_clips(rows[:2], params)
    assert opened == ["a.mp4", "b.mp4"]
    assert inspect_clips(rows, params)[:2] == first
    assert opened[2:] == ["c.mp4"]
    (tmp_path / "b.mp4").write_text("another file")
    assert [entry["state"] for entry in inspect_clips(rows, params)] == ["ready", "corrupt", "ready"]
    assert opened[3:] == ["b.mp4"]
    (tmp_path / "a.mp4").unlink()
    assert [entry["state"] for entry in inspect_clips(rows, params)] == ["missing", "corrupt", "ready"]
    params.prepare.silence_db = -50.0
    inspect_clips(rows, params)
    assert opened[5:] == ["a.mp4", "b.mp4", "c.mp4"], "other demands, other findings"


def test_a_killed_run_goes_on_where_it_was(tmp_path, params, opened, monkeypatch):
    rows = [row(video(tmp_path / f"{name}.mp4", 2.0, tone(2.0))) for name in "abc"]

    @wraps(inspect_clip)  # what is kept belongs to this code
    def stop(path, demands):
        if path.endswith("c.mp4"):
            raise KeyboardInterrupt
        return inspect_clip(path, demands=demands)

    with monkeypatch.context() as patch:
        patch.setattr(inspection, "inspect_clip", stop)
        with pytest.raises(KeyboardInterrupt):
            inspect_clips(rows, params)
    assert [entry["state"] for entry in inspect_clips(rows, params)] == ["ready"] * 3
    assert opened == ["a.mp4", "b.mp4", "c.mp4", "c.mp4"]


def test_a_clip_set_aside_stays_so_until_it_changes(tmp_path, params, opened):
    rows = [row(video(tmp_path / f"{name}.mp4", 2.0, tone(2.0))) for name in "ab"]
    inspect_clips(rows, params)
    set_aside(params, rows[0]["path"], "crashed", "reading it ended its process by SIGSEGV")
    ledger = inspect_clips(rows, params)
    assert [entry["state"] for entry in ledger] == ["crashed", "ready"]
    assert ledger[0]["reason"] == "reading it ended its process by SIGSEGV"
    assert ledger[0]["sha256"]
    assert len(opened) == 2
    os.utime(rows[0]["path"], (1, 1))
    assert [entry["state"] for entry in inspect_clips(rows, params)] == ["ready", "ready"]


def test_other_limits_are_another_chance(tmp_path, params, opened):
    rows = [row(video(tmp_path / "a.mp4", 2.0, tone(2.0)))]
    set_aside(params, rows[0]["path"], "timeout", "reading it took longer than prepare.clip_timeout_s=20")
    assert inspect_clips(rows, params)[0]["state"] == "timeout"
    params.prepare.clip_timeout_s = 40.0
    assert inspect_clips(rows, params)[0]["state"] == "ready"


@pytest.mark.skipif(os.name == "nt", reason="signals and memory limits of POSIX")
def test_files_that_crash_or_hang_their_reader_have_rows_and_are_not_tried_again(tmp_path, params, monkeypatch):
    params.prepare = SimpleNamespace(**{**vars(params.prepare), "clip_timeout_s": 4.0})
    params.run.workers = 2
    names = ["a", "crash", "b", "hang", "memory", "c"]
    rows = [row(video(tmp_path / f"{name}.mp4", 2.0, tone(2.0))) for name in names]
    monkeypatch.setattr(inspection, "inspect_clip", misbehave)
    ledger = inspect_clips(rows, params)
    assert {name: entry["state"] for name, entry in zip(names, ledger, strict=True)} == {
        **dict.fromkeys("abc", "ready"),
        "crash": "crashed",
        "hang": "timeout",
        "memory": "crashed",
    }
    assert "SIGSEGV" in ledger[1]["reason"]
    assert "prepare.clip_timeout_s=4" in ledger[3]["reason"]
    assert "prepare.clip_memory_gb=2" in ledger[4]["reason"]
    begin = time.monotonic()
    assert inspect_clips(rows, params) == ledger
    assert time.monotonic() - begin < 1
    (kept,) = tmp_path.glob(".work/prepare-*/files.sqlite")
    with Store(kept) as store:
        assert store.known(row["path"] for row in rows) == {row["path"] for row in rows}
