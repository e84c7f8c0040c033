"""Pictures in memory in place of a video file."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specmaskfoley.media.writing import write_frames

VideoSource = str | os.PathLike[str] | np.ndarray | torch.Tensor | Iterable[Any]
"""A video file; or frames, an array or tensor (frames, height, width, 3) or its frames one after the other: RGB, uint8
or floats 0..1."""

_MOST_FPS = 1000.0
"""More frames a second are a mistake: a duration or a sample rate."""


class Frames:
    """Frames as a video without loss in a temporary folder, which goes when nothing refers to this object any more.

    path: of the video; the same frames at the same rate give the same bytes.
    """

    def __init__(self, frames: Iterable[Any], fps: float | Fraction) -> None:
        """
        Raises:
            ValueError: naming the frame that cannot be used, or the rate.
            OSError: there is no room for it.
        """
        if not (math.isfinite(fps) and 0 < fps <= _MOST_FPS):
            raise ValueError(f"fps={fps} must be above 0 and at most {_MOST_FPS:g} frames a second")
        folder = Path(tempfile.mkdtemp(prefix="specmaskfoley-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = folder / "frames.mp4"
        write_frames(self.path, _pictures(frames), Fraction(float(fps)))


def video_file(video: VideoSource | None, fps: float | Fraction | None) -> tuple[Path | None, Frames | None]:
    """The file of a video, if there is one; for frames, also what keeps it there.

    Raises:
        ValueError: as `Frames`; or the rate of frames is missing, or given for a file.
        OSError: as `Frames`.
    """
    if video is None or isinstance(video, str | os.PathLike):
        if fps is not None:
            raise ValueError(f"fps={fps} is for frames; leave it out with {'a video file' if video else 'no video'}")
        return None if video is None else Path(video), None
    if fps is None:
        raise ValueError("frames need fps=..., how many there are a second")
    frames = Frames(video, fps)
    return frames.path, frames


def _pictures(frames: Iterable[Any]) -> Iterator[np.ndarray]:
    """uint8 (height, width, 3), one at a time."""
    try:
        given = enumerate(frames)
    except TypeError:
        raise ValueError(
            f"a video is a file, or frames (frames, height, width, 3); got {type(frames).__name__}"
        ) from None
    first = None
    for number, frame in given:
        picture = _picture(frame, number)
        first = first or picture.shape
        if picture.shape != first:
            raise ValueError(f"frame {number} has the shape {picture.shape}, and frame 0 {first}; all must have one")
        yield picture


def _picture(frame: Any, number: int) -> np.ndarray:
    """
    Raises:
        ValueError: it is no RGB picture.
    """
    if isinstance(frame, torch.Tensor):
        frame = frame.detach().cpu()
        frame = frame.float() if frame.is_floating_point() else frame  # numpy has no bfloat16
    picture = np.asarray(frame)
    if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"frame {number} has the shape {picture.shape}; frames are (frames, height, width, 3), RGB")
    if picture.dtype == np.uint8:
        return picture
    if not np.issubdtype(picture.dtype, np.floating):
        raise ValueError(f"frame {number} is {picture.dtype}; frames are uint8, or floats 0..1")
    low, high = picture.min(), picture.max()
    if not (low >= 0 and high <= 1):  # also where one is not a number
        raise ValueError(f"frame {number} has values from {low:.4g} to {high:.4g}; frames are floats 0..1, or uint8")
    return np.asarray(np.rint(picture.astype(np.float32) * 255), np.uint8)
