"""Video and audio files in and out, on one clock.

Time zero is the earliest start of a file's video and audio streams; every time in and out of this module
counts from there by presentation timestamps. A sound that starts 0.3 s late therefore stays 0.3 s late,
and the priming samples of AAC and MP3 shift nothing.

Frames come from PyAV alone. decord 0.6 was measured against it (2 cores, 125 H.264 frames of 96x96): 11 ms
without any resize against PyAV's 9 ms with it, equal within noise at 720p; it fails outright for widths
whose row of bytes is no multiple of 64 (48 x 3), and counts frames, not presentation times. Tests use it as
the independent opinion on which frame is which.

Three rules say which frame belongs to a time (`FrameRule`), four ways how it gets its size (`Fit`); two rules and
three ways are those of the official feature extractors, to the byte. h, w: height and width of a picture.
"""

from __future__ import annotations

import io
import math
import os
import stat
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from specmaskfoley.storage.files import atomic_path

_PathLike = str | os.PathLike[str]

FrameRule = Literal["on_screen", "rate_filter", "timestamp"]
"""Which frame belongs to a time.

on_screen: what a player shows, the last frame presented at or before the time.
rate_filter: the constant-rate filter of FFmpeg, with which MMAudio extracts training features and av-benchmark reads:
  the last frame presented before the middle of an output frame's slot.
timestamp: MMAudio's demo, the first frame presented at or after the time.
"""

Fit = Literal["stretch", "clip", "crop", "short_side"]
"""How a picture gets its size.

stretch: stretched to the size while decoding (swscale bicubic); the cheapest, and no extractor's own.
clip: stretched to the size, as MMAudio does for CLIP.
crop: short side to the size, then the central square, as MMAudio does for Synchformer.
short_side: short side to the size, nothing cut off, as av-benchmark does for ImageBind.
All but stretch: torchvision's antialiased bicubic on the full-size uint8 picture.
"""

# swscale: bicubic (antialiased when shrinking), with full chroma interpolation and accurate rounding.
# Without the latter two, colours came out 1.4 grey levels too dark on average; with them 0.0, for 10 us a frame.
_BICUBIC = 0x4 | 0x2000 | 0x40000
# The extractors take swscale's colours as they come, and so do all fits but "stretch": without the flags above every
# statistic of the golden frames is met to their last digit, with them the mean is up to 1.3 grey levels off.
_PLAIN = 0x4
_TIME_TOLERANCE_S = 0.0005  # timestamps in milliseconds (Matroska) may be half a millisecond late
_GAP_S = 0.02  # audio timestamps may jitter; only larger jumps are gaps
_LEAD_S = 2.0  # decoded before a start that is sought: decoders of sound need a few packets (Opus: 80 ms) to settle
_CUT_S = 0.5  # a file whose data end this much before its own index says is cut off
_WHOLE = 0.5  # the share of frames and sound that must be decodable for a file to count as whole
# What names other files (playlists posing as videos) or devices is no clip, and must not be opened on its word.
_FOREIGN_FORMATS = {"hls", "concat", "concatf", "dash", "imf", "sdp", "rtsp", "rtp", "sap", "image2", "tty", "lavfi"}
_FORMATS = ",".join(sorted(av.formats_available - _FOREIGN_FORMATS))
_SAMPLES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}

Resampling = Literal["kaiser", "hann"]
"""The window of the sinc that sound is resampled with.

kaiser: what MMAudio's training data went through (torchaudio's equivalent of "kaiser_best").
hann: torchaudio's default, with which av-benchmark reads.
"""

_SINCS: dict[str, tuple[int, float]] = {"kaiser": (64, 0.9475937167399596), "hann": (6, 0.99)}  # lowpass width, rolloff
_KAISER_BETA = 14.769656459379492

# The same frames must give the same file. x264's look-ahead (macroblock tree, B-frame and weight decisions, rate
# control) gave other files now and then, also with one thread: 2 of 6 clips with B-frames, 1 of 48 without. So it is
# off: `ultrafast` looks at no frame but the present one, and the quantiser is constant.
_X264 = {"preset": "ultrafast", "bf": "0", "qp": "20"}
_AAC_RATES = {7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}
_AAC_FALLBACK = 48000
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_BLOCK = 1 << 19  # samples that are handled at once of sounds of any length
_AAC = {"aac_coder": "fast"}  # 15 ms instead of 30 for 5 s, and no worse (signal-to-noise 28-34 dB, 25-35 dB)


