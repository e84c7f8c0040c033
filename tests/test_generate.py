"""`specmaskfoley generate` on all kinds of videos, with the model of the tiny project."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from tiny import Project

from specmaskfoley.storage.media import probe, read_frames, write_video

pytestmark = pytest.mark.slow


def video(path: Path, seconds: float, *, fps: int = 25, size: tuple[int, int] = (48, 64), sound: bool = False) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (round(fps * seconds), *size, 3), np.uint8)
    wave = np.sin(np.arange(round(16000 * seconds)) * 0.3).astype(np.float32) if sound else None
    write_video(path, frames, fps, wave, 16000)
    return path


def test_odd_videos_get_sound_of_their_own_length(project: Project, tmp_path: Path):
    videos = [
        video(tmp_path / "short.mp4", 0.2),
        video(tmp_path / "one window.mp4", 1.5, sound=True),
        video(tmp_path / 'three "windows" v1.0.mp4', 5.0, fps=30),
        video(tmp_path / "portrait.mp4", 1.0, size=(3840, 2160), fps=5),
    ]
    code, output = project.command(
        "generate", *map(str, videos), "--out", str(tmp_path / "out"), "--text", "playing drum"
    )
    assert code == 0, output
    for path in videos:
        source, made = probe(path), probe(tmp_path / "out" / path.name)
        assert made.duration_s == pytest.approx(source.duration_s, abs=1 / source.fps)
        assert made.audio_end_s == pytest.approx(source.duration_s, abs=0.05)
        wave, rate = soundfile.read(tmp_path / "out" / f"{path.stem}.flac")
        assert len(wave) / rate == pytest.approx(source.duration_s, abs=1 / source.fps)
        assert 0 < np.abs(wave).max() < 1
        times = np.array([0.0, source.duration_s / 2])
        size = (source.height, source.width)
        np.testing.assert_array_equal(
            read_frames(path, times=times, size=size), read_frames(tmp_path / "out" / path.name, times=times, size=size)
        )


def test_equal_seeds_give_equal_sound_and_other_seeds_do_not(project: Project, tmp_path: Path):
    source = str(video(tmp_path / "a.mp4", 1.5))
    for name, seed in (("first", "1"), ("again", "1"), ("other", "2")):
        code, output = project.command("generate", source, "--out", str(tmp_path / name), "--seed", seed)
        assert code == 0, output
    first, again, other = ((tmp_path / name / "a.flac").read_bytes() for name in ("first", "again", "other"))
    assert first == again
    assert first != other


def test_a_bad_video_is_one_line_and_the_others_are_made(project: Project, tmp_path: Path):
    (tmp_path / "-text.mp4").write_text("no video")
    video(tmp_path / "good.mp4", 1.0)
    code, output = project.command("generate", str(tmp_path), "--out", str(tmp_path / "out"))
    assert code == 1
    assert "error: -text.mp4: " in output
    assert "Traceback" not in output
    assert (tmp_path / "out" / "good.mp4").exists()
    assert not list((tmp_path / "out").glob("-text*"))


def test_mistakes_in_the_arguments_are_one_line(project: Project, tmp_path: Path):
    code, output = project.command("generate", str(tmp_path / "gone.mp4"), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "no such file or folder" in output
    assert "Traceback" not in output


def test_real_videos_flow_through(project: Project, clips: Path, tmp_path: Path):
    some = sorted(clips.glob("*.mp4"))[:3]
    code, output = project.command("generate", *(str(clip) for clip in some), "--out", str(tmp_path))
    assert code == 0, output
    for clip in some:
        with av.open(str(tmp_path / clip.name)) as made:
            assert [stream.type for stream in made.streams] == ["video", "audio"]
        assert probe(tmp_path / clip.name).duration_s == pytest.approx(probe(clip).duration_s, abs=0.04)
