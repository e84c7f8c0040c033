"""The scenes: one function a label, from a stage and a generator to pictures, sound and event times.

In every scene the look tells the class, the visible size tells the pitch (larger is lower) and the motion
tells the time. Lengths are fractions of `stage.size`, the frame's shorter side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specmaskfoley.clips.world import motion, synthesis
from specmaskfoley.clips.world.drawing import Canvas, Image, mix, rgb, smooth_noise, texture, tint
from specmaskfoley.clips.world.synthesis import Wave

Rng = np.random.Generator
WHITE, BLACK = rgb(255, 255, 255), rgb(0, 0, 0)


@dataclass(frozen=True)
class Stage:
    """What a scene is played on. `wall`: (3, H, W) backdrop; `times`: (n,) seconds at which frames are seen."""

    wall: Image
    times: NDArray[np.float64]
    duration_s: float
    samples: int
    sample_rate: int

    @property
    def height(self) -> int:
        return int(self.wall.shape[1])

    @property
    def width(self) -> int:
        return int(self.wall.shape[2])

    @property
    def size(self) -> int:
        return min(self.height, self.width)

    @property
    def seconds(self) -> NDArray[np.float64]:
        """(samples,) time of every audio sample."""
        return np.arange(self.samples) / self.sample_rate


@dataclass(frozen=True)
class Shot:
    """What a scene gives: all that stands still, a painter of frame i over it, and the sound at any level.

    `background`: (3, H, W); where it equals the stage's wall, things may pass behind the scene.
    """

    background: Image
    paint: Callable[[Canvas, int], None]
    sound: Wave
    events: NDArray[np.float64]


Scene = Callable[[Stage, Rng], Shot]


@dataclass(frozen=True)
class _Blows:
    """Irregular blows: times, strengths 0.6..1, and per frame the striker's height and the target's reaction.

    `lift`: (n,) 0 at contact; `glow`: (n,) 1 at contact, gone after some 150 ms; `shake`: (n,) -1..1.
    """

    events: NDArray[np.float64]
    strength: NDArray[np.float64]
    lift: NDArray[np.float64]
    glow: NDArray[np.float64]
    shake: NDArray[np.float64]

    def track(self, stage: Stage, *sounds: Wave) -> Wave:
        return synthesis.place(sounds, self.events, self.strength**1.5, stage.samples, stage.sample_rate)


def _blows(stage: Stage, rng: Rng, rest: float = 0.4) -> _Blows:
    events = motion.strike_times(rng, stage.duration_s)
    strength = rng.uniform(0.6, 1.0, len(events))
    idle = 0.05 * min(rest, 0.5) * np.sin(2 * np.pi * (rng.uniform(0.2, 0.5) * stage.times + rng.random()))
    lift = motion.swing(stage.times, events, strength, rest=rest)
    return _Blows(events, strength, lift + idle * np.minimum(lift, 0.4) / 0.4, *_reaction(stage, events))


def _reaction(stage: Stage, events: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ago = motion.since(stage.times, events)
    glow = np.exp(ago / -0.06)
    return glow, glow * np.cos(2 * np.pi * 9 * ago)


def _floor(stage: Stage, rng: Rng, material: str, top: float) -> tuple[Image, int]:
    """The wall with a floor from `top` (fraction of the height) downwards, and the floor's row."""
    image, row = stage.wall.copy(), round(top * stage.height)
    image[:, row:] = texture(rng, material, stage.height - row, stage.width)
    image[:, row : row + 2] = mix(rgb(*image[:, row:].mean(axis=(1, 2))), WHITE, 0.35)
    return image, row


def _centre(stage: Stage, rng: Rng, spread: float = 0.12) -> float:
    return stage.width / 2 + stage.size * rng.uniform(-spread, spread)


# --- balls ---------------------------------------------------------------------------------------------