class MediaError(ValueError):
    """A file that cannot be used; `state` is its ledger state, the message the reason."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:  # survives the way out of a process pool
        return type(self), (self.state, str(self))


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """What a file holds; audio fields are None without a sound track."""

    duration_s: float  # where the video ends
    fps: float  # average
    width: int  # as displayed, after rotation
    height: int
    rotation: int  # degrees clockwise from the stored to the displayed picture: 0, 90, 180, 270
    video_start_s: float
    audio_rate: int | None
    audio_channels: int | None
    audio_start_s: float | None
    audio_end_s: float | None


def probe(path: _PathLike, until_s: float = 0.0) -> MediaInfo:
    """Look into a file: headers, the frames up to `until_s` (at least one), and whether the data reach the end.

    Raises:
        MediaError: with state "missing", "corrupt" (also if most frames cannot be decoded) or "no_video".
    """
    with _opened(path) as container:
        stream = _video(container)
        audio = _first_audio(container)
        zero = _zero(container)
        frame = _check_frames(container, stream, zero, until_s)
        quarter_turns = _quarter_turns(frame)
        width, height = frame.width, frame.height
        if quarter_turns % 2:
            width, height = height, width
        ends = _ends(container, zero)
        video_start = _start(stream, zero)
        rate = stream.average_rate or stream.guessed_rate
        return MediaInfo(
            duration_s=ends[stream.index],
            fps=float(rate) if rate else 0.0,
            width=width,
            height=height,
            rotation=-quarter_turns % 4 * 90,
            video_start_s=video_start,
            audio_rate=audio.codec_context.sample_rate if audio else None,
            audio_channels=audio.codec_context.channels if audio else None,
            audio_start_s=_start(audio, zero) if audio else None,
            audio_end_s=ends[audio.index] if audio else None,
        )


@dataclass(frozen=True, kw_only=True)
class View:
    """Frames wanted of a video: at `times` (seconds, any order) by `rule`, shaped to `size` by `fit`.

    `size` is a square side or (h, w); a side alone for "crop" and "short_side". With rules other than "on_screen",
    `times` come from `frame_times`.
    """

    times: np.ndarray
    size: int | tuple[int, int]
    fit: Fit = "stretch"
    rule: FrameRule = "on_screen"

    def __post_init__(self) -> None:
        times = np.asarray(self.times, np.float64)
        if times.ndim != 1 or not np.isfinite(times).all():
            raise ValueError(f"times must be finite numbers in one dimension, got shape {times.shape}")
        _check_size(self.size, self.fit)
        if self.rule not in get_args(FrameRule):
            raise ValueError(f"rule={self.rule!r} must be one of {', '.join(get_args(FrameRule))}")


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
    path: _PathLike,
    *,
    times: np.ndarray,
    size: int | tuple[int, int],
    fit: Fit = "stretch",
    rule: FrameRule = "on_screen",
) -> np.ndarray:
    """The frames of one `View`: uint8 RGB (len(times), h, w, 3); see `read_views`."""
    return read_views(path, [View(times=times, size=size, fit=fit, rule=rule)])[0]


def read_views(path: _PathLike, views: Sequence[View]) -> list[np.ndarray]:
    """The frames of several views from one decoding: for each uint8 RGB (len(times), h, w, 3).

    Times before the first frame get the first, times after the last the last. It is the displayed picture
    (rotation applied) that is shaped. Memory holds a few full-size frames whatever the length: they are
    shaped one at a time, and not shaped again for the next equal time.

    Raises:
        MediaError: with state "missing", "corrupt" or "no_video".
    """
    return next(stream_views(path, [views]))


def stream_views(path: _PathLike, windows: Iterable[Sequence[View]]) -> Iterator[list[np.ndarray]]:
    """For each window its views' frames, as `read_views` gives them, all from one decoding.

    A window is yielded as soon as its last frame has gone by; memory holds the windows that are begun.

    Args:
        windows: in the order of their first and of their last times; they may overlap.

    Raises:
        MediaError: as `read_views`.
    """
    with _opened(path) as container:
        stream = _video(container)
        convert = VideoReformatter()
        coming = deque(windows)
        begun: deque[list[_Reel]] = deque()
        picture = previous = None
        for frame, start in _timed(container, stream, _zero(container)):
            picture = _Picture(frame, convert)
            while coming and _begins(coming[0]) <= start:
                begun.append([_Reel(view, picture.shape) for view in coming.popleft()])
            for reel in (reel for reels in begun for reel in reels):
                reel.advance(previous, picture, start)
            while begun and all(reel.full for reel in begun[0]):
                yield [reel.frames for reel in begun.popleft()]
            if not (begun or coming):
                return
            previous = picture
        if picture is None:
            raise MediaError("corrupt", "no frame of the video can be decoded")
        begun.extend([_Reel(view, picture.shape) for view in views] for views in coming)
        for reels in begun:
            for reel in reels:
                reel.finish(picture)
            yield [reel.frames for reel in reels]


def _begins(views: Sequence[View]) -> float:
    """The first time that any of the views shows."""
    return min((float(view.times.min()) for view in views if len(view.times)), default=-math.inf)


def fit_picture(picture: np.ndarray, *, size: int, fit: Fit) -> np.ndarray:
    """A full-size picture, uint8 RGB (h, w, 3), shaped by `fit` (not "stretch"): uint8 RGB (h', w', 3)."""
    _check_size(size, fit)
    if fit == "stretch":
        raise ValueError("fit='stretch' works on decoded frames only; use 'clip' for a picture")
    height, width = picture.shape[:2]
    return _fitted(picture, _resized_shape((height, width), size, fit), fit)


def read_audio(
    path: _PathLike, *, sample_rate: int, num_samples: int, start_s: float = 0.0, resampling: Resampling = "kaiser"
) -> np.ndarray:
    """The sound from `start_s` on: float32 (num_samples,), the mean of all channels.

    Sound is placed by its timestamps; silence before it starts, in its gaps and after it ends. A late start is sought,
    so that a part of a long file costs about as much as a short file.

    Raises:
        MediaError: with state "missing", "corrupt" or "no_audio".
    """
    if sample_rate < 1 or num_samples < 0:
        raise ValueError(f"sample_rate={sample_rate} and num_samples={num_samples} must be positive")
    with _opened(path) as container:
        stream = _first_audio(container)
        if stream is None:
            raise MediaError("no_audio", "the file has no sound track")
        rate = _sample_rate(stream)
        common = math.gcd(rate, sample_rate)
        up, down = sample_rate // common, rate // common
        # Read some more on both sides, so that the resampling filter does not fade at the cut. The lead is a
        # whole number of filter periods: `lead * down` samples in are exactly `lead * up` samples out.
        width, rolloff = _SINCS[resampling]
        reach = 0 if up == down else math.ceil(width / rolloff * max(1.0, down / up)) + 1
        lead = -(-reach // down)
        begin = round(start_s * rate) - lead * down
        wave = np.zeros(lead * down + math.ceil(num_samples * down / up) + reach, np.float32)
        found = _fill(wave, container, stream, begin)
    if not found:
        raise MediaError("corrupt", "no sound of the sound track can be decoded")
    if up != down:
        wave = _resample(wave, up, down, resampling)[lead * up :]
    return np.ascontiguousarray(wave[:num_samples])


@dataclass(frozen=True)
class SoundFacts:
    """What a sound track is; `duration_s` is where it ends, counted from 0 s of the file's clock."""

    duration_s: float
    sample_rate: int
    peak: float
    finite: bool


