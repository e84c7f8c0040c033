"""Frames in memory in place of a video, takes in a notebook, and what Python calls say of wrong files."""

from __future__ import annotations

import base64
import gc
import io
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from specmaskfoley.foley import Foley, Take
from specmaskfoley.foley.frames import Frames
from specmaskfoley.media.frames import read_frames
from specmaskfoley.media.probe import probe
from specmaskfoley.storage.files import sha256

FRAMES = np.random.default_rng(1).integers(0, 256, (40, 31, 47, 3), np.uint8)


@pytest.fixture(scope="module")
def take(foley: Foley) -> Take:
    return foley.generate(FRAMES, fps=25, text="playing drum", seed=3)[0]


@pytest.mark.parametrize("fps", [25, 24, 30, 30000 / 1001, Fraction(24000, 1001), 12.5, np.float32(29.97), 0.5, 1000])
def test_frames_come_back_to_the_bit_and_on_time(fps: float):
    """Also of odd sizes, and at rates whose frames do not last whole milliseconds."""
    made = Frames(FRAMES, fps)
    info = probe(made.path)
    assert (info.width, info.height) == (47, 31)
    assert info.fps == pytest.approx(float(fps), rel=1e-6)
    assert info.duration_s == pytest.approx(40 / float(fps), rel=1e-6)
    rate = Fraction(float(fps)).limit_denominator(1001_000)
    begins = np.array([float(number / rate) for number in range(40)])
    shown = read_frames(made.path, times=begins, size=31, fit="short_side", rule="on_screen")
    np.testing.assert_array_equal(shown, FRAMES)


def test_all_colours_come_back():
    every = np.arange(256**3, dtype=np.uint32).view(np.uint8).reshape(4, 2048, 2048, 4)[::3, ..., :3]
    made = Frames(every, 25)
    back = read_frames(made.path, times=np.arange(2) / 25, size=2048, fit="short_side")
    np.testing.assert_array_equal(back, every)


@pytest.mark.parametrize(
    "given",
    [
        lambda frames: torch.from_numpy(frames),
        lambda frames: torch.from_numpy(frames).float() / 255,
        lambda frames: frames.astype(np.float64) / 255,
        lambda frames: list(frames),
        lambda frames: (torch.from_numpy(frame) for frame in frames),
        lambda frames: np.ascontiguousarray(frames[:, ::-1])[:, ::-1],
    ],
    ids=["tensor", "float tensor", "float64", "list", "generator of tensors", "strides"],
)
def test_the_same_frames_give_the_same_sound(foley: Foley, take: Take, given):
    again = foley.generate(given(FRAMES), fps=25, text="playing drum", seed=3)[0]
    np.testing.assert_array_equal(again.waveform, take.waveform)
    assert again.record == take.record


def test_half_precision_is_taken():
    for kind in (torch.bfloat16, torch.float16):
        frames = torch.tensor([0.0, 0.5, 1.0], dtype=kind).expand(2, 4, 5, 3)
        made = Frames(frames, 25)
        back = read_frames(made.path, times=np.zeros(1), size=4, fit="short_side")
        np.testing.assert_array_equal(back[0, 0, 0], [0, 128, 255])


def test_frames_sound_as_the_video_with_the_same_pictures(foley: Foley, take: Take, tmp_path: Path):
    assert take.video is not None
    copy = tmp_path / "clip.mov"
    copy.write_bytes(take.video.read_bytes())
    np.testing.assert_array_equal(foley.generate(copy, text="playing drum", seed=3)[0].waveform, take.waveform)


def test_a_single_frame_is_a_video(foley: Foley):
    assert foley.generate(FRAMES[:1], fps=2)[0].duration_s == pytest.approx(0.5, abs=0.001)


def test_frames_go_when_nothing_needs_them(foley: Foley):
    first, second = foley.generate(FRAMES, fps=25, candidates=2)
    path = first.video
    assert path is not None
    edited = foley.regenerate(first, only=(0.2, 0.5))[0]
    del first, second
    gc.collect()
    assert path.exists()
    edited = replace(edited, seed=1)
    gc.collect()
    assert path.exists()
    del edited
    gc.collect()
    assert not path.parent.exists()


def test_nothing_is_left_of_frames_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="frame 1"):
        Frames([FRAMES[0], FRAMES[0, :5]], 25)
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_take_of_frames_is_saved_as_a_video_that_plays_everywhere(take: Take, tmp_path: Path):
    saved = take.save(tmp_path / "clip")
    assert saved.video == tmp_path / "clip.mp4"
    info = probe(saved.video)
    assert (info.width, info.height, info.audio_rate) == (46, 30, 22050)
    assert info.duration_s == pytest.approx(1.6, abs=0.001)
    take.save(tmp_path / "clip")  # the result of the same frames may be replaced


def test_a_take_of_frames_can_be_saved_without_loss(take: Take, tmp_path: Path):
    saved = take.save(tmp_path / "clip", picture="copy")
    assert saved.video is not None
    back = read_frames(saved.video, times=np.arange(40) / 25, size=31, fit="short_side")
    np.testing.assert_array_equal(back, FRAMES)