def _ball(stage: Stage, rng: Rng, material: str, radius: tuple[float, float], colour: Image, sound: Wave) -> Shot:
    events, speeds, heights = motion.bounces(rng, stage.times, stage.duration_s)
    background, floor = _floor(stage, rng, material, rng.uniform(0.72, 0.8))
    r = radius[0] * stage.size
    x, sway = _centre(stage, rng), rng.uniform(-0.08, 0.08) * stage.size
    xs = x + sway * np.sin(2 * np.pi * (rng.uniform(0.1, 0.3) * stage.times + rng.random()))
    reach = floor - 2.1 * r - 1
    glow, _ = _reaction(stage, events)
    shiny, dark, bright = material != "wood", mix(colour, BLACK, 0.6), mix(colour, WHITE, 0.45)

    def paint(canvas: Canvas, i: int) -> None:
        squash = radius[1] * glow[i] if heights[i] < 0.25 else 0.0
        rx, ry = r * (1 + squash), r * (1 - squash)
        y = floor - ry - heights[i] * reach
        canvas.ellipse(xs[i], floor + 0.3 * r, r * 1.1, 0.3 * r, BLACK, soft=3, opacity=0.55 - 0.4 * heights[i])
        if glow[i] > 0.05:
            canvas.ellipse(xs[i], floor + 0.3 * r, r * 2.4, 0.45 * r, WHITE, soft=2, opacity=0.8 * glow[i])
        canvas.ellipse(xs[i], y, rx, ry, colour)
        if shiny:
            canvas.disk(xs[i] - 0.08 * r, y - 0.1 * ry, 0.78 * r, bright, soft=2)
            canvas.disk(xs[i] - 0.3 * r, y - 0.35 * ry, 0.32 * r, WHITE, soft=2)
        else:
            canvas.bar(xs[i] - rx * 0.9, y, xs[i] + rx * 0.9, y, 0.09 * r, 0.09 * r, dark)
            canvas.bar(xs[i], y - ry * 0.9, xs[i], y + ry * 0.9, 0.09 * r, 0.09 * r, dark)

    track = synthesis.place([sound], events, (0.15 + 0.85 * speeds) ** 1.5, stage.samples, stage.sample_rate)
    return Shot(background, paint, track, events)


def ball_on_wood(stage: Stage, rng: Rng) -> Shot:
    r = rng.uniform(0.13, 0.19)
    body = synthesis.struck(250 * (0.16 / r) ** 1.3, synthesis.WOOD, 0.06, stage.sample_rate)
    thump = synthesis.burst(rng, (60, 900), 0.02, stage.sample_rate)
    return _ball(stage, rng, "wood", (r, 0.3), tint(rng, 226, 112, 36), synthesis.add(body, 0.6 * thump))


def ball_on_metal(stage: Stage, rng: Rng) -> Shot:
    r = rng.uniform(0.11, 0.16)
    body = synthesis.struck(640 * (0.135 / r) ** 1.6, synthesis.PLATE, 0.2, stage.sample_rate, tilt=0.4)
    clack = synthesis.burst(rng, (2000, 8000), 0.006, stage.sample_rate)
    return _ball(stage, rng, "metal", (r, 0.05), tint(rng, 64, 70, 88), synthesis.add(body, 0.4 * clack))


def marble_on_glass(stage: Stage, rng: Rng) -> Shot:
    r = rng.uniform(0.085, 0.12)
    body = synthesis.struck(2300 * (0.1 / r) ** 1.6, synthesis.GLASS, 0.09, stage.sample_rate, tilt=0.5)
    colours = ((40, 70, 220), (30, 160, 60), (200, 40, 150))
    colour = tint(rng, *colours[rng.integers(3)])
    return _ball(stage, rng, "glass", (r, 0.02), colour, body)


# --- struck things --------------------------------------------------------------------------------------


