"""Odd files are made on the fly: frame i of a test video is told by its grey level, sounds by their clicks."""

import hashlib
import os
import struct
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from specmaskfoley.media.files import (
    MediaError,
    SoundFacts,
    View,
    examine_sound,
    examine_track,
    fit_picture,
    frame_times,
    mux,
    probe,
    read_audio,
    read_frames,
    read_views,
    stream_views,
    write_audio,
    write_video,
)

RATE = 16000


def grey(i, height=32, width=48):
    return np.full((height, width, 3), 20 + (i * 5) % 210, np.uint8)


def index(frames):
    """Frame numbers (below 42) from grey levels; write with a low crf."""
    return [round((float(frame.mean()) - 20) / 5) for frame in frames]


def make(
    path,
    pts_ms=range(0, 1000, 40),
    *,
    audio_start_s=0.0,
    audio=None,
    rate=RATE,
    layout="mono",
    codec="libx264",
    audio_codec="aac",
    size=(32, 48),
    rotate=0,
    bframes=2,
    options=None,
):
    """A video whose frame i is shown from pts_ms[i] on, and `audio` (channels, n) from audio_start_s on."""
    with av.open(str(path), "w", options=options or {}) as container:
        x264 = {"crf": "1", "bf": str(bframes)} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=25, options=x264)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotate:
            stream.set_display_rotation(rotate)
        sound = None if audio is None else container.add_stream(audio_codec, rate=rate, layout=layout)
        for i, pts in enumerate(pts_ms):
            frame = av.VideoFrame.from_ndarray(grey(i, *size), format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio, np.float32), format="fltp", layout=layout)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = round(audio_start_s * rate)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def clicks(seconds, at, rate=RATE, channels=1):
    """Short tone bursts: AAC keeps their place to a few samples, unlike single impulses."""
    wave = np.zeros((channels, round(seconds * rate)), np.float32)
    burst = np.sin(np.arange(rate // 100) * 0.4) * np.hanning(rate // 100)
    for time in at:
        wave[:, round(time * rate) : round(time * rate) + len(burst)] += 0.8 * burst
    return wave


def place(wave, rate):
    """Centre of the first burst, in seconds from where its onset was put."""
    energy = wave[: len(wave)] ** 2
    return float((energy * np.arange(len(wave))).sum() / energy.sum() / rate) - 0.005


# ---- frames ----


def test_frames_of_constant_rate(tmp_path):
    path = make(tmp_path / "a.mp4")
    times = np.arange(25) / 25
    assert index(read_frames(path, times=times, size=16)) == list(range(25))
    assert index(read_frames(path, times=np.arange(8) / 8, size=16)) == [0, 3, 6, 9, 12, 15, 18, 21]


def test_last_frame_at_or_before_a_time_in_any_order(tmp_path):
    path = make(tmp_path / "a.mp4")
    times = np.array([0.0799, 0.0796, 0.0794, 0.0, -1.0, 99.0, 0.1, 0.1])
    assert index(read_frames(path, times=times, size=16)) == [2, 2, 1, 0, 0, 24, 2, 2]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_variable_rate_follows_timestamps(tmp_path, suffix):
    pts = [0, 33, 200, 210, 500, 900]
    path = make(tmp_path / f"a{suffix}", pts)
    times = np.arange(20) / 20
    expected = [max(i for i, p in enumerate(pts) if p / 1000 <= t + 0.0005) for t in times]
    assert index(read_frames(path, times=times, size=16)) == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_video_that_starts_late_stays_late(tmp_path, suffix):
    path = make(tmp_path / f"a{suffix}", range(400, 1400, 40), audio=clicks(1, [0.5]))
    info = probe(path)
    assert info.video_start_s == pytest.approx(0.4, abs=0.002)
    assert info.audio_start_s == pytest.approx(0, abs=0.002)
    assert info.duration_s == pytest.approx(1.4, abs=0.05)
    assert index(read_frames(path, times=np.array([0, 0.4, 0.5, 0.8]), size=16)) == [0, 0, 2, 10]


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.webm", "libvpx-vp9", "libopus"),
        ("a.mkv", "mpeg4", "libmp3lame"),
        ("a.mov", "mpeg4", "pcm_s16le"),
        ("a.ts", "libx264", "aac"),  # its clock starts at 1.4 s, and the sound one AAC frame before the video
    ],
)
def test_other_codecs_and_containers(tmp_path, name, codec, sound):
    path = make(tmp_path / name, codec=codec, audio=clicks(1, [0.5], 48000), rate=48000, audio_codec=sound)
    start = probe(path).video_start_s
    assert start == pytest.approx(1024 / 48000 if name == "a.ts" else 0, abs=0.001)
    assert index(read_frames(path, times=start + np.arange(5) / 5, size=16)) == [0, 5, 10, 15, 20]
    wave = read_audio(path, sample_rate=RATE, num_samples=RATE)
    assert place(wave, RATE) == pytest.approx(start + 0.5, abs=0.002)
    assert probe(path).duration_s == pytest.approx(start + 1.0, abs=0.05)


