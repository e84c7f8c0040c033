"""Pictures on the page: a video's poster, and spectrograms that share one scale in decibels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.image import imsave
from PIL import Image

from specmaskfoley.media.frames import read_frames
from specmaskfoley.media.probe import MediaInfo
from specmaskfoley.report.pictures import FLOOR_DB
from specmaskfoley.storage.files import atomic_path

_COLOURS = "magma"
_POSTER_SIDE = 480
_POSTER_TIMES_S = (0.0, 0.5, 1.0, 2.0)
_SHOWS_SOMETHING = 12.0
"""Standard deviation of the grey levels of a picture that is neither black nor of one colour."""


def write_strip(path: Path, decibels: np.ndarray) -> None:
    """A spectrogram (M, columns) in dB as a PNG, one pixel a value: its left and right edge are its time's."""
    with atomic_path(path) as temporary:
        imsave(temporary, decibels, format="png", origin="lower", cmap=_COLOURS, vmin=FLOOR_DB, vmax=0.0)


def gradient() -> str:
    """The scale of `write_strip` from FLOOR_DB to 0, as CSS."""
    stops = ", ".join(to_hex(colormaps[_COLOURS](share)) for share in np.linspace(0, 1, 9))
    return f"linear-gradient(90deg, {stops})"


def write_poster(path: Path, video: Path, info: MediaInfo) -> None:
    """The first of some early pictures of a video that shows something, as a JPEG of its shape.

    Raises:
        MediaError: no picture can be decoded.
    """
    times = np.array([second for second in _POSTER_TIMES_S if second < info.duration_s])
    frames = read_frames(video, times=times, size=_POSTER_SIDE)
    contrast = frames.mean(axis=-1).std(axis=(1, 2))
    shown = frames[np.argmax(contrast > _SHOWS_SOMETHING)] if contrast.max() > _SHOWS_SOMETHING else frames[0]
    scale = _POSTER_SIDE / max(info.width, info.height)
    size = [max(1, round(scale * side)) for side in (info.width, info.height)]
    with atomic_path(path) as temporary:
        Image.fromarray(shown).resize((size[0], size[1])).save(temporary, format="jpeg", quality=85)