def hammer(stage: Stage, rng: Rng) -> Shot:
    s, blows = stage.size, _blows(stage, rng)
    background, floor = _floor(stage, rng, "wood", rng.uniform(0.74, 0.82))
    scale = rng.uniform(0.85, 1.2)
    nail, length = _centre(stage, rng, 0.06) + 0.16 * s, 0.5 * s
    head = 0.095 * s * scale
    steel, handle, pin = tint(rng, 50, 54, 66), tint(rng, 196, 140, 74), tint(rng, 200, 204, 212)
    depth = 0.2 * s - 0.1 * s * np.searchsorted(blows.events, stage.times, side="right") / len(blows.events)

    def paint(canvas: Canvas, i: int) -> None:
        top = floor - depth[i]
        canvas.bar(nail, floor, nail, top, 0.016 * s, 0.016 * s, pin)
        canvas.box(nail, top, 0.055 * s, 0.018 * s, pin)
        grip_x, grip_y = nail - length, top - 0.75 * head
        angle = -1.0 * blows.lift[i]
        hx, hy = grip_x + length * np.cos(angle), grip_y + length * np.sin(angle)
        canvas.bar(grip_x, grip_y, hx, hy, 0.034 * s, 0.026 * s, handle)
        canvas.box(hx, hy, 0.62 * head, 1.05 * head, steel, angle=angle)
        canvas.box(hx, hy, 0.62 * head - 2, 1.05 * head - 2, mix(steel, WHITE, 0.5), angle=angle)
        if blows.glow[i] > 0.05:
            canvas.disk(nail, top, 0.17 * s, rgb(255, 244, 170), soft=0.16 * s, opacity=blows.glow[i])

    ring = synthesis.struck(1500 * scale**-1.6, (1.0, 1.47, 2.09, 2.56, 3.9), 0.1, stage.sample_rate, tilt=0.3)
    thud = synthesis.struck(190 * scale**-1, synthesis.WOOD, 0.03, stage.sample_rate)
    return Shot(background, paint, blows.track(stage, synthesis.add(ring, 0.5 * thud)), blows.events)


def drum(stage: Stage, rng: Rng) -> Shot:
    s, blows = stage.size, _blows(stage, rng)
    background, _ = _floor(stage, rng, "wood", 0.88)
    r, x = rng.uniform(0.2, 0.33) * s, _centre(stage, rng, 0.05) - 0.06 * s
    top, tall, tip = 0.62 * stage.height, 0.3 * stage.height, 0.05 * s
    colours = ((190, 36, 40), (30, 70, 170), (24, 130, 70))
    shell, skin, stick = (tint(rng, *colours[rng.integers(3)]), tint(rng, 226, 218, 200), tint(rng, 176, 116, 58))
    still = Canvas(background)
    still.box(x, top + tall / 2, r, tall / 2, shell)
    still.ellipse(x, top + tall, r, 0.26 * r, shell)
    still.ellipse(x, top, r * 1.05, 0.3 * r, mix(skin, BLACK, 0.5))

    def paint(canvas: Canvas, i: int) -> None:
        dip = 0.05 * s * blows.shake[i]
        canvas.ellipse(x, top + dip * 0.3, r * 0.97, 0.26 * r, mix(skin, rgb(255, 170, 60), blows.glow[i]))
        if blows.glow[i] > 0.05:
            canvas.ring(x, top, r * 0.6 * (1 - 0.6 * blows.glow[i]), 0.15 * r, 2, BLACK, opacity=blows.glow[i])
        hand_x, hand_y = x + 0.58 * s, top - 0.12 * s - 0.1 * s * blows.lift[i]
        tip_x, tip_y = x + 0.1 * s * blows.lift[i], top - tip - 0.5 * s * blows.lift[i]
        canvas.bar(hand_x, hand_y, tip_x, tip_y, 0.03 * s, 0.025 * s, stick)
        canvas.disk(tip_x, tip_y, tip, mix(stick, WHITE, 0.4))

    body = synthesis.struck(105 * (0.26 * s / r) ** 1.4, synthesis.MEMBRANE, 0.16, stage.sample_rate, tilt=1.2)
    slap = synthesis.burst(rng, (150, 2500), 0.012, stage.sample_rate)
    return Shot(background, paint, blows.track(stage, synthesis.add(body, 0.5 * slap)), blows.events)