def test_it_is_made_again_from_the_same_frames(foley: Foley, model: Path, take: Take, tmp_path: Path):
    edited = foley.regenerate(take, only=(0.5, 1.0), text="door", seed=9)[0]
    record = edited.save(tmp_path / "clip").record
    again = Foley.load(model, record=record)
    made = again.remake(torch.from_numpy(FRAMES) / 255, fps=25)
    np.testing.assert_array_equal(made.waveform, edited.waveform)
    assert made.save(tmp_path / "again").video is not None
    other = FRAMES.copy()
    other[-1, -1, -1, -1] ^= 1
    with pytest.raises(ValueError, match="not the video of the record"):
        again.remake(other, fps=25)
    with pytest.raises(ValueError, match="not the video of the record"):
        again.remake(FRAMES, fps=24)


def test_what_is_wrong_with_frames_is_named(foley: Foley, video: Path):
    floats = FRAMES[:3] / np.float32(255)
    nan = floats.copy()
    nan[2, 0, 0, 0] = np.nan
    for frames, fps, message in (
        (FRAMES, None, "frames need fps"),
        (FRAMES, 0, "fps=0 must be above 0"),
        (FRAMES, -25.0, "fps=-25.0 must be above 0"),
        (FRAMES, float("nan"), "fps=nan must be"),
        (FRAMES, float("inf"), "fps=inf must be"),
        (FRAMES, 22050, "fps=22050 must be .* at most 1000"),
        (video, 25, "fps=25 is for frames; leave it out with a video file"),
        (FRAMES[:0], 25, "there are no frames"),
        ([], 25, "there are no frames"),
        (FRAMES[0], 25, r"frame 0 has the shape \(47, 3\)"),
        (FRAMES[..., :1], 25, r"frame 0 has the shape \(31, 47, 1\); frames are \(frames, height, width, 3\), RGB"),
        (FRAMES.transpose(0, 3, 1, 2), 25, r"frame 0 has the shape \(3, 31, 47\)"),
        (FRAMES[:, :0], 25, r"frame 0 has the shape \(0, 47, 3\)"),
        ([*FRAMES[:2], FRAMES[2, 1:]], 25, r"frame 2 has the shape \(30, 47, 3\), and frame 0 \(31, 47, 3\)"),
        (FRAMES.astype(np.int64), 25, "frame 0 is int64; frames are uint8, or floats 0..1"),
        (FRAMES > 3, 25, "frame 0 is bool"),
        (FRAMES.astype(np.float32), 25, "frame 0 has values from 0 to 255"),
        (floats - 0.5, 25, "frame 0 has values from -0.5 to 0.5"),
        (nan, 25, "frame 2 has values from nan to nan"),
        (7, 25, r"a video is a file, or frames .* got int"),
    ):
        with pytest.raises(ValueError, match=message):
            foley.generate(frames, fps=fps)
    with pytest.raises(ValueError, match="fps=25 is for frames; leave it out with no video"):
        foley.generate(fps=25, duration_s=1.0, text="door")


def test_files_that_cannot_be_used_are_named(foley: Foley, tmp_path: Path):
    text = tmp_path / "notes.mp4"
    text.write_text("no video", encoding="utf-8")
    for call in (foley.generate, foley.listen):
        for path, reason in (
            (tmp_path / "no.mp4", "no such file"),
            (tmp_path, "a directory"),
            (text, "cannot be"),
        ):
            with pytest.raises(ValueError, match=f"{re.escape(str(path))}: .*{reason}"):
                call(path)
    for source in (tmp_path / "nowhere", tmp_path, text):
        with pytest.raises(ValueError, match=re.escape(str(source))):
            Foley.load(source)


def test_a_take_is_shown_in_a_line(take: Take, foley: Foley, video: Path):
    level = "nearly silent" if take.level.nearly_silent else f"loudest {take.level.loudest_db:.0f} dBFS"
    assert repr(take) == f"Take(frames, 1.60 s, 22050 Hz, seed 3, {level})"
    assert repr(replace(take, video=video, frames=None)).startswith("Take(clip.mp4, ")
    assert repr(foley.generate(duration_s=1.0, text="door")[0]).startswith("Take(sound without video, 1.00 s, ")


def heard(take: Take) -> tuple[np.ndarray, int]:
    """What a notebook's player plays."""
    page = take._repr_html_()
    data = re.fullmatch(r'<p>.*</p><audio controls src="data:audio/wav;base64,([\w+/=]+)"></audio>', page)
    assert data, page[:300]
    return soundfile.read(io.BytesIO(base64.b64decode(data[1])), dtype="float32")


def test_a_take_is_played_in_a_notebook(take: Take):
    wave, rate = heard(take)
    assert rate == take.sample_rate
    np.testing.assert_allclose(wave, take.waveform, atol=2**-15)
    stereo = replace(take, waveform=np.stack([take.waveform, -np.asarray(take.waveform)], axis=1))
    np.testing.assert_allclose(heard(stereo)[0], stereo.waveform, atol=2**-15)


def test_a_long_take_is_played_in_part(take: Take):
    long = replace(take, waveform=np.zeros(22050 * 121, np.float32))
    assert len(heard(long)[0]) == 22050 * 120
    assert "the first 120 s; save() writes all" in long._repr_html_()
    assert "the first" not in take._repr_html_()


def test_the_name_of_a_video_is_no_markup(take: Take):
    assert "<script>" not in replace(take, video=Path("<script>.mp4"), frames=None)._repr_html_()


def test_equal_frames_are_equal_files():
    made = [Frames(FRAMES, 25) for _ in range(3)]
    assert len({sha256(one.path) for one in made}) == 1
