"""Frames of a video: which frame belongs to a time, and how it gets its size.

Two of the three rules (`settings.FrameRule`) and three of the fits (`Fit`) are those of the official feature
extractors, to the byte.

Frames come from PyAV alone. decord 0.6 was measured against it (2 cores, 125 H.264 frames of 96x96): 11 ms
without any resize against PyAV's 9 ms with it, equal within noise at 720p; it fails outright for widths
whose row of bytes is no multiple of 64 (48 x 3), and counts frames, not presentation times. Tests use it as
the independent opinion on which frame is which.

Shape letters: t frames, h, w height and width of a picture.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from av.video.reformatter import VideoReformatter

from specmaskfoley.media.container import (
    MediaError,
    PathLike,
    open_media,
    quarter_turns,
    time_zero,
    timed_frames,
    video_stream,
)
from specmaskfoley.settings import Fit, FrameRule

ViewFit = Literal[Fit, "short_side", "three_crops"]
"""How a picture gets its size: one of `settings.Fit`, which give a square, or

short_side: short side to the size, nothing cut off, as av-benchmark does for ImageBind.
three_crops: the same, then the squares at the start, the centre and the end of the long side, as ImageBind sees them.
"""

# swscale: bicubic (antialiased when shrinking), with full chroma interpolation and accurate rounding.
# Without the latter two, colours came out 1.4 grey levels too dark on average; with them 0.0, for 10 us a frame.
BICUBIC = 0x4 | 0x2000 | 0x40000
# The extractors take swscale's colours as they come, and so do all fits but "stretch": without the flags above every
# statistic of the golden frames is met to their last digit, with them the mean is up to 1.3 grey levels off.
_PLAIN = 0x4
_TIME_TOLERANCE_S = 0.0005  # timestamps in milliseconds (Matroska) may be half a millisecond late


@dataclass(frozen=True)
class View:
    """How an encoder or a judge sees a video: `frames` at `fps`, picked by `rule`, shaped by `fit` to `size` pixels."""

    fps: float
    frames: int
    size: int
    fit: ViewFit = "stretch"
    rule: FrameRule = "on_screen"

    def __post_init__(self) -> None:
        for name, value, known in (("fit", self.fit, get_args(ViewFit)), ("rule", self.rule, get_args(FrameRule))):
            if value not in known:
                raise ValueError(f"{name}={value!r} must be one of {', '.join(known)}")
        if self.size < 1:
            raise ValueError(f"size={self.size} must be positive")

    def times(self, start_s: float = 0.0) -> np.ndarray:
        """The times (frames,), in seconds, that the frames are for."""
        return frame_times(self.fps, self.frames, rule=self.rule, start_s=start_s)


def frame_times(fps: float, count: int, *, rule: FrameRule = "on_screen", start_s: float = 0.0) -> np.ndarray:
    """The times (count,), in seconds, at which reading by the same `rule` gives `count` frames at `fps` from `start_s`.

    For k = 0, 1, ... on_screen: k / fps. rate_filter: (k + 1/2) / fps, the middle of slot k. timestamp: k / fps by
    repeated addition, as MMAudio's demo counts; the rounding of the sum decides where a frame lies exactly on it.
    """
    if not (math.isfinite(fps) and fps > 0) or count < 0 or not math.isfinite(start_s):
        raise ValueError(f"fps={fps} must be positive, count={count} not negative and start_s={start_s} finite")
    if rule == "timestamp":
        times = np.zeros(count)
        np.cumsum(np.full(max(0, count - 1), 1 / fps), out=times[1:])
        return start_s + times
    shift = 0.5 if rule == "rate_filter" else 0.0
    return np.asarray((start_s * fps + np.arange(count) + shift) / fps, np.float64)


def read_frames(
    path: PathLike, *, times: np.ndarray, size: int, fit: ViewFit = "stretch", rule: FrameRule = "on_screen"
) -> np.ndarray:
    """Frames at any times, in any order: uint8 RGB (t, h, w, 3); see `read_views`.

    With rules other than "on_screen", the times come from `frame_times`.
    """
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not np.isfinite(times).all():
        raise ValueError(f"times must be finite numbers in one dimension, got shape {times.shape}")
    view = View(1.0, len(times), size, fit, rule)  # its rate is not used
    return next(_stream(path, [[_Reel(view, times)]]))[0]


def read_views(path: PathLike, views: Sequence[View], start_s: float = 0.0) -> dict[View, np.ndarray]:
    """Frames of one video from `start_s` on, by view, from one decoding.

    For each view uint8 RGB (t, h, w, 3), with three crops (3, t, h, w, 3). Times before the first frame get the first,
    times after the last the last. It is the displayed picture (rotation applied) that is shaped. Memory holds a few
    full-size frames whatever the length: they are shaped one at a time, and not shaped again for the next equal time.

    Raises:
        MediaError: with state "missing", "corrupt" or "no_video".
    """
    return next(stream_views(path, views, [start_s])) if views else {}


def stream_views(path: PathLike, views: Sequence[View], starts_s: Sequence[float]) -> Iterator[dict[View, np.ndarray]]:
    """What `read_views` gives from each of ascending `starts_s` on, all from one decoding.

    Each window is yielded as soon as its last frame is decoded; memory holds the windows that are begun.
    """
    # A generator, so that nothing holds on to windows that have been yielded.
    windows = ([_Reel(view, view.times(start_s)) for view in views] for start_s in starts_s)
    for arrays in _stream(path, windows):
        yield dict(zip(views, arrays, strict=True))


def fit_picture(picture: np.ndarray, *, size: int, fit: ViewFit) -> np.ndarray:
    """A full-size picture, uint8 RGB (h, w, 3), shaped by any `fit` but "stretch": uint8 RGB (h', w', 3).

    With "three_crops" it is not yet cut; see `three_crops`.
    """
    if fit == "stretch":
        raise ValueError("fit='stretch' works on decoded frames only; use 'clip' for a picture")
    return _fitted(picture, _resized_shape(picture.shape[:2], size, fit), fit)


def three_crops(frames: np.ndarray, size: int) -> np.ndarray:
    """Frames (t, h, w, 3) with the short side `size` -> squares along the long side (3, t, size, size, 3)."""
    height, width = frames.shape[1:3]
    spare = max(height, width) - size
    starts = (0, math.ceil(spare / 2), spare)
    if height > width:
        return np.stack([frames[:, start : start + size] for start in starts])
    return np.stack([frames[:, :, start : start + size] for start in starts])


def _resized_shape(shape: tuple[int, ...], size: int, fit: ViewFit) -> tuple[int, int]:
    """(h, w) to which a picture of `shape` (h, w) is resized, before any crop."""
    if fit in ("stretch", "clip"):
        return size, size
    height, width = shape
    if height < width:
        return size, int(size * width / height)
    return int(size * height / width), size


def _fitted(picture: np.ndarray, shape: tuple[int, int], fit: ViewFit) -> np.ndarray:
    """(h, w, 3) resized to `shape` (h, w), and for "crop" cut to the central square of the shorter side."""
    import torch
    from torchvision.transforms.v2 import functional

    # The channels stay last in memory: 1.2 ms instead of 4 to 6 for 720p, and the same bytes.
    channels_first = torch.from_numpy(picture).permute(2, 0, 1)
    resized = functional.resize(channels_first, list(shape), functional.InterpolationMode.BICUBIC, antialias=True)
    if fit == "crop":
        resized = functional.center_crop(resized, [min(shape), min(shape)])
    shaped: np.ndarray = resized.permute(1, 2, 0).numpy()
    return shaped


def _stream(path: PathLike, windows: Iterable[list[_Reel]]) -> Iterator[list[np.ndarray]]:
    """The frames of each window's reels; windows are in the order of their first and of their last times."""
    with open_media(path) as container:
        stream = video_stream(container)
        shapers = _Shapers()
        coming = deque(windows)
        begun: deque[list[_Reel]] = deque()
        picture = previous = None
        for frame, start in timed_frames(container, stream, time_zero(container)):
            picture = _Picture(frame, shapers)
            while coming and _begins(coming[0]) <= start:
                begun.append(coming.popleft())
            for reel in (reel for reels in begun for reel in reels):
                reel.advance(previous, picture, start)
            while begun and all(reel.full for reel in begun[0]):
                yield [reel.result() for reel in begun.popleft()]
            if not (begun or coming):
                return
            previous = picture
        if picture is None:
            raise MediaError("corrupt", "no frame of the video can be decoded")
        for reels in (*begun, *coming):
            for reel in reels:
                reel.finish(picture)
            yield [reel.result() for reel in reels]


