"""Flash and click: what is seen and heard together in a file is so in the arrays, however the file says when.

Times by which the pictures and the sound start lie in timestamps and in edit lists. Each case is a file with white
flashes of one frame and clicks at known times; both must come back within one frame of their time and of each other.
"""

from __future__ import annotations

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from helpers.odd_media import edits, without_edits

from specmaskfoley.media.frames import View, read_views
from specmaskfoley.media.sound import read_audio
from specmaskfoley.media.writing import write_audio, write_video

FPS, RATE, SECONDS = 25, 22050, 6
TIMES = (1.0, 2.2, 3.4, 4.6)  # of the flashes and clicks in the source
FRAME_S = 1 / FPS


def ffmpeg(*arguments):
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", "-loglevel", "error"]
    subprocess.run([*program, *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The source: 6 s of flashes and clicks at TIMES, B-frames and one key frame a second."""
    home = tmp_path_factory.mktemp("flash")
    frames = np.zeros((SECONDS * FPS, 48, 64, 3), np.uint8)
    wave = np.zeros(SECONDS * RATE, np.float32)
    for time in TIMES:
        frames[round(time * FPS)] = 255
        first = round(time * RATE)
        wave[first : first + 200] = 0.9 * np.sin(np.arange(200) * 0.6) * np.linspace(1, 0, 200)
    write_video(home / "silent.mp4", frames, FPS)
    write_audio(home / "click.wav", wave, RATE)
    path = home / "plain.mp4"
    video = ("-c:v", "libx264", "-preset", "fast", "-bf", "2", "-g", "25", "-pix_fmt", "yuv420p")
    ffmpeg("-i", home / "silent.mp4", "-i", home / "click.wav", *video, "-c:a", "aac", "-b:a", "128k", path)
    return path


def late_sound(plain, path):
    ffmpeg("-i", plain, "-itsoffset", "0.3", "-i", plain, "-map", "0:v", "-map", "1:a", "-c", "copy", path)
    return 0.0, 0.3


def late_video(plain, path):
    ffmpeg("-itsoffset", "0.3", "-i", plain, "-i", plain, "-map", "0:v", "-map", "1:a", "-c", "copy", path)
    return 0.3, 0.0


def cut(plain, path):
    """From 0.5 s, between two key frames: the edit list passes over what is only there to be decoded."""
    ffmpeg("-ss", "0.5", "-i", plain, "-c", "copy", path)
    return -0.5, -0.5


def cut_and_late(plain, path):
    ffmpeg(
        *("-ss", "0.5", "-i", plain, "-ss", "0.5", "-itsoffset", "0.3", "-i", plain),
        *("-map", "0:v", "-map", "1:a", "-c", "copy", path),
    )
    return -0.5, -0.2


def whole(plain, path):
    path.write_bytes(plain.read_bytes())
    return 0.0, 0.0


def flashes(path):
    """Seconds at which the picture is white."""
    view = View(FPS, SECONDS * FPS, 32, "stretch", "on_screen")
    level = read_views(path, [view])[view].mean(axis=(1, 2, 3))
    return np.flatnonzero(level > 128) / FPS


def clicks(path):
    """Seconds at which a click begins."""
    wave = np.abs(read_audio(path, sample_rate=RATE, num_samples=SECONDS * RATE))
    loud = np.flatnonzero(wave > 0.3)
    return loud[np.diff(loud, prepend=-RATE) > RATE // 5] / RATE


@pytest.mark.parametrize(
    ("make", "name", "edited"),
    [
        (whole, "whole.mp4", False),
        (whole, "whole.mkv", False),
        (late_sound, "late_sound.mp4", False),
        (late_sound, "late_sound.mkv", False),
        (late_video, "late_video.mp4", False),
        (late_video, "late_video.mkv", False),
        (cut, "cut.mp4", True),
        (cut, "cut.mov", True),
        (cut_and_late, "cut_and_late.mp4", True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_flash_and_click_come_back_in_time(plain, tmp_path, make, name, edited):
    path = tmp_path / name
    if path.suffix == ".mkv" and make is whole:
        ffmpeg("-i", plain, "-c", "copy", path)
        video_late, sound_late = 0.0, 0.0
    else:
        video_late, sound_late = make(plain, path)
    if edited:
        assert any(media_time > 1000 for entries in edits(path) for _, media_time in entries), edits(path)
    seen = [time + video_late for time in TIMES]
    heard = [time + sound_late for time in TIMES]
    found_seen, found_heard = flashes(path), clicks(path)
    assert (len(found_seen), len(found_heard)) == (len(TIMES), len(TIMES)), (found_seen, found_heard)
    errors = np.concatenate(
        [found_seen - seen, found_heard - heard, (found_heard - found_seen) - (sound_late - video_late)]
    )
    print(f"{name}: {1000 * np.abs(errors).max():.1f} ms")
    assert np.abs(errors).max() <= FRAME_S


def test_the_edit_list_is_what_puts_it_right(plain, tmp_path):
    """Without its edit list the cut file is out of time: the test above is about something."""
    cut(plain, tmp_path / "cut.mp4")
    without_edits(tmp_path / "cut.mp4", tmp_path / "blind.mp4")
    assert edits(tmp_path / "blind.mp4") == []
    shown = flashes(tmp_path / "blind.mp4")
    assert abs(shown[0] - (TIMES[0] - 0.5)) > 2 * FRAME_S
