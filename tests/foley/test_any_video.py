"""Whatever FFmpeg can write ends as a video with the new sound, or as the sound with one line why."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections import Counter
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from helpers.odd_media import H264, encode, ffmpeg

from specmaskfoley.foley.takes import Take
from specmaskfoley.media import writing
from specmaskfoley.media.container import MediaError
from specmaskfoley.media.probe import probe
from specmaskfoley.storage.files import sha256

RATE = 22050
CONTAINERS = ("mp4", "mov", "mkv", "webm", "avi", "ts", "mpg", "flv", "3gp", "wmv", "ogv", "gif", "mxf", "nut")
PICTURES = (
    "libx264", "libx265 -x265-params log-level=none", "libvpx -cpu-used 8", "libvpx-vp9 -cpu-used 8",
    "libsvtav1 -preset 12 -svtav1-params lp=1", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg -pix_fmt yuvj420p",
    "prores_ks", "cfhd", "wmv2", "msmpeg4v2", "flv1", "h263", "rawvideo -pix_fmt yuv420p", "ffv1", "huffyuv", "qtrle",
    "libtheora", "gif", "png",
)  # fmt: skip
SOUNDS = ("aac", "libmp3lame", "libopus", "libvorbis", "pcm_s16le", "ac3", "flac", "wmav2", "mp2")


def take_of(video: Path) -> Take:
    duration_s = probe(video).duration_s
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, max(1, round(duration_s * RATE))).astype(np.float32)
    record = {"video": {"sha256": sha256(video)}, "history": [{"operation": "generate"}]}
    return Take(video, noise, RATE, 0, np.zeros((5, 1), np.int64), None, record)


def check(video: Path, out: Path) -> str:
    """What became of it: copied, encoded when asked, or refused before any work."""
    try:
        duration_s = probe(video).duration_s
    except MediaError:
        return "refused"
    saved = take_of(video).save(out / video.name)
    assert probe_sound(saved.audio) == pytest.approx(duration_s, abs=0.05)
    files = json.loads(saved.record.read_text())["files"]
    if saved.video is None:
        assert saved.trouble.startswith("its picture cannot be copied into"), f"known before the work: {saved.trouble}"
        assert "video" not in files
        assert not [path for path in saved.audio.parent.iterdir() if path.suffix in writing.COPIED]
        saved = take_of(video).save(out / video.name, picture="encode")
        kind = "encoded"
    else:
        assert saved.video.suffix in writing.COPIED
        kind = f"copied into {saved.video.suffix}"
    assert saved.video is not None, saved.trouble
    ffmpeg("-i", saved.video, "-f", "null", "-")
    info = probe(saved.video)
    assert info.duration_s == pytest.approx(duration_s, abs=0.15)
    assert info.audio_end_s == pytest.approx(duration_s, abs=0.15)
    return kind


def probe_sound(path: Path) -> float:
    from specmaskfoley.media.sound import examine_track

    return examine_track(path, 1.0).end_s


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_container_picture_and_sound(tmp_path: Path) -> None:
    """Over a minute: some three hundred files are written, and each is saved."""
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", "-loglevel", "quiet", "-threads", "1", "-f", "lavfi"]
    sounds = itertools.cycle(SOUNDS)
    found: Counter[str] = Counter()
    pairs = [(container, picture, next(sounds)) for container in CONTAINERS for picture in PICTURES]
    pairs += [(container, PICTURES[0], sound) for container in CONTAINERS for sound in SOUNDS]
    wrong = []
    for number, (container, picture, sound) in enumerate(pairs):
        path = tmp_path / f"{number}.{container}"
        sources = ["-i", "testsrc2=size=176x144:rate=25:duration=1", "-f", "lavfi", "-i", "sine=duration=1:r=48000"]
        command = [*program, *sources, "-c:v", *picture.split(), "-c:a", sound, "-strict", "-2", str(path)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            continue  # FFmpeg does not write this pair
        try:
            found[check(path, tmp_path / f"out{number}")] += 1
        except (AssertionError, ValueError, OSError) as error:
            wrong.append(f"{container}, {picture}, {sound}: {type(error).__name__} {str(error)[:200]}")
    assert not wrong, "\n".join(wrong)
    print(dict(found))
    assert found.total() > 150
    assert found.pop("refused", 0) < 40  # pictures for which FFmpeg has no decoder in such files
    assert set(found) == {"encoded", *(f"copied into {suffix}" for suffix in writing.COPIED)}


def test_a_picture_that_fails_only_when_it_is_written_costs_the_video_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(tmp_path / "a.wmv", "-c:v", "wmv2", "-an")
    monkeypatch.setattr("specmaskfoley.foley.takes.copied_suffix", lambda video: ".mkv")  # as if the look were wrong
    saved = take_of(tmp_path / "a.wmv").save(tmp_path / "out" / "a")
    assert saved.video is None
    assert saved.trouble == "the video: wmv2 video cannot be put into .mkv"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.flac", "a.json"]


def test_a_picture_gets_no_sound(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48", "-frames:v", "1", tmp_path / "t.png")
    with pytest.raises(MediaError, match="a single picture"):
        take_of(tmp_path / "t.png")


def test_the_track_that_is_mixed_may_be_chosen(tmp_path: Path) -> None:
    tones = [part for hertz in (200, 4000) for part in ("-f", "lavfi", "-i", f"sine={hertz}:d=1:r=22050")]
    maps = ("-map", "0:v", "-map", "1:a", "-map", "2:a")
    sources = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=1", *tones)
    ffmpeg(*sources, *maps, *H264, "-c:a", "aac", tmp_path / "a.mkv")
    loudest = []
    for track in (None, 2):
        saved = take_of(tmp_path / "a.mkv").save(
            tmp_path / f"out{track}" / "a", keep_original_audio="mix", audio_track=track
        )
        assert saved.video is not None
        wave = writing.read_track(saved.video).waveform[:, 0]
        loudest.append(np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave))
    assert loudest == [pytest.approx(200, abs=20), pytest.approx(4000, abs=20)]
