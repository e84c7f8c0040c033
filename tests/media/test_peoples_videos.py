"""Videos as phones, screen recorders, cameras and editors write them: read as players show them, and written whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.odd_media import AAC, H264, PICTURE, TONE, encode, ffmpeg

from specmaskfoley.media.container import MediaError
from specmaskfoley.media.frames import read_frames
from specmaskfoley.media.probe import probe
from specmaskfoley.media.sound import read_audio, read_track
from specmaskfoley.media.writing import copied_suffix, mux

RATE = 22050
LAVFI = ("-f", "lavfi", "-i")
HEVC = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")
FIRST_SECOND = ("-vf", "select='lt(t,1)'", "-fps_mode", "vfr")


def under_noise(source: Path, suffix: str | None = None, **options: object) -> Path:
    """The video under another sound, as `generate` writes it."""
    out = source.with_name(f"{source.stem}-out{suffix or copied_suffix(source)}")
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, round(probe(source).duration_s * RATE)).astype(np.float32)
    mux(source, noise, RATE, out, **options)  # type: ignore[arg-type]
    ffmpeg("-i", out, "-f", "null", "-")  # every packet can be decoded
    return out


def tag(path: Path) -> str:
    with av.open(str(path)) as container:
        return str(container.streams.video[0].codec_context.codec_tag)


# ---- what a video is ----


def test_subtitles_may_end_after_the_picture(tmp_path):
    lines = tmp_path / "s.srt"
    lines.write_text("1\n00:00:00,000 --> 00:00:02,000\nhi\n\n2\n00:00:07,000 --> 00:00:09,000\nbye\n")
    sources = (*LAVFI, PICTURE, *LAVFI, TONE, "-i", lines)
    ffmpeg(*sources, *H264, *AAC, "-c:s", "srt", tmp_path / "a.mkv")
    assert probe(tmp_path / "a.mkv").duration_s == pytest.approx(3.0, abs=0.05)
    whole = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match="cut off"):
        probe(tmp_path / "cut.mkv")


@pytest.mark.parametrize("options", [("a.mkv", *H264, *AAC), ("a.webm", "-c:v", "libvpx", "-c:a", "libvorbis")])
def test_a_screen_that_stands_still_lasts_until_the_file_ends(tmp_path, options):
    name, *codecs = options
    long = {"picture": PICTURE.replace("=3", "=10"), "tone": TONE.replace("=3", "=10")}
    encode(tmp_path / name, *FIRST_SECOND, *codecs, **long)
    assert probe(tmp_path / name).duration_s == pytest.approx(10.0, abs=0.05)
    late, last = read_frames(tmp_path / name, times=np.array([9.0, 0.96]), size=32)
    assert np.array_equal(late, last)
    info = probe(under_noise(tmp_path / name))
    assert info.duration_s == pytest.approx(10.0, abs=0.05)
    assert info.audio_end_s == pytest.approx(10.0, abs=0.05)


def test_the_clock_of_joined_recordings_goes_on(tmp_path):
    first, second = tmp_path / "1.ts", tmp_path / "2.ts"
    encode(first, *H264, *AAC)
    encode(second, *H264, *AAC, picture=PICTURE.replace("testsrc2", "smptebars"))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    assert probe(joined).duration_s == pytest.approx(6.0, abs=0.1)
    early, late = read_frames(joined, times=np.array([1.0, 4.5]), size=32)
    assert np.array_equal(early, read_frames(first, times=np.array([1.0]), size=32)[0])
    assert np.abs(late.astype(int) - read_frames(second, times=np.array([1.4]), size=32)[0]).mean() < 2
    assert len(read_track(joined).waveform) / RATE == pytest.approx(6.0, abs=0.2)
    assert np.abs(read_audio(joined, sample_rate=RATE, num_samples=RATE, start_s=4.5)).max() > 0.05
    assert probe(under_noise(joined)).duration_s == pytest.approx(6.0, abs=0.1)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_thumbnail_is_not_the_video(tmp_path, name):
    thumbnail = PICTURE.replace("duration=3", "duration=0.04")
    maps = ("-map", "0:v", "-map", "1:v", "-map", "2:a")
    ffmpeg(*LAVFI, thumbnail, *LAVFI, PICTURE, *LAVFI, TONE, *maps, *H264, *AAC, tmp_path / name)
    assert probe(tmp_path / name).duration_s == pytest.approx(3.0, abs=0.05)
    assert probe(under_noise(tmp_path / name)).duration_s == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize(("default", "width"), [((), 64), (("-disposition:v:0", "default"), 32)])
def test_of_two_moving_pictures_the_default_one_then_the_larger_is_seen(tmp_path, default, width):
    small = PICTURE.replace("64x48", "32x24")
    maps = ("-map", "0:v", "-map", "1:v", "-disposition:v", "0")
    ffmpeg(*LAVFI, small, *LAVFI, PICTURE, *maps, *default, *H264, tmp_path / "a.mkv")
    assert probe(tmp_path / "a.mkv").width == width


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_the_default_sound_track_is_heard(tmp_path, name):
    maps = ("-map", "0:v", "-map", "1:a", "-map", "2:a", "-disposition:a:0", "0", "-disposition:a:1", "default")
    ffmpeg(*LAVFI, PICTURE, *LAVFI, "anullsrc=d=3", *LAVFI, TONE, *maps, *H264, *AAC, tmp_path / name)
    assert probe(tmp_path / name).audio_tracks == 2
    peaks = [np.abs(read_track(tmp_path / name, number).waveform).max() for number in (None, 1, 2)]
    assert peaks[0] == peaks[2] > 0.05
    assert peaks[1] < 0.001
    with pytest.raises(MediaError, match="no sound track 3; the file has 2"):
        read_track(tmp_path / name, 3)


def test_channels_that_change_midway_are_mixed_to_the_larger_layout(tmp_path):
    parts = []
    for layout in ("stereo", "5.1"):
        parts.append(tmp_path / f"{layout}.ac3")
        ffmpeg(*LAVFI, f"anoisesrc=d=3,aformat=channel_layouts={layout}:sample_rates=48000", "-c:a", "ac3", parts[-1])
    (tmp_path / "both.ac3").write_bytes(b"".join(part.read_bytes() for part in parts))
    long = PICTURE.replace("duration=3", "duration=6")
    ffmpeg(*LAVFI, long, "-i", tmp_path / "both.ac3", *H264, "-c:a", "copy", tmp_path / "a.mkv")
    track = read_track(tmp_path / "a.mkv").waveform
    assert track.shape == (pytest.approx(6 * 48000, rel=0.01), 6)
    stereo, surround = np.abs(track[24000:120000]).max(0), np.abs(track[-120000:-24000]).max(0)
    assert (stereo[:2] > 0.1).all()
    assert (stereo[2:] == 0).all()
    assert (surround > 0.1).any()
    assert probe(under_noise(tmp_path / "a.mkv", keep="mix")).audio_channels == 6


@pytest.mark.parametrize("name", ["t.png", "t.jpg", "t.webp"])
def test_a_picture_is_no_video_whatever_it_is_called(tmp_path, name):
    ffmpeg(*LAVFI, PICTURE, *(("-c:v", "libwebp_anim") if name == "t.webp" else ("-frames:v", "1")), tmp_path / name)
    shutil.copy(tmp_path / name, tmp_path / "clip.mp4")
    for path in (tmp_path / name, tmp_path / "clip.mp4"):
        with pytest.raises(MediaError, match="a single picture, not a video"):
            probe(path)


# ---- what becomes of its picture ----


def test_hevc_keeps_a_tag_that_quicktime_plays(tmp_path):
    encode(tmp_path / "a.mov", *HEVC, "-tag:v", "hvc1", *AAC)
    encode(tmp_path / "b.mkv", *HEVC, *AAC)
    assert [tag(under_noise(tmp_path / name)) for name in ("a.mov", "b.mkv")] == ["hvc1", "hvc1"]


def test_other_tags_stay_as_they_came(tmp_path):
    encode(tmp_path / "a.mp4", *H264, "-tag:v", "avc3", *AAC)
    encode(tmp_path / "b.mkv", *H264, *AAC)
    assert [tag(under_noise(tmp_path / name)) for name in ("a.mp4", "b.mkv")] == ["avc3", "avc1"]


def test_transparency_is_kept(tmp_path):
    clear = "testsrc2=size=64x48:rate=25:duration=1,format=yuva420p,geq=lum='p(X,Y)':a='X*4'"
    ffmpeg(*LAVFI, clear, "-c:v", "libvpx-vp9", "-cpu-used", "8", "-pix_fmt", "yuva420p", tmp_path / "a.webm")
    out = under_noise(tmp_path / "a.webm")
    with av.open(str(out)) as container:
        assert {key.lower(): value for key, value in container.streams.video[0].metadata.items()}["alpha_mode"] == "1"
    ffmpeg("-c:v", "libvpx-vp9", "-i", out, "-vf", "alphaextract", "-frames:v", "1", tmp_path / "alpha.png")


EDITING = {
    "dnxhr.mov": ("-s", "320x240", "-c:v", "dnxhd", "-profile:v", "dnxhr_lb", "-pix_fmt", "yuv422p"),
    "cfhd.mov": ("-c:v", "cfhd"),
    "prores.mov": ("-c:v", "prores_ks"),
    "dv.dv": ("-s", "720x576", "-c:v", "dvvideo", "-pix_fmt", "yuv420p", "-ar", "48000", "-ac", "2"),
}


@pytest.mark.parametrize("name", EDITING)
def test_pictures_of_editors_stay_in_mov(tmp_path, name):
    sound = () if name.endswith(".dv") else ("-c:a", "pcm_s16le")
    encode(tmp_path / name, *EDITING[name], *sound)
    out = under_noise(tmp_path / name)
    assert out.suffix in (".mov", ".mp4")
    with av.open(str(tmp_path / name)) as old, av.open(str(out)) as new:
        kinds = [container.streams.video[0].codec_context.name for container in (old, new)]
    assert kinds[0] == kinds[1]


OLD = {
    "a.wmv": ("-c:v", "wmv2", "-c:a", "wmav2"),
    "a.flv": ("-c:v", "flv1", "-c:a", "libmp3lame", "-ar", "44100"),
    "a.gif": ("-c:v", "gif", "-an"),
    "a.avi": ("-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-c:a", "pcm_s16le"),
}


@pytest.mark.parametrize("name", OLD)
def test_a_picture_that_no_container_takes_is_known_before_and_can_be_encoded(tmp_path, name):
    encode(tmp_path / name, *OLD[name])
    assert copied_suffix(tmp_path / name) is None
    out = under_noise(tmp_path / name, ".mp4", picture="encode")
    info = probe(out)
    assert (info.width, info.height) == (64, 48)
    assert info.duration_s == pytest.approx(3.0, abs=0.07)
    times = np.array([0.5, 2.5])
    old, new = (read_frames(path, times=times, size=48).astype(int) for path in (tmp_path / name, out))
    assert np.abs(old - new).mean() < 12  # half as many colours


def test_what_is_encoded_is_what_is_displayed(tmp_path):
    """Odd sizes, a quarter turn and uneven times."""
    encode(tmp_path / "a.mkv", *FIRST_SECOND, "-c:v", "ffv1", *AAC, picture=PICTURE.replace("64x48", "65x49"))
    encode(tmp_path / "b.mov", *H264, *AAC)
    ffmpeg("-display_rotation", "90", "-i", tmp_path / "b.mov", "-c", "copy", tmp_path / "c.mov")
    found = [probe(under_noise(tmp_path / name, ".mp4", picture="encode")) for name in ("a.mkv", "c.mov")]
    assert [(info.width, info.height) for info in found] == [(64, 48), (48, 64)]
    assert found[0].duration_s == pytest.approx(3.0, abs=0.1)


def test_two_packets_at_one_time_are_written(tmp_path):
    """Some recorders write them; muxers refuse the second."""
    encode(tmp_path / "a.flv", *H264, "-bf", "0", *AAC)
    with av.open(str(tmp_path / "a.flv")) as source, av.open(str(tmp_path / "b.flv"), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts = packet.dts = packet.dts // 80 * 80
                packet.stream = copy
                target.mux(packet)
    assert probe(under_noise(tmp_path / "b.flv")).duration_s == pytest.approx(3.0, abs=0.1)
