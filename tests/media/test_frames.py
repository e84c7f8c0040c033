"""Which frame belongs to a time, and how it gets its size."""

import struct
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.timed_media import RATE, clicks, grey, index, make, place

from specmaskfoley.media.frames import View, fit_picture, frame_times, read_frames, read_views, stream_views
from specmaskfoley.media.probe import probe
from specmaskfoley.media.sound import read_audio
from specmaskfoley.media.writing import write_video


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

    frame = read_frames(path, times=np.zeros(1), size=32)[0]
    quarter = [[frame[y : y + 16, x : x + 16] for x in (0, 16)] for y in (0, 16)]
    row, column = corner(-1, -1)
    assert quarter[row][column].mean(axis=(0, 1)).argmax() == 0
    row, column = corner(1, 1)
    assert quarter[row][column].mean(axis=(0, 1)).argmax() == 2


def test_portrait_4k_in_little_memory(tmp_path):
    path = make(tmp_path / "a.mp4", range(0, 160, 40), size=(3840, 2160))
    frames = read_frames(path, times=np.arange(100) / 25, size=36)
    assert frames.shape == (100, 36, 36, 3)
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
        View(10, 4, 40),
        View(25, 9, 48, "crop", "timestamp"),
        View(8, 9, 64, "clip", "rate_filter"),
        View(8, 0, 48, "short_side"),
    ]
    together = read_views(path, views, 0.1)
    for view in views:
        times = frame_times(view.fps, view.frames, rule=view.rule, start_s=0.1)
        alone = read_frames(path, times=times, size=view.size, fit=view.fit, rule=view.rule)
        np.testing.assert_array_equal(together[view], alone)
    assert together[views[3]].shape == (0, 48, 64, 3)
    assert read_views(path, []) == {}


def test_windows_are_read_as_if_alone_and_memory_holds_those_that_are_begun(tmp_path):
    path = make(tmp_path / "a.mp4", range(0, 20_000, 40))
    views = [View(25, 50, 128), View(4, 8, 64, "crop", "timestamp"), View(25, 0, 8)]
    starts_s = np.arange(0.0, 20.0, 0.5).tolist()

    def checksums(arrays):
        return {view: hash(frames.tobytes()) for view, frames in arrays.items()}

    tracemalloc.start()
    streamed = [checksums(arrays) for arrays in stream_views(path, views, starts_s)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 50 * 128 * 128 * 3  # five windows overlap, and one is copied by the test
    assert streamed == [checksums(read_views(path, views, start_s)) for start_s in starts_s]


def test_views_name_what_is_wrong():
    for made, message in [
        (lambda: View(8, 1, 0), "size=0 must be positive"),
        (lambda: View(8, 1, 8, fit="zoom"), "fit='zoom' must be one of stretch, clip"),
        (lambda: View(8, 1, 8, rule="nearest"), "rule='nearest' must be one of on_screen"),
        (lambda: View(0, 1, 8).times(), "fps=0 must be positive"),
        (lambda: fit_picture(np.zeros((8, 8, 3), np.uint8), size=4, fit="stretch"), "'stretch' works on decoded"),
    ]:
        with pytest.raises(ValueError, match=message):
            made()