def door(stage: Stage, rng: Rng) -> Shot:
    s, blows = stage.size, _blows(stage, rng, rest=0.5)
    background = stage.wall.copy()
    half = rng.uniform(0.24, 0.34) * s
    x, y = stage.width / 2 - 0.12 * s + rng.uniform(-0.04, 0.04) * s, stage.height / 2 + 0.04 * s
    wood, frame = tint(rng, 128, 74, 40), tint(rng, 214, 204, 190)
    skin = tint(rng, *((226, 172, 136), (150, 98, 66))[rng.integers(2)])
    sleeve = tint(rng, *((50, 80, 150), (150, 40, 50), (60, 110, 70))[rng.integers(3)])
    tall = stage.height / 2 - 0.06 * s
    fist, px, py = 0.1 * s, x + 0.3 * half, y - 0.05 * s

    def leaf(canvas: Canvas, glow: float, jolt: float) -> None:
        face = mix(wood, rgb(230, 170, 110), 0.5 * glow)
        canvas.box(x + jolt, y, half, tall, face)
        for panel in (-0.48, 0.48):
            canvas.box(x + jolt, y + panel * tall, 0.68 * half, 0.34 * tall, mix(face, BLACK, 0.25))
        canvas.disk(x + jolt - 0.82 * half, y + 0.05 * s, 0.035 * s, rgb(230, 200, 90))

    still = Canvas(background)
    still.box(x, y, half + 0.05 * s, tall + 0.05 * s, frame)
    leaf(still, 0, 0)

    def paint(canvas: Canvas, i: int) -> None:
        if blows.glow[i] > 0.05:
            leaf(canvas, blows.glow[i], 0.03 * s * blows.shake[i])
            canvas.ring(px, py, *(2 * (0.21 - 0.1 * blows.glow[i]) * s,) * 2, 2.5, WHITE, opacity=blows.glow[i])
        # The knuckles come from the lower right and grow towards the camera as they leave the door.
        away = blows.lift[i]
        fx, fy, r = px + 0.42 * s * away, py + 0.2 * s * away, fist * (1 + 0.35 * away)
        canvas.bar(fx + 0.45 * s, fy + 0.4 * s, fx, fy, 0.11 * s, 0.07 * s, sleeve)
        canvas.disk(fx, fy, r, skin)
        for knuckle in (-0.5, 0.0, 0.5):
            canvas.disk(fx - 0.55 * r, fy + knuckle * r, 0.24 * r, mix(skin, BLACK, 0.3))

    body = synthesis.struck(165 * (0.29 * s / half) ** 1.5, synthesis.WOOD, 0.045, stage.sample_rate, tilt=0.5)
    rap = synthesis.burst(rng, (250, 1500), 0.01, stage.sample_rate)
    return Shot(background, paint, blows.track(stage, synthesis.add(body, 0.5 * rap)), blows.events)


def bell(stage: Stage, rng: Rng) -> Shot:
    s, blows = stage.size, _blows(stage, rng, rest=0.45)
    background = stage.wall.copy()
    r, x, top = rng.uniform(0.19, 0.29) * s, _centre(stage, rng, 0.08), 0.14 * stage.height
    bronze = tint(rng, 206, 160, 52)
    Canvas(background).box(stage.width / 2, top, stage.width, 0.05 * s, tint(rng, 84, 60, 44))
    # The bell leans away while the clapper is raised and is kicked back by the blow.
    ago = motion.since(stage.times, blows.events)
    lean = -0.4 * (blows.lift - 0.45) + 0.3 * np.sin(2 * np.pi * 1.6 * ago) * np.exp(-ago / 0.3)

    def paint(canvas: Canvas, i: int) -> None:
        sin, cos = np.sin(lean[i]), np.cos(lean[i])
        long = 1.9 * r
        mouth_x, mouth_y = x + long * sin, top + long * cos
        metal = mix(bronze, WHITE, 0.7 * blows.glow[i])
        hang = lean[i] + 0.62 - 0.95 * blows.lift[i]
        reach = 1.35 * long
        canvas.bar(x, top, x + reach * np.sin(hang), top + reach * np.cos(hang), 2, 2, BLACK)
        canvas.disk(x + reach * np.sin(hang), top + reach * np.cos(hang), 0.085 * s, rgb(50, 44, 44))
        canvas.bar(x + 0.5 * r * sin, top + 0.5 * r * cos, mouth_x, mouth_y, 0.5 * r, 0.85 * r, metal)
        canvas.bar(
            mouth_x - r * cos,
            mouth_y + r * sin,
            mouth_x + r * cos,
            mouth_y - r * sin,
            0.14 * r,
            0.14 * r,
            mix(metal, BLACK, 0.25),
        )

    tone = synthesis.struck(420 * (0.24 * s / r) ** 1.6, synthesis.BELL, 0.7, stage.sample_rate, tilt=0.3)
    clang = synthesis.burst(rng, (1500, 6000), 0.006, stage.sample_rate)
    return Shot(background, paint, blows.track(stage, synthesis.add(tone, 0.5 * clang)), blows.events)


