"""One clip of the mini world: choose the scene, run the camera, set the sound's level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from specmaskfoley.clips.world.drawing import Canvas, backdrop, tint
from specmaskfoley.clips.world.scenes import SCENES, Shot, Stage
from specmaskfoley.clips.world.synthesis import Wave

LABELS: tuple[str, ...] = tuple(SCENES)

FRAME_SIZES = ((96, 96), (96, 128), (128, 96), (112, 80), (80, 112), (96, 112))  # H, W; even for video codecs
PEAK_RANGE = (0.4, 0.9)
SHORTEST_S = 0.8
FLOOR_DB = -66.0  # the same everywhere: a floor that varies would be most of what a small codec has to say


@dataclass(frozen=True)
class WorldClip:
    """A rendered clip.

    Attributes:
        label: one of `LABELS`.
        frames: (n, H, W, 3) uint8; frame i shows the scene at i / fps seconds.
        waveform: (samples,) float32 mono, peak 0.4 to 0.9.
        events: onset times in seconds, ascending; () for sounds without onsets.
    """

    label: str
    frames: NDArray[np.uint8]
    fps: int
    waveform: NDArray[np.float32]
    sample_rate: int
    events: tuple[float, ...]


def render_clip(*, seed: int, split: str, index: int, duration_s: float, fps: int, sample_rate: int) -> WorldClip:
    """Clip `index` of a split. Equal arguments give equal bytes; labels take turns, so splits are balanced.

    Raises:
        ValueError: for a clip too short to hold an event.
    """
    if duration_s < SHORTEST_S:
        raise ValueError(f"duration_s={duration_s}: expected at least {SHORTEST_S} s, the room for one event")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, crc32(split.encode()), index])))
    label = LABELS[index % len(LABELS)]
    height, width = FRAME_SIZES[rng.integers(len(FRAME_SIZES))]
    times = np.arange(round(duration_s * fps)) / fps
    stage = Stage(backdrop(rng, height, width), times, duration_s, round(duration_s * sample_rate), sample_rate)
    shot = SCENES[label](stage, rng)
    frames = _film(stage, rng, shot)
    return WorldClip(
        label, frames, fps, _record(rng, shot.sound), sample_rate, tuple(float(event) for event in shot.events)
    )


def _film(stage: Stage, rng: np.random.Generator, shot: Shot) -> NDArray[np.uint8]:
    """Every frame with sensor noise, flicker, a silent distractor in most clips, and a mirror in half of them."""
    count, height, width = len(stage.times), stage.height, stage.width
    step = -1 if rng.random() < 0.5 else 1
    # One tile larger than the frame, read at random offsets and in eight brightnesses: noise and flicker drawn
    # anew for every frame would cost as much as the scene.
    grain = rng.uniform(-4, 4, (height + 32, width + 32)) + rng.uniform(-3, 3, (8, 1, 1))
    grain = grain.astype(np.float32)
    tiles, tops, lefts = rng.integers(0, (8, 32, 32), (count, 3)).T
    image = shot.background.copy()
    canvas = Canvas(image)
    behind = Canvas(image, np.all(shot.background == stage.wall, axis=0).astype(np.float32))
    drift = _distractor(stage, rng) if rng.random() < 0.6 else None
    planes = np.empty((count, 3, height, width), np.uint8)
    for i in range(count):
        image[:] = shot.background
        if drift:
            drift(behind, i)
        shot.paint(canvas, i)
        noise = grain[tiles[i], tops[i] : tops[i] + height, lefts[i] : lefts[i] + width]
        np.add(image, noise, out=planes[i], casting="unsafe")
    frames = np.empty((count, height, width, 3), np.uint8)
    for channel in range(3):  # five times as fast as one transposed copy
        frames[..., channel] = planes[:, channel, :, ::step]
    return frames


def _distractor(stage: Stage, rng: np.random.Generator) -> Callable[[Canvas, int], None]:
    """A soft blob or a swaying stalk: motion without a sound."""
    colour = tint(rng, *rng.uniform(60, 200, 3))
    size, x, y = stage.size, rng.uniform(0, stage.width), rng.uniform(0.1, 0.7) * stage.height
    wave = np.sin(2 * np.pi * (rng.uniform(0.15, 0.7) * stage.times + rng.random()))
    reach = rng.uniform(0.1, 0.3) * size
    if rng.random() < 0.5:
        rx, ry = rng.uniform(0.07, 0.18, 2) * size
        speed = rng.uniform(-0.12, 0.12) * size
        return lambda canvas, i: canvas.ellipse(
            x + speed * stage.times[i], y + reach * wave[i], rx, ry, colour, soft=0.06 * size, opacity=0.8
        )
    foot, top = float(stage.height), 0.4 * stage.height
    x = rng.choice([0.06, 0.94]) * stage.width
    return lambda canvas, i: canvas.bar(x, foot, x + reach * wave[i], top, 0.02 * size, 0.06 * size, colour)


def _record(rng: np.random.Generator, sound: Wave) -> Wave:
    """Set the loudest sample and add the noise floor of the place."""
    floor = 10 ** (FLOOR_DB / 20)
    wave = sound * np.float32(rng.uniform(*PEAK_RANGE) / np.abs(sound).max())
    wave += np.float32(floor) * rng.standard_normal(len(wave), dtype=np.float32)
    return wave
