"""Files that are written come back as they were."""

import hashlib
import os

import numpy as np
import pytest
from helpers.timed_media import RATE, clicks, grey, index, make, place

from specmaskfoley.media.frames import read_frames
from specmaskfoley.media.probe import probe
from specmaskfoley.media.sound import read_audio
from specmaskfoley.media.writing import mux, write_video


def test_written_video_comes_back(tmp_path):
    frames = np.stack([grey(i, 48, 64) for i in range(25)])
    wave = clicks(1, [0.4], 22050)[0]
    write_video(tmp_path / "a.mp4", frames, 25, wave, 22050)
    info = probe(tmp_path / "a.mp4")
    assert (info.width, info.height, info.fps, info.rotation) == (64, 48, 25, 0)
    assert (info.duration_s, info.audio_rate, info.audio_channels) == (1.0, 22050, 1)
    assert info.video_start_s == info.audio_start_s == 0
    assert index(read_frames(tmp_path / "a.mp4", times=np.arange(25) / 25, size=16)) == list(range(25))
    back = read_audio(tmp_path / "a.mp4", sample_rate=22050, num_samples=22050)
    assert np.abs(back - wave).max() < 0.1
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_equal_input_gives_equal_bytes(tmp_path):
    rng = np.random.default_rng(0)
    wave = rng.uniform(-0.5, 0.5, 22050)
    frames = [rng.integers(0, 255, (25, *size, 3), np.uint8) for size in ((96, 112), (128, 96))]
    made = {0: set(), 1: set()}
    for _ in range(4):
        for i in (0, 1):  # in turns, so that each finds other leftovers in memory
            write_video(tmp_path / "a.mp4", frames[i], 25, wave, 22050)
            made[i].add(hashlib.sha256((tmp_path / "a.mp4").read_bytes()).hexdigest())
    assert [len(hashes) for hashes in made.values()] == [1, 1]


def test_write_video_names_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="even height and width, got 31x48"):
        write_video(tmp_path / "a.mp4", np.zeros((2, 31, 48, 3), np.uint8), 25)
    with pytest.raises(ValueError, match="float64"):
        write_video(tmp_path / "a.mp4", np.zeros((2, 32, 48, 3)), 25)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["a b.mp4", 'it\'s "q".mp4', "-dash.mp4", "é 音 🥁.mp4", "a:b %03d.mp4", "file:x.mp4"])
def test_any_file_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(name, np.zeros((3, 32, 32, 3), np.uint8), 25, np.zeros(2000), RATE)
    assert probe(name).duration_s == pytest.approx(0.12)
    assert read_frames(name, times=np.zeros(1), size=8).shape == (1, 8, 8, 3)
    assert read_audio(name, sample_rate=RATE, num_samples=5).shape == (5,)
    mux(name, np.zeros(100), RATE, "out " + name)
    assert sorted(os.listdir(tmp_path)) == sorted([name, "out " + name])


@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.0])
def test_mux_copies_the_video_and_keeps_its_length(tmp_path, seconds):
    source = make(tmp_path / "a.mp4", audio=clicks(1, [0.9]), rotate=90)
    mux(source, clicks(seconds, [0.2], 22050)[0], 22050, tmp_path / "b.mp4")
    before, after = probe(source), probe(tmp_path / "b.mp4")
    assert (after.duration_s, after.rotation, after.width) == (before.duration_s, before.rotation, before.width)
    assert after.rotation == 270
    assert after.audio_end_s == pytest.approx(after.duration_s, abs=0.05)
    times = np.arange(25) / 25
    both = [read_frames(path, times=times, size=16) for path in (source, tmp_path / "b.mp4")]
    np.testing.assert_array_equal(*both)
    assert place(read_audio(tmp_path / "b.mp4", sample_rate=RATE, num_samples=RATE), RATE) == pytest.approx(
        0.2, abs=0.002
    )


def test_mux_keeps_a_late_video_late(tmp_path):
    source = make(tmp_path / "a.mp4", range(400, 1400, 40), audio=clicks(1, [0.5]))
    mux(source, clicks(1.4, [0.6])[0], RATE, tmp_path / "b.mp4")
    info = probe(tmp_path / "b.mp4")
    assert info.video_start_s == pytest.approx(0.4, abs=0.002)
    assert place(read_audio(tmp_path / "b.mp4", sample_rate=RATE, num_samples=RATE), RATE) == pytest.approx(
        0.6, abs=0.002
    )


def test_mux_into_a_container_that_cannot_hold_the_video(tmp_path):
    source = make(tmp_path / "a.webm", codec="libvpx", audio=clicks(1, [0.5], 48000), rate=48000, audio_codec="libopus")
    with pytest.raises(ValueError, match=r"vp8.* cannot be put into \.mp4"):
        mux(source, np.zeros(10), RATE, tmp_path / "b.mp4")
    mux(source, np.zeros(10), RATE, tmp_path / "b.mkv")
    assert probe(tmp_path / "b.mkv").duration_s == pytest.approx(1.0, abs=0.05)
    assert sorted(os.listdir(tmp_path)) == ["a.webm", "b.mkv"]


def test_real_clips(clips, tmp_path):
    paths = sorted(clips.glob("*.mp4"))[:3]
    assert paths, f"no .mp4 files in {clips}"
    for clip in paths:
        info = probe(clip)
        assert info.duration_s == pytest.approx(10, abs=0.1)
        assert info.audio_end_s == pytest.approx(10, abs=0.1)
        assert np.abs(read_audio(clip, sample_rate=22050, num_samples=220500)).max() > 0.01
        mux(clip, np.zeros(220500), 22050, tmp_path / clip.name)
        assert probe(tmp_path / clip.name).duration_s == pytest.approx(info.duration_s, abs=0.002)