def examine_sound(path: _PathLike, until_s: float) -> SoundFacts:
    """Decode the sound from 0 s to `until_s` (mean of all channels), which is the longest duration that is told.

    The peak is that of finite samples, 0 without any.

    Raises:
        MediaError: with state "missing", "corrupt" (also if most of the sound cannot be decoded) or "no_audio".
    """
    with _opened(path) as container:
        stream = _first_audio(container)
        if stream is None:
            raise MediaError("no_audio", "the file has no sound track")
        rate = _sample_rate(stream)
        tally = _Tally(_zero(container), until_s)
        last = round(until_s * rate)
        end, peak, finite, found = 0, 0.0, True, False
        for position, samples in _placed(container, stream, 0, tally):
            found = True
            if position >= last:
                end = last
                break
            heard = samples[max(0, -position) : last - position]
            good = np.isfinite(heard)
            finite = finite and bool(good.all())
            peak = max(peak, float(np.abs(heard[good]).max(initial=0.0)))
            end = max(end, min(position + len(samples), last))
    if not found:
        raise MediaError("corrupt", "no sound of the sound track can be decoded")
    tally.check("packets of the sound")
    return SoundFacts(end / rate, rate, peak, finite)


@dataclass(frozen=True, kw_only=True)
class SoundWindow:
    """The `number`-th stretch of a sound track; its peak is that of finite samples."""

    number: int
    peak: float
    finite: bool


@dataclass(frozen=True, kw_only=True)
class TrackFacts:
    """What a whole sound track is; seconds count from 0 s of the file's clock.

    `windows` are those stretches of equal length, one after the other from 0 s on, that hold any sample.
    """

    start_s: float
    end_s: float
    sample_rate: int
    channels: int
    windows: tuple[SoundWindow, ...]


def examine_track(path: _PathLike, window_s: float) -> TrackFacts:
    """Decode the whole sound track (mean of all channels), in windows of `window_s`; a picture is not looked at.

    Raises:
        MediaError: with state "missing", "corrupt" (also if most of the sound cannot be decoded) or "no_audio".
    """
    with _opened(path) as container:
        stream = _first_audio(container)
        if stream is None:
            raise MediaError("no_audio", "the file has no sound track")
        rate = _sample_rate(stream)
        length = round(window_s * rate)
        zero = _zero(container)
        tally = _Tally(zero, math.inf)
        peaks: dict[int, float] = {}
        flawed: set[int] = set()
        end = 0
        for position, samples in _placed(container, stream, 0, tally):
            samples, position = samples[max(0, -position) :], max(0, position)
            while len(samples):
                number = position // length
                part = samples[: (number + 1) * length - position]
                good = np.isfinite(part)
                if not good.all():
                    flawed.add(number)
                peaks[number] = max(peaks.get(number, 0.0), float(np.abs(part[good]).max(initial=0.0)))
                samples, position = samples[len(part) :], position + len(part)
                end = max(end, position)
        if not peaks:
            raise MediaError("corrupt", "no sound of the sound track can be decoded")
        tally.check("packets of the sound")
        _ends(container, zero)  # refuses a file that is cut off
        return TrackFacts(
            start_s=_start(stream, zero),
            end_s=end / rate,
            sample_rate=rate,
            channels=stream.codec_context.channels,
            windows=tuple(
                SoundWindow(number=number, peak=peak, finite=number not in flawed)
                for number, peak in sorted(peaks.items())
            ),
        )


