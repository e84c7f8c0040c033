"""Soft-edged shapes on small planar images.

Shapes are signed distances evaluated inside the shape's bounding box only: a scene of five moving shapes has
to cost about 0.1 ms a frame. Letters: H, W frame size in pixels; x to the right, y down, pixel centres on
whole numbers. Colours are (3, 1, 1) float32 in 0..255.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Colour = NDArray[np.float32]

# Colours stay inside this range so that flicker and sensor noise never need clipping.
DARKEST, BRIGHTEST = 14.0, 236.0


def rgb(red: float, green: float, blue: float) -> Colour:
    return np.clip(np.array([red, green, blue], np.float32), DARKEST, BRIGHTEST).reshape(3, 1, 1)


def tint(rng: np.random.Generator, red: float, green: float, blue: float, spread: float = 18.0) -> Colour:
    """A colour near the given one: the same hue in other light."""
    light, shift = rng.uniform(-spread, spread), rng.uniform(-spread / 2, spread / 2, 3)
    return rgb(*(np.array([red, green, blue]) + light + shift))


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    return first + (second - first) * np.float32(amount)


class Canvas:
    """One frame being painted. `image`: (3, H, W); shapes show only where `mask` (H, W) is 1, if given."""

    def __init__(self, image: Image, mask: Image | None = None) -> None:
        self.image, self.mask = image, mask
        _, self.height, self.width = image.shape
        self._x = np.arange(self.width, dtype=np.float32)[None, :]
        self._y = np.arange(self.height, dtype=np.float32)[:, None]

    def _window(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        """Bounding box clipped to the frame, as (rows, columns); empty when outside."""
        x0, x1 = max(int(left) - 1, 0), min(int(right) + 2, self.width)
        y0, y1 = max(int(top) - 1, 0), min(int(bottom) + 2, self.height)
        return slice(y0, max(y0, y1)), slice(x0, max(x0, x1))

    def _blend(self, window: tuple[slice, slice], cover: Image, colour: Colour, opacity: float) -> None:
        """`cover`: (h, w), below 0 outside the shape, above 1 inside."""
        region = self.image[:, window[0], window[1]]
        np.maximum(cover, 0.0, out=cover)
        np.minimum(cover, 1.0, out=cover)
        if opacity != 1.0:
            cover *= np.float32(opacity)
        if self.mask is not None:
            cover *= self.mask[window]
        change = colour - region
        change *= cover
        region += change

    def glaze(self, cover: Image, colour: Colour, opacity: float) -> None:
        """Lay `colour` over the whole frame, as thick as `cover` (H, W) in 0..1 says."""
        change = colour - self.image
        change *= cover * np.float32(opacity)
        self.image += change

    def _squared_radius(
        self, window: tuple[slice, slice], x: float, y: float, rx: float, ry: float, k: float
    ) -> tuple[Image, Image]:
        """k * (squared distance from the centre in radii) as a row and a column to be added up."""
        rows, cols = window
        across = np.square((self._x[:, cols] - np.float32(x)) * np.float32(k**0.5 / rx))
        return across, np.square((self._y[rows] - np.float32(y)) * np.float32(k**0.5 / ry))

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, *, soft: float = 1.0, opacity: float = 1.0
    ) -> None:
        """Filled ellipse of radii rx, ry; `soft` is the width of its edge in pixels."""
        window = self._window(x - rx - soft, y - ry - soft, x + rx + soft, y + ry + soft)
        # (1 - q^2) / 2 is the distance 1 - q near the edge q = 1 and needs no square root.
        slope = 0.5 * min(rx, ry) / soft
        across, down = self._squared_radius(window, x, y, rx, ry, slope)
        self._blend(window, (np.float32(slope + 0.5) - across) - down, colour, opacity)

    def disk(self, x: float, y: float, r: float, colour: Colour, *, soft: float = 1.0, opacity: float = 1.0) -> None:
        self.ellipse(x, y, r, r, colour, soft=soft, opacity=opacity)

    def ring(
        self, x: float, y: float, rx: float, ry: float, thick: float, colour: Colour, *, opacity: float = 1.0
    ) -> None:
        """Outline of an ellipse."""
        window = self._window(x - rx - thick, y - ry - thick, x + rx + thick, y + ry + thick)
        slope = 0.5 * min(rx, ry)
        across, down = self._squared_radius(window, x, y, rx, ry, slope)
        distance = np.abs((across - np.float32(slope)) + down)
        self._blend(window, np.float32(thick / 2 + 0.5) - distance, colour, opacity)

    def bar(self, ax: float, ay: float, bx: float, by: float, ra: float, rb: float, colour: Colour) -> None:
        """Round-ended bar from a to b whose half width goes from ra to rb."""
        wide = max(ra, rb)
        rows, cols = window = self._window(
            min(ax, bx) - wide, min(ay, by) - wide, max(ax, bx) + wide, max(ay, by) + wide
        )
        dx, dy, ex, ey = self._x[:, cols] - np.float32(ax), self._y[rows] - np.float32(ay), bx - ax, by - ay
        norm = max(ex * ex + ey * ey, 1e-6)
        along = dx * np.float32(ex / norm) + dy * np.float32(ey / norm)
        np.maximum(along, 0.0, out=along)
        np.minimum(along, 1.0, out=along)
        distance = np.sqrt(np.square(dx - along * np.float32(ex)) + np.square(dy - along * np.float32(ey)))
        along *= np.float32(rb - ra)
        along += np.float32(ra + 0.5)
        along -= distance
        self._blend(window, along, colour, 1.0)

    def box(
        self,
        x: float,
        y: float,
        half_w: float,
        half_h: float,
        colour: Colour,
        *,
        angle: float = 0.0,
        opacity: float = 1.0,
    ) -> None:
        """Filled rectangle turned by `angle` radians about its centre."""
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        reach_x = abs(half_w * cos) + abs(half_h * sin)
        reach_y = abs(half_w * sin) + abs(half_h * cos)
        rows, cols = window = self._window(x - reach_x, y - reach_y, x + reach_x, y + reach_y)
        dx, dy = self._x[:, cols] - np.float32(x), self._y[rows] - np.float32(y)
        across = np.float32(half_w + 0.5) - np.abs(dx * np.float32(cos) + dy * np.float32(sin))
        down = np.float32(half_h + 0.5) - np.abs(dy * np.float32(cos) - dx * np.float32(sin))
        self._blend(window, np.minimum(across, down), colour, opacity)

    def streaks(self, x: Image, y: Image, length: int, slant: float, colour: Colour, opacity: float) -> None:
        """Thin falling lines from the points x, y (k,)."""
        steps = np.arange(length, dtype=np.float32)
        rows = (y[:, None] + steps).astype(np.intp) % self.height
        cols = (x[:, None] + steps * np.float32(slant)).astype(np.intp) % self.width
        region = self.image[:, rows, cols]
        self.image[:, rows, cols] = region + np.float32(opacity) * (colour - region)


def smooth_noise(rng: np.random.Generator, height: int, width: int, rows: int, cols: int) -> Image:
    """Random rows x cols grid interpolated to (height, width), in -1..1."""
    grid = rng.uniform(-1, 1, (rows, cols)).astype(np.float32)
    return np.asarray(_interpolation(height, rows) @ grid @ _interpolation(width, cols).T, np.float32)


def _interpolation(size: int, knots: int) -> Image:
    """(size, knots) weights of linear interpolation."""
    position = np.linspace(0, knots - 1, size)
    return np.asarray(np.maximum(0, 1 - np.abs(position[:, None] - np.arange(knots))), np.float32)


def backdrop(rng: np.random.Generator, height: int, width: int) -> Image:
    """(3, H, W): two-colour gradient, blotches, grain and a few flat shapes without meaning."""
    first, second = (rng.uniform(45, 190) + rng.uniform(-28, 28, (3, 1, 1)) for _ in range(2))
    angle = rng.uniform(0, np.pi)
    down, across = np.linspace(-0.35, 0.35, height)[:, None], np.linspace(-0.35, 0.35, width)[None, :]
    ramp = 0.5 + np.cos(angle) * across + np.sin(angle) * down
    image = (first + (second - first) * ramp).astype(np.float32)
    image += 22 * smooth_noise(rng, height, width, 5, 6)
    image += 7 * rng.uniform(-1, 1, (height, width)).astype(np.float32)
    canvas, size = Canvas(image), min(height, width)
    for _ in range(rng.integers(0, 4)):
        x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
        wide, tall = (float(half) for half in rng.uniform(0.06, 0.22, 2) * size)
        colour = rgb(*(rng.uniform(50, 190) + rng.uniform(-25, 25, 3)))
        if rng.random() < 0.5:
            canvas.ellipse(x, y, wide, tall, colour, opacity=0.5)
        else:
            canvas.box(x, y, wide, tall, colour, angle=rng.uniform(0, np.pi), opacity=0.5)
    return np.asarray(np.clip(image, DARKEST, BRIGHTEST), np.float32)


def texture(rng: np.random.Generator, material: str, height: int, width: int) -> Image:
    """(3, height, width) surface that shows its material."""
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]
    fine = rng.uniform(-1, 1, (height, width)).astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi)
    if material == "wood":
        plank = rng.integers(14, 24)
        seams = ((x + rng.integers(plank)) % plank < 1.5) * -45.0
        image = tint(rng, 158, 102, 52) + 20 * smooth_noise(rng, height, width, 4, width // 3) + seams
    elif material == "metal":
        tread = 22 * np.sign(np.sin(0.55 * (x + y) + phase) * np.sin(0.55 * (x - y)))
        image = tint(rng, 142, 150, 162) + tread + 4 * fine
    elif material == "glass":
        shine = 45 * (np.sin(0.16 * (x + 0.6 * y) + phase) > 0.75)
        image = tint(rng, 120, 200, 196) + shine + 2 * fine
    elif material == "gravel":
        stones = rng.uniform(-1, 1, (height // 3 + 1, width // 3 + 1)).astype(np.float32)
        image = tint(rng, 128, 120, 108) + 42 * np.kron(stones, np.ones((3, 3), np.float32))[:height, :width]
    elif material == "water":
        waves = 14 * np.sin(0.9 * y + 0.12 * x + phase) + 8 * smooth_noise(rng, height, width, 6, 5)
        image = tint(rng, 38, 96, 168) + waves
    else:
        raise ValueError(f"material={material!r}: expected wood, metal, glass, gravel or water")
    return np.asarray(np.clip(image, DARKEST, BRIGHTEST), np.float32)