def _begins(reels: list[_Reel]) -> float:
    """The first time that any of the reels needs a frame for."""
    return min((reel.times[0] for reel in reels if reel.times), default=-math.inf)


class _Shapers:
    """Converters of one video's frames; one for each size, for they are slow to change it."""

    def __init__(self) -> None:
        self.full = VideoReformatter()
        self.stretched: defaultdict[int, VideoReformatter] = defaultdict(VideoReformatter)


class _Picture:
    """A decoded frame, converted at most once to each size."""

    def __init__(self, frame: Any, shapers: _Shapers) -> None:
        self._frame = frame
        self._shapers = shapers
        self._turns = quarter_turns(frame)
        self._stretched: dict[int, np.ndarray] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) as displayed."""
        height, width = self._frame.height, self._frame.width
        return (width, height) if self._turns % 2 else (height, width)

    @cached_property
    def rgb(self) -> np.ndarray:
        """(h, w, 3), as displayed."""
        full = self._shapers.full.reformat(self._frame, format="rgb24", interpolation=_PLAIN, threads=1)
        return np.ascontiguousarray(np.rot90(full.to_ndarray(), self._turns))

    def stretched(self, size: int) -> np.ndarray:
        """(size, size, 3), as displayed."""
        if size not in self._stretched:
            shaper = self._shapers.stretched[size]
            small = shaper.reformat(self._frame, size, size, "rgb24", interpolation=BICUBIC, threads=1).to_ndarray()
            self._stretched[size] = np.rot90(small, self._turns) if self._turns else small
        return self._stretched[size]


class _Reel:
    """The frames of one view, filled in while the video is decoded."""

    def __init__(self, view: View, times: np.ndarray) -> None:
        self._view = view
        self._order = np.argsort(times, kind="stable")
        self.times: list[float] = times[self._order].tolist()
        self._late = [time + _TIME_TOLERANCE_S for time in self.times]
        self._done = 0
        self._shape = (0, 0)
        self._frames: np.ndarray | None = None

    @property
    def full(self) -> bool:
        return self._done == len(self._order)

    def advance(self, previous: _Picture | None, picture: _Picture, start: float) -> None:
        """`picture`, presented at `start`, comes after `previous`: fill in the frames that are certain by now."""
        if self._frames is None:
            self._prepare(picture)
        if self._view.rule == "timestamp":
            self._fill(picture, bisect_right(self.times, start))
        elif previous is None:
            return
        elif self._view.rule == "rate_filter":
            self._fill(previous, bisect_right(self.times, start))
        else:
            self._fill(previous, bisect_left(self._late, start))

    def finish(self, last: _Picture) -> None:
        """No picture comes after `last`: all other frames show it."""
        if self._frames is None:
            self._prepare(last)
        self._fill(last, len(self._order))

    def result(self) -> np.ndarray:
        assert self._frames is not None
        return three_crops(self._frames, self._view.size) if self._view.fit == "three_crops" else self._frames

    def _prepare(self, first: _Picture) -> None:
        # The shape is that of the first picture, also where a later one has another.
        self._shape = _resized_shape(first.shape, self._view.size, self._view.fit)
        height, width = (self._view.size, self._view.size) if self._view.fit == "crop" else self._shape
        self._frames = np.empty((len(self._order), height, width, 3), np.uint8)

    def _fill(self, picture: _Picture, stop: int) -> None:
        if stop > self._done:
            assert self._frames is not None
            if self._view.fit == "stretch":
                shaped = picture.stretched(self._view.size)
            else:
                shaped = _fitted(picture.rgb, self._shape, self._view.fit)
            self._frames[self._order[self._done : stop]] = shaped
            self._done = stop