def write_video(
    path: _PathLike,
    frames: np.ndarray,
    fps: float | Fraction,
    waveform: np.ndarray | None = None,
    sample_rate: int = 0,
) -> None:
    """Write frames, uint8 RGB (n, H, W, 3), as H.264, and a waveform (samples,) as AAC.

    One encoder thread: the same input gives the same bytes on every machine with the same encoders.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(f"frames must be uint8 (n, H, W, 3), got {frames.dtype} {frames.shape}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"H.264 with half-size chroma needs an even height and width, got {height}x{width}")
    rate = Fraction(fps).limit_denominator(1001 * 1000)
    convert = VideoReformatter()
    with atomic_path(path) as temporary, _encoding(path, temporary) as container:
        stream = container.add_stream("libx264", rate=rate, options=_X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        sound = None if waveform is None else _add_sound(container, sample_rate)
        for picture in np.ascontiguousarray(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = convert.reformat(frame, width, height, "yuv420p", interpolation=_BICUBIC, threads=1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None and waveform is not None:
            for packet in _sound_packets(sound, waveform, sample_rate, len(waveform)):
                container.mux(packet)


def write_audio(
    path: _PathLike, waveform: np.ndarray, sample_rate: int, subtype: Literal["PCM_16", "PCM_24"] = "PCM_16"
) -> None:
    """Write a waveform (samples,) or (samples, channels) as WAV or FLAC, by suffix; what exceeds ±1 is clipped.

    It is read piece by piece, and so may be longer than memory holds.
    """
    import soundfile

    suffix = Path(path).suffix.lower()
    if suffix not in (".wav", ".flac"):
        raise ValueError(f"{path}: sound is written as .wav or .flac, not {suffix or 'without suffix'}")
    channels = 1 if waveform.ndim == 1 else waveform.shape[1]
    scale = 2.0 ** (int(subtype[-2:]) - 1)
    with (
        atomic_path(path) as temporary,
        soundfile.SoundFile(temporary, "w", sample_rate, channels, subtype, format=suffix[1:].upper()) as file,
    ):
        for block in _blocks(waveform):
            whole = np.clip(np.rint(block.astype(np.float64) * scale), -scale, scale - 1)
            # soundfile takes the upper bits of an integer.
            file.write(whole.astype(np.int16) if scale == 2**15 else whole.astype(np.int32) << 8)


def mux(
    video_path: _PathLike,
    waveform: np.ndarray,
    sample_rate: int,
    out_path: _PathLike,
    keep: Literal["replace", "mix"] = "replace",
) -> None:
    """Copy the video of `video_path` bit by bit under a new sound track.

    The waveform, (samples,) or (samples, channels), starts at the source's time zero and is cut or padded with silence
    to where the video ends. It is read piece by piece.

    Args:
        keep: "mix" adds the sound to the video's own, at the rate and with the channels of that; if the sum would clip,
            all of it is turned down.

    Raises:
        ValueError: if the video's codec cannot go into a file with the suffix of `out_path`.
    """
    info = probe(video_path)
    if keep == "mix" and info.audio_rate is not None:
        waveform, sample_rate = _mixed(video_path, waveform, sample_rate)
    if sample_rate not in _AAC_RATES:
        waveform = resample(waveform, sample_rate, _AAC_FALLBACK)
        sample_rate = _AAC_FALLBACK
    channels = 1 if waveform.ndim == 1 else waveform.shape[1]
    length = round(info.duration_s * sample_rate)
    with _opened(video_path, fflags="+genpts") as source:
        stream = _video(source)
        zero = round(_zero(source) / stream.time_base)
        with atomic_path(out_path) as temporary, _encoding(out_path, temporary) as container:
            try:
                copy = container.add_stream_from_template(stream, opaque=True)
                sound = _add_sound(container, sample_rate, channels)
                container.start_encoding()
            except (av.error.FFmpegError, ValueError):
                raise ValueError(
                    f"{out_path}: {stream.codec_context.name} video cannot be put into "
                    f"{Path(out_path).suffix}; choose a name ending in .mkv"
                ) from None
            packets = _sound_packets(sound, waveform, sample_rate, length)
            heard = next(packets, None)
            for packet in source.demux(stream):
                if not packet.size:
                    continue
                packet.pts = None if packet.pts is None else packet.pts - zero
                packet.dts = None if packet.dts is None else packet.dts - zero
                # In the order of time, or the muxer keeps one of the two in memory.
                while heard is not None and packet.dts is not None and _seconds(heard) <= packet.dts * stream.time_base:
                    container.mux(heard)
                    heard = next(packets, None)
                packet.stream = copy
                container.mux(packet)
            while heard is not None:
                container.mux(heard)
                heard = next(packets, None)


def muxed_suffix(video_path: _PathLike) -> str:
    """.mp4, or .mkv where the codec of the picture does not fit in it: what `mux` can copy a video into.

    Raises:
        MediaError: neither, or the video cannot be read.
    """
    with _opened(video_path) as source:
        stream = _video(source)
        for suffix, format in ((".mp4", "mp4"), (".mkv", "matroska")):
            try:
                with av.open(io.BytesIO(), "w", format=format) as container:
                    container.add_stream_from_template(stream, opaque=True)
            except ValueError:
                continue
            return suffix
        codec = stream.codec_context.name
    raise MediaError(
        "corrupt", f"{codec} pictures can be copied into neither .mp4 nor .mkv; convert the video to H.264"
    )


def resample(waveform: np.ndarray, rate: int, to: int) -> np.ndarray:
    """A waveform (samples,) or (samples, channels) at another rate, in a scratch file; see `resampled`."""
    if rate == to:
        return waveform
    columns = waveform if waveform.ndim == 2 else waveform[:, None]
    result = scratch_array(math.ceil(len(waveform) * to / rate), *waveform.shape[1:])
    target = result if result.ndim == 2 else result[:, None]
    for first in range(0, len(target), _BLOCK):
        count = min(_BLOCK, len(target) - first)
        for channel in range(columns.shape[1]):
            target[first : first + count, channel] = resampled(columns[:, channel], rate, to, first, count)
    return result


def resampled(waveform: np.ndarray, rate: int, to: int, first: int, count: int) -> np.ndarray:
    """Samples `first` to `first + count` of a waveform (samples,) at the rate `to`; silence where it has none.

    Equal to the same part of the whole resampled waveform; only what is needed of it is read.
    """
    common = math.gcd(rate, to)
    up, down = to // common, rate // common
    width, rolloff = _SINCS["kaiser"]
    reach = 0 if up == down else math.ceil(width / rolloff * max(1.0, down / up)) + 1
    lead = first // up - -(-reach // down)  # whole periods of the filter: exactly lead * up samples out
    begin, end = lead * down, math.ceil((first + count) * down / up) + reach
    part = np.zeros(end - begin, np.float32)
    low, high = max(begin, 0), min(end, len(waveform))
    if high > low:
        part[low - begin : high - begin] = waveform[low:high]
    if up != down:
        part = _resample(part, up, down, "kaiser")
    return np.ascontiguousarray(part[first - lead * up :][:count])


@dataclass(frozen=True)
class Track:
    """A whole sound track: `waveform` (samples, channels) float32 from time zero on, in a scratch file.

    `subtype` is what it is written as without loss: 16 bits where it has no more, else 24.
    """

    waveform: np.ndarray
    sample_rate: int
    subtype: Literal["PCM_16", "PCM_24"]


def read_track(path: _PathLike) -> Track:
    """Read the sound of a file, all channels at its own rate; silence before it starts and in its gaps.

    Raises:
        MediaError: with state "missing", "corrupt" or "no_audio".
    """
    with _opened(path) as container, tempfile.TemporaryFile() as file:
        stream = _first_audio(container)
        if stream is None:
            raise MediaError("no_audio", "the file has no sound track")
        rate, channels, end = _sample_rate(stream), 0, 0
        for position, frame in _placed_frames(container, stream, 0):
            planes = _planes(frame)[:, max(0, -position) :]
            if channels and len(planes) != channels:
                raise MediaError("corrupt", f"the sound changes from {channels} to {len(planes)} channels")
            channels = len(planes)
            file.seek(max(0, position) * channels * 4)
            file.write(np.ascontiguousarray(planes.T).tobytes())
            end = max(end, max(0, position) + planes.shape[1])
            small = frame.format.packed.name in ("u8", "s16")
        if not end:
            raise MediaError("corrupt", "no sound of the sound track can be decoded")
        file.flush()
        waveform = np.memmap(file, np.float32, "r+", shape=(end, channels))
    return Track(waveform, rate, "PCM_16" if small else "PCM_24")


def scratch_array(*shape: int) -> np.ndarray:
    """Zeros, float32, in a file without a name: what is as long as a video need not fit into memory."""
    shape = (max(1, shape[0]), *shape[1:])
    with tempfile.TemporaryFile() as file:
        file.truncate(4 * math.prod(shape))
        return np.memmap(file, np.float32, "r+", shape=shape)


# ---- reading ----


def check_file(path: _PathLike) -> os.stat_result:
    """Whether there is a file with something in it; opening a pipe or a device could hang.

    Raises:
        MediaError: with state "missing" or "corrupt".
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        gone = "a link to a file that does not exist" if os.path.islink(path) else "no such file"
        raise MediaError("missing", gone) from None
    except OSError as error:
        raise MediaError("missing", f"cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("missing", "not a regular file" + (" but a directory" if os.path.isdir(path) else ""))
    if not status.st_size:
        raise MediaError("corrupt", "the file is empty")
    return status


@contextmanager
def _opened(path: _PathLike, **options: str) -> Iterator[Any]:
    """Open a file for reading; whatever FFmpeg complains about inside becomes a MediaError."""
    path = Path(path)
    check_file(path)
    try:
        # An absolute name cannot be taken for an option or a protocol.
        options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS, **options}
        with av.open(str(path.absolute()), metadata_errors="replace", options=options) as container:
            yield container
    except MemoryError:
        raise  # says nothing about the file
    except (av.error.FFmpegError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError("corrupt", f"cannot be decoded: {reason}") from None


def _videos(container: Any) -> list[Any]:
    """Video streams but for cover pictures."""
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def _video(container: Any) -> Any:
    streams = _videos(container)
    if not streams:
        raise MediaError("no_video", "the file has no video stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise MediaError("corrupt", "no decoder for the video's codec")
    # Threads cost more than they give on small pictures (10 -> 14 ms for 125 frames of 96x96).
    pixels = stream.codec_context.width * stream.codec_context.height
    stream.thread_type = "AUTO" if pixels > 320 * 240 else "NONE"
    stream.codec_context.thread_count = min(4, os.cpu_count() or 1) if pixels > 320 * 240 else 1
    return stream


def _first_audio(container: Any) -> Any | None:
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def _zero(container: Any) -> Fraction:
    """The earliest start of all video and audio streams, in seconds of the file's own clock."""
    starts = [
        stream.start_time * stream.time_base
        for stream in [*_videos(container), *container.streams.audio]
        if stream.start_time is not None
    ]
    return min(starts, default=Fraction(0))


def _start(stream: Any, zero: Fraction) -> float:
    return float((stream.start_time or 0) * stream.time_base - zero) if stream.start_time is not None else 0.0


def _sample_rate(stream: Any) -> int:
    rate = int(stream.codec_context.sample_rate or 0)
    if rate < 1:
        raise MediaError("corrupt", "the sound track has no sample rate")
    return rate


class _Tally:
    """How much of a stream can be decoded from time zero to `until_s`, which may be infinite."""

    def __init__(self, zero: Fraction, until_s: float) -> None:
        self._zero = zero
        self._until_s = until_s
        self.packets = 0
        self.decoded = 0

    def sent(self, packet: Any) -> None:
        # Not those that an edit list passes over: they are there to be decoded, not to be shown.
        if packet.size and not packet.is_discard and self._inside(packet.pts, packet.time_base):
            self.packets += 1

    def received(self, frame: Any) -> None:
        if self._inside(frame.pts, frame.time_base):
            self.decoded += 1

    def check(self, what: str) -> None:
        if self.decoded < _WHOLE * self.packets:
            where = "" if math.isinf(self._until_s) else f" in the first {self._until_s:g} s"
            raise MediaError("corrupt", f"only {self.decoded} of {self.packets} {what}{where} can be decoded")

    def _inside(self, pts: int | None, time_base: Fraction) -> bool:
        return pts is None or 0 <= pts * time_base - self._zero < self._until_s


def _packets(container: Any, streams: Any) -> Iterator[Any]:
    """Packets of one or more streams, and the empty ones that flush decoders; up to where the file is readable."""
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets)
        except MemoryError:
            raise
        except (StopIteration, av.error.FFmpegError):
            return
        except IndexError:  # PyAV, behind the last packet, of streams that appeared midway (damaged MPEG-TS)
            return
        yield packet


def _decoded(container: Any, stream: Any, tally: _Tally | None = None) -> Iterator[Any]:
    """Frames of a stream in presentation order; damaged packets are passed over, as players do."""
    for packet in _packets(container, stream):
        if tally is not None:
            tally.sent(packet)
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.error.FFmpegError:
            continue
        for frame in frames:
            if tally is not None:
                tally.received(frame)
            yield frame


def _check_frames(container: Any, stream: Any, zero: Fraction, until_s: float) -> Any:
    """The first frame; all up to `until_s` are decoded."""
    tally = _Tally(zero, until_s)
    first = None
    for frame, start in _timed(container, stream, zero, tally):
        first = first or frame
        if start >= until_s:
            break
    if first is None:
        raise MediaError("corrupt", "no frame of the video can be decoded")
    tally.check("frames")
    return first


def _timed(container: Any, stream: Any, zero: Fraction, tally: _Tally | None = None) -> Iterator[tuple[Any, float]]:
    rate = float(stream.average_rate or 25)
    start = -1 / rate
    for frame in _decoded(container, stream, tally):
        # Through a fraction: official rules compare exact times, where a float's last digit would decide.
        start = float(frame.pts * stream.time_base - zero) if frame.pts is not None else start + 1 / rate
        yield frame, start


def _quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns from the stored to the displayed picture."""
    return int(round(frame.rotation / 90) % 4)


class _Picture:
    """A decoded frame, converted to full-size RGB at most once."""

    def __init__(self, frame: Any, convert: VideoReformatter) -> None:
        self.frame = frame
        self.convert = convert
        self.turns = _quarter_turns(frame)

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) as displayed."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.turns % 2 else (height, width)

    @cached_property
    def rgb(self) -> np.ndarray:
        """(h, w, 3), as displayed."""
        full = self.convert.reformat(self.frame, format="rgb24", interpolation=_PLAIN, threads=1)
        return np.ascontiguousarray(np.rot90(full.to_ndarray(), self.turns))

    def stretched(self, shrink: VideoReformatter, height: int, width: int) -> np.ndarray:
        stored = (height, width) if self.turns % 2 else (width, height)
        small = shrink.reformat(self.frame, *stored, "rgb24", interpolation=_BICUBIC, threads=1)
        return np.rot90(small.to_ndarray(), self.turns)


class _Reel:
    """The frames of a view, filled in as the video runs by."""

    def __init__(self, view: View, shape: tuple[int, int]) -> None:
        self.fit, self.rule = view.fit, view.rule
        times = np.asarray(view.times, np.float64)
        self.order = np.argsort(times, kind="stable")
        self.times = times[self.order]
        self.size = _resized_shape(shape, view.size, view.fit)
        height, width = [min(self.size)] * 2 if view.fit == "crop" else self.size
        self.frames = np.empty((len(times), height, width, 3), np.uint8)
        self.done = 0
        self.shrink = VideoReformatter()  # one each: it is slow to change its sizes

    @property
    def full(self) -> bool:
        return self.done == len(self.order)

    def advance(self, previous: _Picture | None, picture: _Picture, start: float) -> None:
        """`picture`, presented at `start`, comes after `previous`: fill in what is certain by now."""
        if self.rule == "timestamp":
            self._fill(picture, int(np.searchsorted(self.times, start, side="right")))
        elif previous is None:
            return
        elif self.rule == "rate_filter":
            self._fill(previous, int(np.searchsorted(self.times, start, side="right")))
        else:
            self._fill(previous, int(np.searchsorted(self.times + _TIME_TOLERANCE_S, start)))

    def finish(self, last: _Picture) -> None:
        self._fill(last, len(self.order))

    def _fill(self, picture: _Picture, stop: int) -> None:
        if stop > self.done:
            if self.fit == "stretch":
                shaped = picture.stretched(self.shrink, *self.size)
            else:
                shaped = _fitted(picture.rgb, self.size, self.fit)
            self.frames[self.order[self.done : stop]] = shaped
            self.done = stop


def _check_size(size: int | tuple[int, int], fit: Fit) -> None:
    if fit not in get_args(Fit):
        raise ValueError(f"fit={fit!r} must be one of {', '.join(get_args(Fit))}")
    if min((size,) if isinstance(size, int) else size) < 1:
        raise ValueError(f"size={size} must be positive")
    if fit in ("crop", "short_side") and not isinstance(size, int):
        raise ValueError(f"size={size} must be one number, the short side, for fit={fit!r}")


def _resized_shape(shape: tuple[int, int], size: int | tuple[int, int], fit: Fit) -> tuple[int, int]:
    """(h, w) to which a picture of `shape` (h, w) is resized, before any crop."""
    if not isinstance(size, int):
        return size
    if fit in ("stretch", "clip"):
        return size, size
    height, width = shape
    if height < width:
        return size, int(size * width / height)
    return int(size * height / width), size


def _fitted(picture: np.ndarray, size: tuple[int, int], fit: Fit) -> np.ndarray:
    """(h, w, 3) resized to `size` (h, w), and for "crop" cut to the central square of the shorter side."""
    import torch
    from torchvision.transforms.v2 import functional

    # The channels stay last in memory: 1.2 ms instead of 4 to 6 for 720p, and the same bytes.
    channels_first = torch.from_numpy(picture).permute(2, 0, 1)
    resized = functional.resize(channels_first, list(size), functional.InterpolationMode.BICUBIC, antialias=True)
    if fit == "crop":
        resized = functional.center_crop(resized, [min(size), min(size)])
    shaped: np.ndarray = resized.permute(1, 2, 0).numpy()
    return shaped


def _ends(container: Any, zero: Fraction) -> dict[int, float]:
    """Stream index -> where its last packet ends; from the tail of the file, for headers may promise more."""
    streams = [*_videos(container), *container.streams.audio]
    end = _promised_end(container, zero)
    ends = {} if end is None else _last_packets(container, streams, zero, end - 1)
    if len(ends) < len(streams):
        ends = _last_packets(container, streams, zero, None)
    if not ends:
        raise MediaError("corrupt", "the file holds no data")
    last = max(ends.values())
    indexed = any(name in container.format.name for name in ("mov", "matroska"))
    if indexed and end is not None and last < end - _CUT_S:
        raise MediaError("corrupt", f"cut off: the data end at {last:.2f} s of {end:.2f} s")
    return {stream.index: ends.get(stream.index, 0.0) for stream in streams}


def _promised_end(container: Any, zero: Fraction) -> float | None:
    if container.duration is None:
        return None
    return float(Fraction(container.duration + (container.start_time or 0), 1_000_000) - zero)


def _last_packets(container: Any, streams: list[Any], zero: Fraction, seek_s: float | None) -> dict[int, float]:
    ends: dict[int, float] = {}
    try:
        container.seek(0 if seek_s is None else max(0, int((seek_s + zero) * 1_000_000)))
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return ends
    for packet in _packets(container, streams):
        if packet.pts is not None and packet.size and not packet.is_corrupt:
            duration = packet.duration or 0
            end = float((packet.pts + duration) * packet.time_base - zero)
            ends[packet.stream.index] = max(end, ends.get(packet.stream.index, end))
    return ends


def _fill(wave: np.ndarray, container: Any, stream: Any, begin: int) -> bool:
    """Add the stream's samples to `wave`, whose first sample is number `begin` of the file's clock."""
    found = False
    lead = begin / _sample_rate(stream) - _LEAD_S
    if lead > 0:
        container.seek(int((Fraction(lead) + _zero(container)) / stream.time_base), stream=stream)
    for position, samples in _placed(container, stream, begin):
        found = True
        if position >= len(wave):
            break
        first, last = max(position, 0), min(position + len(samples), len(wave))
        if last > first:
            wave[first:last] = samples[first - position : last - position]
    return found


def _placed(container: Any, stream: Any, begin: int, tally: _Tally | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Samples (n,) of the stream, by frames, and where each starts, counted from `begin` of the file's clock."""
    for position, frame in _placed_frames(container, stream, begin, tally):
        planes = _planes(frame)
        yield position, planes.mean(axis=0, dtype=np.float32) if len(planes) > 1 else planes[0]


def _placed_frames(
    container: Any, stream: Any, begin: int, tally: _Tally | None = None
) -> Iterator[tuple[int, av.AudioFrame]]:
    rate = stream.codec_context.sample_rate
    zero = _zero(container)
    position: int | None = None
    for frame in _decoded(container, stream, tally):
        if frame.sample_rate != rate:
            raise MediaError("corrupt", f"the sample rate changes from {rate} to {frame.sample_rate}")
        if frame.pts is not None:
            stamped = round((frame.pts * frame.time_base - zero) * rate) - begin
            if position is None or abs(stamped - position) > _GAP_S * rate:
                position = stamped
        position = position or 0
        yield position, frame
        position += frame.samples


def _planes(frame: Any) -> np.ndarray:
    """(channels, n) float32."""
    # Not to_ndarray: with 8 planes or more PyAV takes what lies behind them in memory for planes too.
    channels, dtype = frame.layout.nb_channels, _SAMPLES[frame.format.packed.name]
    if frame.format.is_planar:
        data = np.stack([np.frombuffer(plane, dtype, frame.samples) for plane in frame.planes[:channels]])
    else:
        data = np.frombuffer(frame.planes[0], dtype, frame.samples * channels).reshape(-1, channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif data.dtype.kind == "i":
        data = data.astype(np.float32) / float(-int(np.iinfo(data.dtype).min))
    planes: np.ndarray = data.astype(np.float32)
    return planes


def _resample(wave: np.ndarray, up: int, down: int, resampling: Resampling) -> np.ndarray:
    """torchaudio's sinc_interp_kaiser and sinc_interp_hann (equal to 2e-5), without importing torch in every worker."""
    from scipy.signal import resample_poly

    # t: time in zero crossings of the sinc, on the grid of both rates together
    width, rolloff = _SINCS[resampling]
    cutoff = min(up, down) * rolloff
    half = math.floor(width * up * down / cutoff)
    t = np.arange(-half, half + 1) * (cutoff / (up * down))
    if resampling == "kaiser":
        window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0, 1 - (t / width) ** 2))) / np.i0(_KAISER_BETA)
    else:
        window = np.cos(t * (math.pi / (2 * width))) ** 2
    taps = np.sinc(t) * window * (cutoff / (up * down))
    resampled = resample_poly(wave, up, down, window=taps.astype(np.float32))
    return np.asarray(resampled, np.float32)


