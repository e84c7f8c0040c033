import numpy as np
import pytest

from specmaskfoley.sources.inspection import inspect_clip
from specmaskfoley.storage.media import write_video
from specmaskfoley.storage.tables import LEDGER_SCHEMA, read_table, write_table

RATE = 16000


def tone(seconds, level=0.5):
    return level * np.sin(np.arange(round(seconds * RATE)) * 0.3)


def inspect(path):
    clip = {"clip_id": "a", "path": str(path), "label": "dog", "split": None, "events": None, "source": "folder"}
    return inspect_clip(clip, duration_s=2.0, min_duration_s=1.0, silence_db=-60.0)


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
    row = inspect(video(tmp_path / "a.mp4", seconds, wave))
    assert row["state"] == state
    assert reason in row["reason"]
    assert (row["reason"] == "") == (state == "ready")
    assert (row["duration_s"], row["width"], row["height"]) == (pytest.approx(seconds), 48, 32)


def test_sound_only_after_the_part_that_is_used_is_silence(tmp_path):
    wave = np.concatenate([np.zeros(3 * RATE), tone(1.0)])
    assert inspect(video(tmp_path / "a.mp4", 4.0, wave))["state"] == "silent"


def test_padding_is_what_either_stream_lacks(tmp_path):
    row = inspect(video(tmp_path / "a.mp4", 2.0, tone(1.5)))
    assert row["padded_s"] == pytest.approx(0.5, abs=0.07)
    assert inspect(video(tmp_path / "b.mp4", 3.0, tone(3.0)))["padded_s"] == 0


def test_broken_clips_keep_a_row_that_fits_the_ledger(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    rows = [inspect(tmp_path / "text.mp4"), inspect(tmp_path / "absent.mp4")]
    assert [row["state"] for row in rows] == ["unreadable", "missing"]
    write_table(tmp_path / "ledger.parquet", rows, LEDGER_SCHEMA)
    assert [row["duration_s"] for row in read_table(tmp_path / "ledger.parquet", LEDGER_SCHEMA)] == [None, None]