def footsteps(stage: Stage, rng: Rng) -> Shot:
    s, blows = stage.size, _blows(stage, rng)
    background, floor = _floor(stage, rng, "gravel", rng.uniform(0.74, 0.8))
    x, size = _centre(stage, rng, 0.08), rng.uniform(0.85, 1.2)
    cloth = tint(rng, *((40, 60, 120), (60, 60, 64), (110, 84, 54))[rng.integers(3)])
    boot = tint(rng, *((60, 36, 24), (30, 30, 34), (150, 30, 30))[rng.integers(3)])
    lifts = [motion.swing(stage.times, blows.events[k::2], blows.strength[k::2], rest=0.0) for k in (0, 1)]
    stones = rng.uniform((-1, 0.5), (1, 1.2), (5, 2))
    glow, foot = blows.glow, np.searchsorted(blows.events, stage.times, side="right") - 1

    def paint(canvas: Canvas, i: int) -> None:
        for k in (1, 0):
            shade = mix(cloth, BLACK, 0.35 * k)
            hip = x - (0.1 - 0.2 * k) * s
            fx, fy = hip + 0.16 * s * lifts[k][i], floor + 0.03 * s - 0.36 * s * lifts[k][i]
            knee_x, knee_y = (hip + fx) / 2 + 0.3 * s * lifts[k][i], (fy - 0.1 * s) / 2
            canvas.bar(hip, -0.1 * s, knee_x, knee_y, 0.1 * s, 0.085 * s, shade)
            canvas.bar(knee_x, knee_y, fx, fy - 0.1 * s, 0.085 * s, 0.07 * s, shade)
            canvas.bar(
                fx - 0.02 * s,
                fy - 0.06 * s,
                fx + 0.15 * s * size,
                fy - 0.04 * s,
                0.08 * s * size,
                0.055 * s * size,
                mix(boot, BLACK, 0.3 * k),
            )
        if foot[i] >= 0 and glow[i] > 0.05:
            centre = x - (0.1 - 0.2 * (foot[i] % 2)) * s + 0.06 * s
            canvas.ellipse(centre, floor + 0.08 * s, 0.26 * s, 0.07 * s, rgb(230, 222, 205), soft=4, opacity=glow[i])
            for dx, dy in stones:
                canvas.disk(
                    centre + 0.3 * s * dx * (1.3 - glow[i]),
                    floor - 0.3 * s * dy * (1.1 - glow[i]),
                    0.025 * s,
                    rgb(90, 84, 76),
                )

    steps = [synthesis.crunch(rng, 2300 * size**-1.5 * rng.uniform(0.9, 1.1), stage.sample_rate) for _ in range(3)]
    return Shot(background, paint, blows.track(stage, *steps), blows.events)


def dripping(stage: Stage, rng: Rng) -> Shot:
    s = stage.size
    events = motion.strike_times(rng, stage.duration_s)
    background, level = _floor(stage, rng, "water", rng.uniform(0.66, 0.74))
    x, steel = _centre(stage, rng), tint(rng, 176, 180, 188)
    tap = 0.2 * stage.height
    still = Canvas(background)
    still.bar(x + 0.6 * s, tap - 0.1 * s, x, tap - 0.1 * s, 0.05 * s, 0.05 * s, steel)
    still.bar(x, tap - 0.1 * s, x, tap, 0.05 * s, 0.06 * s, steel)
    sizes = rng.uniform(0.07, 0.1) * rng.uniform(0.85, 1.15, len(events))
    drop = tint(rng, 140, 200, 240)
    fall_s, surface = 0.2, level + 0.1 * stage.height
    upcoming = np.minimum(np.searchsorted(events, stage.times), len(events) - 1)
    wait, ago = events[upcoming] - stage.times, motion.since(stage.times, events)
    latest = np.maximum(np.searchsorted(events, stage.times, side="right") - 1, 0)

    def paint(canvas: Canvas, i: int) -> None:
        if ago[i] < 0.9:
            spread = (0.1 + 0.75 * ago[i] ** 0.7) * s
            fade = float(np.exp(-ago[i] / 0.3))
            canvas.ring(x, surface, spread, 0.28 * spread, 3.5, rgb(235, 245, 255), opacity=fade)
            canvas.ring(x, surface, 0.55 * spread, 0.16 * spread, 2.5, rgb(235, 245, 255), opacity=fade)
        if ago[i] < 0.16:  # the crown thrown up by the impact
            tall = 0.24 * s * np.sin(np.pi * (ago[i] + 0.04) / 0.2)
            r = sizes[latest[i]] * s
            canvas.bar(x, surface, x, surface - tall, 0.8 * r, 0.3 * r, rgb(235, 245, 255))
        r = sizes[upcoming[i]] * s
        if 0 < wait[i] <= fall_s:
            part = 1 - wait[i] / fall_s
            y = tap + r + (surface - tap - 2 * r) * part * part
            canvas.bar(x, y - 1.6 * r, x, y, 0.15 * r, 0.9 * r, drop)
        elif wait[i] > 0:
            grown = max(0.35, 1 - 1.5 * (wait[i] - fall_s))
            canvas.bar(x, tap, x, tap + r * grown, 0.4 * r * grown, 0.8 * r * grown, drop)

    sounds = [
        synthesis.add(
            synthesis.bubble(900 * (0.085 / size) ** 1.6, stage.sample_rate),
            0.3 * synthesis.burst(rng, (2000, 6000), 0.004, stage.sample_rate),
        )
        for size in sizes
    ]
    gains = 0.5 + 0.5 * sizes / sizes.max()
    return Shot(background, paint, synthesis.place(sounds, events, gains, stage.samples, stage.sample_rate), events)