# ---- writing ----


@contextmanager
def _encoding(path: _PathLike, temporary: Path) -> Iterator[Any]:
    try:
        # bitexact: no encoder versions in the file
        with av.open(str(temporary.absolute()), "w", options={"fflags": "+bitexact"}) as container:
            yield container
    except av.error.FFmpegError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from None


def _add_sound(container: Any, sample_rate: int, channels: int = 1) -> Any:
    if channels not in _LAYOUTS:
        raise ValueError(f"sound of {channels} channels cannot be written into a video; expected at most 8")
    return container.add_stream("aac", rate=sample_rate, layout=_LAYOUTS[channels], options=_AAC)


def _sound_packets(stream: Any, waveform: np.ndarray, sample_rate: int, length: int) -> Iterator[Any]:
    """The first `length` samples, padded with silence, as encoded packets."""
    done = 0
    while done < length:
        count = min(_BLOCK, length - done)
        block = np.zeros((count, *waveform.shape[1:]), np.float32)
        part = waveform[done : done + count]
        block[: len(part)] = np.clip(_finite(part), -1, 1)
        planes = np.ascontiguousarray(block[None] if block.ndim == 1 else block.T)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=stream.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, done, Fraction(1, sample_rate)
        yield from stream.encode(frame)
        done += count
    yield from stream.encode(None)


