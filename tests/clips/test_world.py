"""The mini world: look tells class, motion tells time, and sound and picture agree."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from specmaskfoley.clips.world import LABELS, WorldClip, render_clip
from specmaskfoley.clips.world.drawing import Canvas
from specmaskfoley.clips.world.scenes import Stage, ball_on_metal

DURATION_S, FPS, SAMPLE_RATE = 5.0, 25, 16000
CONTINUOUS = ("engine running", "police siren wailing", "rain falling")
DISCRETE = tuple(label for label in LABELS if label not in CONTINUOUS)


@functools.cache
def clip(label: str, turn: int = 0, *, seed: int = 3, split: str = "train") -> WorldClip:
    index = LABELS.index(label) + turn * len(LABELS)
    return render_clip(seed=seed, split=split, index=index, duration_s=DURATION_S, fps=FPS, sample_rate=SAMPLE_RATE)


def motion(frames: np.ndarray) -> np.ndarray:
    """(n,) mean change from the frame before, at 1/4 size so that sensor noise cancels."""
    n, height, width, _ = frames.shape
    small = frames.reshape(n, height // 4, 4, width // 4, 4, 3).mean((2, 4))
    small -= small.mean((1, 2, 3), keepdims=True)
    return np.concatenate([[0.0], np.abs(np.diff(small, axis=0)).mean((1, 2, 3))])


def level(waveform: np.ndarray, at: np.ndarray | float, window_s: float) -> np.ndarray:
    """RMS of the waveform's slope in the window that starts at each time; the slope favours onsets."""
    power = np.concatenate([[0.0], np.cumsum(np.square(np.diff(waveform, prepend=0.0), dtype=np.float64))])
    start = np.clip(np.round(np.asarray(at) * SAMPLE_RATE).astype(int), 0, len(waveform) - 1)
    stop = np.clip(start + round(window_s * SAMPLE_RATE), 1, len(waveform))
    return np.sqrt((power[stop] - power[start]) / (stop - start)) + 1e-6


def rises(waveform: np.ndarray, times: np.ndarray) -> np.ndarray:
    """How many times louder the 8 ms after each time are than the 8 ms before."""
    return level(waveform, times, 0.008) / level(waveform, times - 0.008, 0.008)


def per_frame(values: np.ndarray) -> np.ndarray:
    return values.reshape(round(DURATION_S * FPS), -1)


def test_there_are_at_least_twelve_labels_and_they_take_turns():
    assert len(set(LABELS)) == len(LABELS) >= 12
    settings = {"seed": 0, "split": "val", "duration_s": 1.0, "fps": 4, "sample_rate": 8000}
    labels = [render_clip(index=index, **settings).label for index in range(2 * len(LABELS))]
    assert labels == list(LABELS) * 2


@pytest.mark.parametrize("label", LABELS)
def test_clip_has_the_promised_shapes_and_ranges(label: str):
    made = clip(label)
    assert made.label == label
    assert made.frames.dtype == np.uint8
    assert made.frames.shape[0] == 125
    assert made.frames.shape[3] == 3
    assert all(side % 2 == 0 and 80 <= side <= 128 for side in made.frames.shape[1:3])
    assert made.waveform.dtype == np.float32
    assert made.waveform.shape == (80000,)
    assert 0.38 <= np.abs(made.waveform).max() <= 0.95
    assert np.isfinite(made.waveform).all()
    assert bool(made.events) == (label in DISCRETE)


@pytest.mark.parametrize("label", LABELS)
def test_colours_never_wrap_around(label: str):
    """Neither the brightest nor the darkest level is reached: painting keeps a margin for noise and flicker."""
    frames = clip(label).frames
    assert frames.min() > 2
    assert frames.max() < 253


@pytest.mark.parametrize("label", LABELS)
def test_equal_arguments_give_equal_bytes(label: str):
    first, second = clip(label), clip.__wrapped__(label)
    assert first.frames.tobytes() == second.frames.tobytes()
    assert first.waveform.tobytes() == second.waveform.tobytes()
    assert first.events == second.events


@pytest.mark.parametrize("other", [{"turn": 1}, {"seed": 4}, {"split": "test"}])
def test_index_seed_and_split_each_change_the_clip(other: dict[str, object]):
    for label in ("hammering nail", "rain falling"):
        first, second = clip(label), clip(label, **other)
        assert not np.array_equal(first.waveform, second.waveform)
        assert not np.array_equal(first.frames, second.frames)
        assert first.events != second.events or label in CONTINUOUS