# --- continuous sounds ----------------------------------------------------------------------------------


def engine(stage: Stage, rng: Rng) -> Shot:
    s = stage.size
    curve = motion.wander(rng, stage.duration_s, 0.3, 2.6)
    speed = np.interp(stage.seconds, *curve)
    turns = np.cumsum(speed) / stage.sample_rate
    index = np.minimum((stage.times * stage.sample_rate).astype(int), stage.samples - 1)
    angle, pace = 2 * np.pi * (turns[index] + rng.random()), speed[index] / 2.6
    background, floor = _floor(stage, rng, "metal", 0.86)
    r, x = rng.uniform(0.2, 0.32) * s, _centre(stage, rng, 0.1)
    body, rim, spoke = tint(rng, 90, 100, 84), tint(rng, 40, 40, 44), tint(rng, 216, 206, 190)
    mark, axle = tint(rng, 220, 50, 40), floor - r - 0.06 * s
    still = Canvas(background)
    still.box(x + 0.1 * s, axle + 0.1 * s, r + 0.16 * s, r * 0.8, body)
    still.bar(x + r, axle - r, x + r, axle, 0.05 * s, 0.06 * s, body)

    def paint(canvas: Canvas, i: int) -> None:
        y = axle + 0.025 * s * pace[i] * np.sin(angle[i] * 5)
        canvas.disk(x + r, axle - r - 0.1 * s, (0.05 + 0.1 * pace[i]) * s, rgb(120, 116, 112), soft=6, opacity=pace[i])
        canvas.disk(x, y, r, rim)
        canvas.disk(x, y, 0.84 * r, mix(rim, WHITE, 0.25))
        for k in range(3):  # three spokes, one marked: no aliasing at 25 fps below 12 turns a second
            a = angle[i] + 2 * np.pi * k / 3
            canvas.bar(x, y, x + 0.8 * r * np.cos(a), y + 0.8 * r * np.sin(a), 0.1 * r, 0.16 * r, spoke if k else mark)
        canvas.disk(x, y, 0.2 * r, rim)

    pitch = 24 + 60 * speed * (0.26 * s / r) ** 1.2
    dull = synthesis.tone(pitch, [1, 0.8, 0.5, 0.35, 0.2, 0.15], stage.sample_rate)
    rough = synthesis.tone(pitch, [0.5, 0.7, 0.6, 0.8, 0.5, 0.6, 0.4, 0.5, 0.3, 0.3, 0.25, 0.2], stage.sample_rate)
    load = (speed / 2.6).astype(np.float32)
    hiss = synthesis.noise(rng, stage.samples, (300, 2500), stage.sample_rate)
    sound = (0.25 + 0.75 * load) * (dull * (1 - load) + rough * load + 0.25 * load * hiss)
    return Shot(background, paint, np.asarray(sound, np.float32), np.zeros(0))