def _seconds(packet: Any) -> Fraction:
    return Fraction((packet.dts or 0) * packet.time_base)


def _mixed(video_path: _PathLike, waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, int]:
    """The video's own sound with the waveform added, and its rate."""
    own = read_track(video_path)
    added = resample(waveform, sample_rate, own.sample_rate)
    added = added if added.ndim == 2 else added[:, None]
    if added.shape[1] not in (1, own.waveform.shape[1]):
        added = added.mean(axis=1, keepdims=True)
    mixed = scratch_array(max(len(own.waveform), len(added)), own.waveform.shape[1])
    peak = 0.0
    for first in range(0, len(mixed), _BLOCK):
        block = slice(first, first + _BLOCK)
        mixed[: len(own.waveform)][block] += own.waveform[block]
        mixed[: len(added)][block] += added[block]
        peak = max(peak, float(np.abs(mixed[block]).max()))
    if peak > 1.0:
        mixed /= peak
    return mixed, own.sample_rate


def _blocks(waveform: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(waveform), _BLOCK):
        yield _finite(waveform[first : first + _BLOCK])


def _finite(waveform: np.ndarray) -> np.ndarray:
    samples = np.asarray(waveform, np.float32)
    if samples.ndim not in (1, 2) or not np.isfinite(samples).all():
        raise ValueError(
            f"a waveform must be finite numbers, (samples,) or (samples, channels); got shape {samples.shape}"
        )
    return samples