@pytest.mark.parametrize("label", DISCRETE)
def test_event_times_are_sorted_apart_and_inside_the_clip(label: str):
    for turn in range(4):
        events = np.array(clip(label, turn).events)
        assert 3 <= len(events) <= 7
        assert np.diff(events).min() >= 0.25 - 1e-9
        assert events[0] >= 0
        assert events[-1] <= DURATION_S - 0.15


@pytest.mark.parametrize("label", DISCRETE)
def test_every_event_is_an_onset_in_the_sound_and_other_times_are_not(label: str):
    for turn in range(4):
        made = clip(label, turn)
        events = np.array(made.events)
        shifts = np.arange(-0.015, 0.0151, 0.001)
        at_events = rises(made.waveform, events[:, None] + shifts).max(axis=1)
        assert at_events.min() > 2.0, (turn, at_events)
        elsewhere = np.arange(0.02, DURATION_S - 0.02, 0.001)
        elsewhere = elsewhere[np.abs(elsewhere[:, None] - events).min(axis=1) > 0.2]
        assert np.percentile(rises(made.waveform, elsewhere), 99) < 1.8


@pytest.mark.parametrize("label", DISCRETE)
def test_the_picture_moves_most_around_events(label: str):
    near, far = [], []
    for turn in range(4):
        made = clip(label, turn)
        moved, times = motion(made.frames), np.arange(125) / FPS
        distance = np.abs(times[1:, None] - made.events).min(axis=1)
        near.append(moved[1:][distance <= 0.08].mean())
        far.append(moved[1:][distance > 0.3].mean())
    assert np.mean(near) > 1.5 * np.mean(far)


def test_events_cannot_be_guessed_without_the_video():
    """Events of two clips of one class coincide within 0.1 s no more often than chance has it."""
    hits = []
    for label in DISCRETE:
        for turn in range(3):
            first, second = np.array(clip(label, turn).events), np.array(clip(label, turn + 1).events)
            hits.append((np.abs(first[:, None] - second).min(axis=1) < 0.1).mean())
    assert np.mean(hits) < 0.35


@pytest.mark.parametrize("turn", range(3))
def test_rain_is_as_loud_as_it_is_dense(turn: int):
    made = clip("rain falling", turn)
    changes = np.diff(made.frames.astype(np.float32), axis=0)
    busy = (np.abs(changes).max(axis=3) > 50).mean((1, 2))
    loudness = np.sqrt(np.square(per_frame(made.waveform)).mean(axis=1))[1:]
    assert np.corrcoef(busy, loudness)[0, 1] > 0.8


@pytest.mark.parametrize("turn", range(3))
def test_siren_pitch_follows_the_light(turn: int):
    made = clip("police siren wailing", turn)
    brightness = made.frames.mean((1, 2, 3))
    signs = np.signbit(per_frame(made.waveform))
    crossings = (signs[:, 1:] != signs[:, :-1]).mean(axis=1)
    assert np.corrcoef(brightness, crossings)[0, 1] > 0.8


@pytest.mark.parametrize("turn", range(3))
def test_engine_is_louder_the_faster_its_wheel_turns(turn: int):
    made = clip("engine running", turn)
    loudness = np.sqrt(np.square(per_frame(made.waveform)).mean(axis=1))
    assert np.corrcoef(motion(made.frames)[1:], loudness[1:])[0, 1] > 0.5


def test_a_larger_ball_sounds_lower():
    sizes, pitches = [], []
    wall = np.full((3, 96, 96), 230, np.float32)
    stage = Stage(wall, np.arange(50) / 10, 5.0, 80000, 16000)
    for seed in range(8):
        take = ball_on_metal(stage, np.random.default_rng(seed))
        areas = []
        for i in range(50):
            frame = wall.copy()
            take.paint(Canvas(frame), i)
            areas.append((frame[:, :60].min(axis=0) < 215).sum())
        sizes.append(max(areas))
        pitches.append(np.abs(np.fft.rfft(take.sound)).argmax() / 5.0)
    assert np.corrcoef(np.log(sizes), np.log(pitches))[0, 1] < -0.9


def test_too_short_a_clip_is_refused_by_name():
    with pytest.raises(ValueError, match=r"duration_s=0\.3"):
        render_clip(seed=0, split="train", index=0, duration_s=0.3, fps=25, sample_rate=16000)


@pytest.mark.parametrize("duration_s", [0.8, 2.0, 10.0])
def test_other_durations_render(duration_s: float):
    for index in range(len(LABELS)):
        made = render_clip(seed=1, split="a", index=index, duration_s=duration_s, fps=5, sample_rate=44100)
        assert len(made.frames) == round(duration_s * 5)
        assert len(made.waveform) == round(duration_s * 44100)