@pytest.mark.parametrize("rotate", [90, -90, 180])
def test_rotation_is_applied(tmp_path, rotate):
    path = tmp_path / "a.mp4"
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32, 0] = 255  # red at top left, blue at bottom right
    picture[16:, 32:, 2] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv420p"
        stream.set_display_rotation(rotate)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    # The file's own matrix, by the QuickTime formula x' = ax + cy, y' = bx + dy, is the judge.
    data = path.read_bytes()
    matrix = struct.unpack(">9i", data[(at := data.index(b"tkhd") + 4 + 40) : at + 36])
    a, b, c, d = (matrix[i] / 65536 for i in (0, 1, 3, 4))
    info = probe(path)
    turned = abs(b) == 1
    assert (info.width, info.height) == ((32, 64) if turned else (64, 32))
    assert info.rotation == {(0, 1): 90, (-1, 0): 180, (0, -1): 270}[(a, b)]

    def corner(x, y):  # of the stored picture (+-1), as a corner of the displayed one
        return int(b * x + d * y > 0), int(a * x + c * y > 0)

    size = (info.height, info.width)
    frame = read_frames(path, times=np.zeros(1), size=size)[0]
    quarter = [[frame[y * h : (y + 1) * h, x * w : (x + 1) * w] for x in (0, 1)] for y in (0, 1)
               for h, w in [(size[0] // 2, size[1] // 2)]]  # fmt: skip
    row, column = corner(-1, -1)
    assert quarter[row][column].mean(axis=(0, 1)).argmax() == 0
    row, column = corner(1, 1)
    assert quarter[row][column].mean(axis=(0, 1)).argmax() == 2


def test_portrait_4k_in_little_memory(tmp_path):
    path = make(tmp_path / "a.mp4", range(0, 160, 40), size=(3840, 2160))
    frames = read_frames(path, times=np.arange(100) / 25, size=(64, 36))
    assert frames.shape == (100, 64, 36, 3)
    assert index(frames[[0, 1, 2, 3, 50]]) == [0, 1, 2, 3, 3]


def test_colours_come_back_unbiased(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(60, 200, (20, 1, 1, 3))
    frames = np.broadcast_to(colours, (20, 32, 32, 3)).astype(np.uint8)
    write_video(tmp_path / "a.mp4", frames, 25)
    error = read_frames(tmp_path / "a.mp4", times=np.arange(20) / 25, size=16).astype(float) - colours
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 1
    assert np.abs(error).max() < 5


def test_no_times_give_no_frames(tmp_path):
    assert read_frames(make(tmp_path / "a.mp4"), times=np.empty(0), size=8).shape == (0, 8, 8, 3)
    with pytest.raises(ValueError, match="times must be finite"):
        read_frames(tmp_path / "a.mp4", times=np.array([np.nan]), size=8)


def test_decord_sees_the_same_frames(tmp_path):
    decord = pytest.importorskip("decord")
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (12, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    write_video(tmp_path / "a.mp4", np.stack([np.roll(picture, 3 * i, 1) for i in range(30)]), 25)
    theirs = decord.VideoReader(str(tmp_path / "a.mp4"), num_threads=1).get_batch(range(30)).asnumpy()
    ours = read_frames(tmp_path / "a.mp4", times=np.arange(30) / 25, size=96)
    distance = np.abs(ours[:, None].astype(int) - theirs[None]).mean(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == np.arange(30)).all()


# ---- which frame, and its size ----


def test_rules_pick_frames_by_presentation_times(tmp_path):
    pts = [0, 33, 60, 200, 210, 500, 560, 875, 900]  # variable, some exactly on or between the times asked for
    path = make(tmp_path / "a.mkv", pts)

    def picked(rule, fps, count, start_s=0.0):
        times = frame_times(fps, count, rule=rule, start_s=start_s)
        return index(read_frames(path, times=times, size=16, rule=rule))

    last = len(pts) - 1
    for fps, count in ((8, 10), (25, 24), (0.5, 2)):
        slots = [k / fps * 1000 for k in range(count)]
        half = 500 / fps
        shown = [max(i for i, p in enumerate(pts) if p <= t + 0.5) for t in slots]
        middle = [max(i for i, p in enumerate(pts) if p < t + half) for t in slots]
        after = [next((i for i, p in enumerate(pts) if p >= t), last) for t in slots]
        assert picked("on_screen", fps, count) == shown
        assert picked("rate_filter", fps, count) == middle
        assert picked("timestamp", fps, count) == after
        # FFmpeg's own words: every frame belongs to the nearest slot, and a slot shows the last frame up to it.
        nearest = [int(p * fps / 1000 + 0.5) for p in pts]
        assert middle == [max(i for i, slot in enumerate(nearest) if slot <= k) for k in range(count)]
    for rule in ("on_screen", "rate_filter", "timestamp"):
        assert picked(rule, 8, 5, start_s=0.25) == picked(rule, 8, 7)[2:]


@pytest.mark.parametrize("rate", ["30000/1001", "24000/1001", "24", "25", "30", "60", "15"])
@pytest.mark.parametrize("fps", [8, 25, 1.5])
def test_rate_filter_is_that_of_ffmpeg(tmp_path, rate, fps):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate), options={"crf": "1", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for i in range(42):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(i), format="rgb24")))
        container.mux(stream.encode(None))
    filtered = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        ends = graph.add_buffer(template=stream), graph.add("fps", f"fps={fps}"), graph.add("buffersink")
        graph.link_nodes(*ends).configure()
        for frame in [*container.decode(stream), None]:
            graph.vpush(frame)
            while True:
                try:
                    filtered.append(graph.vpull().to_ndarray(format="rgb24"))
                except (av.error.BlockingIOError, av.error.EOFError):
                    break
    assert filtered
    times = frame_times(fps, len(filtered), rule="rate_filter")
    assert index(read_frames(path, times=times, size=16, rule="rate_filter")) == index(filtered)


def test_times_of_the_demo_are_summed_up():
    times = frame_times(25, 250, rule="timestamp")
    assert times[125] > 5.0  # so the demo takes the frame after the one that is shown from 5 s on
    np.testing.assert_allclose(times, frame_times(25, 250), rtol=1e-12)
    assert frame_times(8, 0, rule="timestamp").shape == frame_times(8, 0).shape == (0,)
    with pytest.raises(ValueError, match="fps=0 must be positive"):
        frame_times(0, 3)


def noise_video(path, height, width, frames=6):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    write_video(path, np.stack([np.roll(picture, 5 * i, 1) for i in range(frames)]), 25)
    return path


@pytest.mark.parametrize(("height", "width"), [(96, 176), (176, 96), (96, 96)])
def test_crop_is_the_middle_of_short_side(tmp_path, height, width):
    path = noise_video(tmp_path / "a.mp4", height, width)
    times = np.array([0.08, 0.0, 0.08])
    long = int(56 * 176 / 96) if height != width else 56  # 102: a whole number, rounded down
    whole = read_frames(path, times=times, size=56, fit="short_side")
    assert whole.shape == (3, *((56, long) if width > height else (long, 56)), 3)
    offset = (long - 56) // 2
    middle = whole[:, :, offset : offset + 56] if width > height else whole[:, offset : offset + 56]
    crop = read_frames(path, times=times, size=56, fit="crop")
    np.testing.assert_array_equal(crop, middle)
    np.testing.assert_array_equal(crop[0], crop[2])
    assert (crop[0] != crop[1]).any()
    # Another resampler with coarser colours, so only nearly the same (6 of 255); a shift by a pixel makes 20 or more.
    square = read_frames(path, times=times, size=64, fit="clip").astype(float)
    assert np.abs(square - read_frames(path, times=times, size=64)).mean() < 10


def test_all_fits_are_turned_alike(tmp_path):
    path = noise_video(tmp_path / "a.mp4", 64, 96, frames=2)
    turned = tmp_path / "turned.mp4"
    with av.open(str(path)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    upright = {fit: read_frames(path, times=np.zeros(1), size=32, fit=fit)[0] for fit in ("clip", "crop", "short_side")}
    for fit, picture in upright.items():
        shown = read_frames(turned, times=np.zeros(1), size=32, fit=fit)[0]
        assert shown.shape == (picture.shape[1], picture.shape[0], 3)
        # Not equal: columns are resized before rows, and rounded and clipped in between.
        assert np.abs(shown.astype(int) - np.rot90(picture)).mean() < 0.5


def test_views_of_one_decoding_are_those_of_many(tmp_path):
    path = noise_video(tmp_path / "a.mp4", 96, 128, frames=20)
    views = [
        View(times=np.array([0.5, 0.1, 0.1]), size=(40, 24)),
        View(times=frame_times(25, 9, rule="timestamp"), size=48, fit="crop", rule="timestamp"),
        View(times=frame_times(8, 9, rule="rate_filter"), size=64, fit="clip", rule="rate_filter"),
        View(times=np.empty(0), size=48, fit="short_side"),
    ]
    together = read_views(path, views)
    for view, frames in zip(views, together, strict=True):
        alone = read_frames(path, times=view.times, size=view.size, fit=view.fit, rule=view.rule)
        np.testing.assert_array_equal(frames, alone)
    assert together[3].shape == (0, 48, 64, 3)
    assert read_views(path, []) == []


def test_windows_are_read_as_if_alone_and_memory_holds_those_that_are_begun(tmp_path):
    path = make(tmp_path / "a.mp4", range(0, 20_000, 40))
    windows = [
        [
            View(times=frame_times(25, 50, start_s=start_s), size=128),
            View(times=frame_times(4, 8, rule="timestamp", start_s=start_s), size=64, fit="crop", rule="timestamp"),
            View(times=np.empty(0), size=8),
        ]
        for start_s in np.arange(0.0, 20.0, 0.5)
    ]
    tracemalloc.start()
    checksums = [[hash(frames.tobytes()) for frames in arrays] for arrays in stream_views(path, windows)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 50 * 128 * 128 * 3  # five windows overlap, and one is copied by the test
    assert checksums == [[hash(frames.tobytes()) for frames in read_views(path, views)] for views in windows]


def test_views_name_what_is_wrong():
    times = np.zeros(1)
    for made, message in [
        (lambda: View(times=times, size=0), "size=0 must be positive"),
        (lambda: View(times=times, size=(8, 9), fit="crop"), r"size=\(8, 9\) must be one number.*fit='crop'"),
        (lambda: View(times=times, size=8, fit="zoom"), "fit='zoom' must be one of stretch, clip"),
        (lambda: View(times=times, size=8, rule="nearest"), "rule='nearest' must be one of on_screen"),
        (lambda: fit_picture(np.zeros((8, 8, 3), np.uint8), size=4, fit="stretch"), "'stretch' works on decoded"),
    ]:
        with pytest.raises(ValueError, match=message):
            made()


# ---- sound ----


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mov", "aac"), ("a.mkv", "aac"), ("a.mkv", "libmp3lame"), ("a.mkv", "flac")],
)
def test_late_sound_stays_late(tmp_path, name, codec):
    path = make(tmp_path / name, audio=clicks(0.7, [0.2]), audio_start_s=0.3, audio_codec=codec)
    # MP4 says that the track starts with the encoder's priming, one AAC frame before the sound.
    assert probe(path).audio_start_s == pytest.approx(0.3, abs=0.002 if name == "a.mkv" else 0.066)
    for rate in (RATE, 22050):
        wave = read_audio(path, sample_rate=rate, num_samples=rate)
        assert place(wave, rate) == pytest.approx(0.5, abs=0.002)
        assert np.abs(wave[: int(0.28 * rate)]).max() < 0.01


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".m4a"])
def test_sound_files(tmp_path, suffix):
    wave = clicks(1, [0.25], 44100)
    path = tmp_path / f"a{suffix}"
    if suffix in (".wav", ".flac"):
        write_audio(path, wave[0], 44100)
    else:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac" if suffix == ".m4a" else "libmp3lame", rate=44100, layout="mono")
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    for rate in (44100, 22050, 48000):
        assert place(read_audio(path, sample_rate=rate, num_samples=rate), rate) == pytest.approx(0.25, abs=0.001)
    with pytest.raises(MediaError) as error:
        probe(path)
    assert error.value.state == "no_video"


def test_integers_keep_every_bit_and_one_is_clipped(tmp_path):
    wave = np.array([0, 0.5, -0.5, 1.0, 1.5, -1.0, -2, 1 / 32768], np.float32)
    for name in ("a.wav", "a.flac"):
        write_audio(tmp_path / name, wave, RATE)
        back = read_audio(tmp_path / name, sample_rate=RATE, num_samples=8)
        top = 32767 / 32768
        np.testing.assert_array_equal(back, np.float32([0, 0.5, -0.5, top, top, -1, -1, 1 / 32768]))
    soundfile.write(tmp_path / "u8.wav", wave[:3], RATE, subtype="PCM_U8")
    back = read_audio(tmp_path / "u8.wav", sample_rate=RATE, num_samples=3)
    np.testing.assert_allclose(back, wave[:3], atol=0.01)
    with pytest.raises(ValueError, match=r"\.wav or \.flac"):
        write_audio(tmp_path / "a.ogg", wave, RATE)
    with pytest.raises(ValueError, match="finite"):
        write_audio(tmp_path / "a.wav", np.array([np.nan]), RATE)


@pytest.mark.parametrize("layout", ["stereo", "5.1"])
def test_mono_is_the_mean_of_the_channels(tmp_path, layout):
    channels = 2 if layout == "stereo" else 6
    audio = np.zeros((channels, RATE), np.float32)
    audio[-1] = 0.6 * np.sin(np.arange(RATE) * 0.2)
    path = make(tmp_path / "a.mkv", audio=audio, layout=layout, audio_codec="flac")
    wave = read_audio(path, sample_rate=RATE, num_samples=RATE)
    np.testing.assert_allclose(wave, audio.mean(axis=0), atol=1e-3)
    assert probe(path).audio_channels == channels


def test_cut_pad_and_start(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 44100).astype(np.float32)
    path = tmp_path / "a.wav"
    write_audio(path, noise, 44100)
    for rate in (44100, 22050, 48000, 16000):
        whole = read_audio(path, sample_rate=rate, num_samples=2 * rate)
        assert whole.shape == (2 * rate,)
        assert not whole[rate + 200 :].any()
        np.testing.assert_allclose(
            read_audio(path, sample_rate=rate, num_samples=rate // 2), whole[: rate // 2], atol=1e-6
        )
        part = read_audio(path, sample_rate=rate, num_samples=rate // 4, start_s=0.5)
        np.testing.assert_allclose(part, whole[rate // 2 : rate // 2 + rate // 4], atol=1e-6)
        before = read_audio(path, sample_rate=rate, num_samples=rate, start_s=-0.5)
        np.testing.assert_allclose(before[rate // 2 + 200 :], whole[200 : rate // 2], atol=1e-6)
    assert read_audio(path, sample_rate=44100, num_samples=0).shape == (0,)


KAISER = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}


@pytest.mark.parametrize(("resampling", "options"), [("kaiser", KAISER), ("hann", {})])
@pytest.mark.parametrize(("rate", "to"), [(44100, 22050), (48000, 22050), (44100, 16000), (16000, 22050)])
def test_resampling_is_torchaudios(tmp_path, rate, to, resampling, options):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchaudio.functional")
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, rate).astype(np.float32)
    write_audio(tmp_path / "a.wav", wave, rate)
    whole = torch.from_numpy(read_audio(tmp_path / "a.wav", sample_rate=rate, num_samples=rate))
    expected = functional.resample(whole, rate, to, **options)
    ours = read_audio(tmp_path / "a.wav", sample_rate=to, num_samples=to, resampling=resampling)
    np.testing.assert_allclose(ours, expected[:to], atol=5e-5)  # torchaudio computes its filter in float32


def test_sound_is_examined_up_to_a_moment(tmp_path):
    wave = np.zeros(3 * RATE, np.float32)
    wave[RATE] = -0.5
    write_audio(tmp_path / "a.wav", wave, RATE)
    assert examine_sound(tmp_path / "a.wav", 10.0) == SoundFacts(3.0, RATE, 0.5, True)
    assert examine_sound(tmp_path / "a.wav", 2.0).duration_s == 2.0
    wave[5], wave[6] = np.nan, np.inf
    soundfile.write(tmp_path / "nan.wav", wave, RATE, subtype="FLOAT")
    assert examine_sound(tmp_path / "nan.wav", 10.0) == SoundFacts(3.0, RATE, 0.5, False)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(MediaError):
        examine_sound(tmp_path / "text.wav", 10.0)


# ---- broken files ----


def test_unusable_files_say_why(tmp_path):
    def state(path, of=probe):
        with pytest.raises(MediaError) as error:
            of(path)
        assert "\n" not in str(error.value)
        assert str(error.value)
        return error.value.state

    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    assert state(tmp_path / "text.mp4") in ("corrupt", "no_video")
    assert state(tmp_path / "empty.mp4") == "corrupt"
    assert state(tmp_path / "absent.mp4") == "missing"
    assert state(tmp_path) == "missing"
    silent = make(tmp_path / "mute.mp4")
    assert probe(silent).audio_rate is None
    assert state(silent, lambda path: read_audio(path, sample_rate=8000, num_samples=8)) == "no_audio"
    write_audio(tmp_path / "a.wav", np.zeros(RATE), RATE)
    (tmp_path / "a.wav").rename(tmp_path / "sound.mp4")
    assert state(tmp_path / "sound.mp4") == "no_video"
    assert state(tmp_path / "sound.mp4", lambda path: read_frames(path, times=np.zeros(1), size=8)) == "no_video"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("front", [False, True])
def test_cut_off_files_are_unreadable(tmp_path, suffix, front):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 3 * RATE))
    whole = make(
        tmp_path / f"a{suffix}",
        range(0, 3000, 40),
        audio=noise,
        options={"movflags": "+faststart"} if front and suffix == ".mp4" else None,
    )
    assert probe(whole).duration_s == pytest.approx(3.0, abs=0.05)
    data = whole.read_bytes()
    for share in (0.3, 0.6):
        whole.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(MediaError) as error:
            probe(whole)
        assert error.value.state == "corrupt"


def test_short_video_is_whole(tmp_path):
    path = make(tmp_path / "a.mp4", range(0, 200, 40), audio=clicks(0.2, [0.1]))
    info = probe(path)
    assert info.duration_s == pytest.approx(0.2, abs=0.01)
    assert info.audio_end_s == pytest.approx(0.2, abs=0.07)


def test_media_error_survives_a_process_pool():
    import pickle

    error = pickle.loads(pickle.dumps(MediaError("short", "0.2 s")))
    assert (error.state, str(error)) == ("short", "0.2 s")


# ---- writing ----


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


# ---- mux ----


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
    with pytest.raises(ValueError, match=r"vp8.* cannot be put into \.mp4; choose a name ending in \.mkv"):
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


# ---- long sounds ----


def test_a_track_is_examined_in_windows(tmp_path):
    wave = np.concatenate([np.full(RATE, 0.5), np.zeros(RATE), np.full(RATE // 2, -0.25)]).astype(np.float32)
    write_audio(tmp_path / "a.wav", wave, RATE)
    track = examine_track(tmp_path / "a.wav", 1.0)
    assert (track.start_s, track.end_s, track.sample_rate, track.channels) == (0, 2.5, RATE, 1)
    assert [(window.number, window.peak, window.finite) for window in track.windows] == [
        (0, 0.5, True),
        (1, 0.0, True),
        (2, 0.25, True),
    ]


def test_nan_counts_in_its_window_only(tmp_path):
    wave = np.full(2 * RATE, 0.5, np.float32)
    wave[RATE + 10] = np.nan
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    track = examine_track(tmp_path / "a.wav", 1.0)
    assert [(window.peak, window.finite) for window in track.windows] == [(0.5, True), (0.5, False)]


def test_a_late_track_keeps_its_time(tmp_path):
    path = make(tmp_path / "a.mkv", audio=clicks(0.7, [0.2]), audio_start_s=0.3, audio_codec="flac")
    track = examine_track(path, 0.4)
    assert track.start_s == pytest.approx(0.3, abs=0.002)
    assert track.end_s == pytest.approx(1.0, abs=0.002)
    assert [window.number for window in track.windows if window.peak > 0.1] == [1]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".m4a", ".opus", ".aac"])
def test_a_sought_part_is_that_of_the_whole(tmp_path, suffix):
    rate = 24000
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 12 * rate).astype(np.float32)
    write_audio(tmp_path / "in.wav", noise, rate)
    path = tmp_path / f"a{suffix}"
    if suffix != ".wav":
        with av.open(str(tmp_path / "in.wav")) as source, av.open(str(path), "w") as target:
            name = {".flac": "flac", ".mp3": "libmp3lame", ".opus": "libopus"}.get(suffix, "aac")
            stream = target.add_stream(name, rate=rate)
            for frame in [*source.decode(audio=0), None]:
                target.mux(stream.encode(frame))
    else:
        path = tmp_path / "in.wav"
    whole = read_audio(path, sample_rate=rate, num_samples=12 * rate)
    for start_s in (1.0, 4.0, 9.5):
        part = read_audio(path, sample_rate=rate, num_samples=2 * rate, start_s=start_s)
        first = round(start_s * rate)
        np.testing.assert_allclose(part, whole[first : first + 2 * rate], atol=1e-4)