def siren(stage: Stage, rng: Rng) -> Shot:
    s = stage.size
    rate = np.interp(stage.seconds, *motion.wander(rng, stage.duration_s, 0.25, 1.1))
    phase = 2 * np.pi * (np.cumsum(rate) / stage.sample_rate + rng.random())
    rise = 0.5 - 0.5 * np.cos(phase)
    shine = rise[np.minimum((stage.times * stage.sample_rate).astype(int), stage.samples - 1)]
    background = stage.wall.copy()
    x, y, r = _centre(stage, rng), 0.55 * stage.height, rng.uniform(0.14, 0.22) * s
    lamp = rgb(*((255, 30, 20), (40, 80, 255))[rng.integers(2)])
    car, night, light = tint(rng, 226, 226, 232, 8), rgb(20, 20, 30), mix(lamp, WHITE, 0.45)
    still = Canvas(background)
    still.box(x, y + 0.95 * r + 0.12 * s, 0.36 * s, 0.13 * s, car)
    still.box(x, y + 0.95 * r + 0.15 * s, 0.36 * s, 0.04 * s, rgb(30, 50, 130))
    halo = np.zeros((3, stage.height, stage.width), np.float32)
    Canvas(halo).disk(x, y, 0.6 * s, np.ones((3, 1, 1), np.float32), soft=0.5 * s)

    def paint(canvas: Canvas, i: int) -> None:
        glow = shine[i]
        canvas.glaze(halo[0], mix(night, light, glow), 0.8)
        canvas.ellipse(x, y, r, 1.1 * r, mix(mix(lamp, BLACK, 0.75), lamp, glow))
        canvas.disk(x, y, (0.1 + 0.5 * glow) * r, WHITE, soft=3, opacity=glow)
        canvas.box(x, y + 1.0 * r, 1.15 * r, 0.12 * r, rgb(40, 40, 44))

    low = 560 * (0.18 * s / r) ** 0.7
    wail = synthesis.tone(low * 2.3**rise, [1, 0.5, 0.45, 0.2, 0.15], stage.sample_rate)
    return Shot(background, paint, wail, np.zeros(0))


def rain(stage: Stage, rng: Rng) -> Shot:
    curve = motion.wander(rng, stage.duration_s, 0.0, 1.0)
    density, level = np.interp(stage.times, *curve), np.interp(stage.seconds, *curve).astype(np.float32)
    background, floor = _floor(stage, rng, "water", 0.86)
    most = round(0.013 * stage.height * stage.width)
    length, slant = round(0.13 * stage.size), rng.uniform(-0.35, 0.1)
    places = rng.uniform(0, 1, (len(stage.times), 2, most)).astype(np.float32)
    places *= np.array([stage.width, stage.height], np.float32)[:, None]
    drop, dark = rgb(225, 232, 240), tint(rng, 56, 60, 70)
    cloud = np.repeat(np.linspace(1.1, -0.6, stage.height, dtype=np.float32)[:, None], stage.width, axis=1)
    cloud = np.clip(cloud + 0.3 * smooth_noise(rng, stage.height, stage.width, 5, 6), 0, 0.9)

    def paint(canvas: Canvas, i: int) -> None:
        canvas.glaze(cloud, dark, density[i])
        x, y = places[i, :, : round(density[i] * most)]
        canvas.streaks(x, y, length, slant, drop, 0.75)
        for k in range(round(5 * density[i])):
            canvas.ring(x[k], floor + 0.1 * stage.height * (k % 2), 6, 2, 1.5, drop)

    patter = synthesis.noise(rng, stage.samples, (400, 1800), stage.sample_rate)
    sizzle = synthesis.noise(rng, stage.samples, (3000, 9000), stage.sample_rate)
    sound = level * (patter * (1 - 0.5 * level) + sizzle * level)
    return Shot(background, paint, sound, np.zeros(0))


SCENES: dict[str, Scene] = {
    "ball bouncing on wood": ball_on_wood,
    "ball bouncing on metal": ball_on_metal,
    "marble bouncing on glass": marble_on_glass,
    "hammering nail": hammer,
    "playing drum": drum,
    "knocking on door": door,
    "church bell ringing": bell,
    "footsteps on gravel": footsteps,
    "water dripping": dripping,
    "engine running": engine,
    "police siren wailing": siren,
    "rain falling": rain,
}
