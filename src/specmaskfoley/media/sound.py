"""Sound of media files: placed by its timestamps, at any rate, or as levels.

Samples are float32 at a full scale of 1.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import av
import numpy as np

from specmaskfoley.media.container import (
    MediaError,
    PathLike,
    Tally,
    Ticks,
    audio_stream,
    decoded,
    joinable,
    open_media,
    stream_start,
    time_zero,
)
from specmaskfoley.media.probe import stream_ends
from specmaskfoley.storage.files import show_size

_GAP_S = 0.02  # audio timestamps may jitter; only larger jumps are gaps
_LEAD_S = 2.0  # decoded before a start that is sought: decoders of sound need a few packets (Opus: 80 ms) to settle
_SAMPLES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}

Resampling = Literal["kaiser", "hann"]
"""The window of the sinc that sound is resampled with.

kaiser: what MMAudio's training data went through (torchaudio's equivalent of "kaiser_best").
hann: torchaudio's default, with which av-benchmark reads.
"""

_SINCS: dict[str, tuple[int, float]] = {"kaiser": (64, 0.9475937167399596), "hann": (6, 0.99)}  # lowpass width, rolloff
_KAISER_BETA = 14.769656459379492

BLOCK = 1 << 19
"""Samples that are handled at once of sounds of any length."""


# ---- for the networks ----


@dataclass(frozen=True)
class Sound:
    """How an encoder or a judge hears a file: mono, cut or padded with silence to `num_samples`, then, with a `peak`,
    as loud as that makes its loudest sample."""

    sample_rate: int
    num_samples: int
    resampling: Resampling = "kaiser"
    peak: float | None = None

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.sample_rate


def read_audio(
    path: PathLike,
    *,
    sample_rate: int,
    num_samples: int,
    start_s: float = 0.0,
    resampling: Resampling = "kaiser",
    peak: float | None = None,
) -> np.ndarray:
    """The sound from `start_s` on: float32 (num_samples,), the mean of all channels.

    Sound is placed by its timestamps; silence before it starts, in its gaps and after it ends. A late start is sought,
    so that a part of a long file costs about as much as a short file.

    Args:
        peak: of the loudest of these samples, to which all are scaled; digital silence stays. None: as recorded.

    Raises:
        MediaError: with state "missing", "corrupt" or "no_audio".
    """
    if sample_rate < 1 or num_samples < 0:
        raise ValueError(f"sample_rate={sample_rate} and num_samples={num_samples} must be positive")
    with open_media(path) as container:
        stream, rate = _sound_stream(container)
        first = round(start_s * rate)

        def read(begin: int, end: int) -> np.ndarray:
            return _read_samples(container, stream, first + begin, end - begin)

        wave = _resampled(read, rate, sample_rate, 0, num_samples, resampling)
    if peak is not None and (loudest := float(np.abs(wave).max(initial=0.0))) > 0:
        wave *= peak / loudest
    return wave


# ---- levels ----


@dataclass(frozen=True)
class SoundFacts:
    """What a sound track is; `duration_s` is where it ends, from time zero; `peak` is that of finite samples."""

    duration_s: float
    sample_rate: int
    peak: float
    finite: bool


def examine_sound(path: PathLike, until_s: float) -> SoundFacts:
    """What `examine_track` finds from 0 s to `until_s`; a longer sound counts as `until_s` long."""
    track = examine_track(path, until_s, until_s)
    peak = max((window.peak for window in track.windows), default=0.0)
    return SoundFacts(track.end_s, track.sample_rate, peak, all(window.finite for window in track.windows))


@dataclass(frozen=True, kw_only=True)
class SoundWindow:
    """The `number`-th stretch of a sound track; its peak is that of finite samples."""

    number: int
    peak: float
    finite: bool


@dataclass(frozen=True, kw_only=True)
class TrackFacts:
    """What a whole sound track is, in seconds from time zero.

    `windows` are those stretches of equal length, one after the other from 0 s on, that hold any sample.
    """

    start_s: float
    end_s: float
    sample_rate: int
    channels: int
    windows: tuple[SoundWindow, ...]


def examine_track(path: PathLike, window_s: float, until_s: float = math.inf) -> TrackFacts:
    """Decode the sound track (mean of all channels) up to `until_s`, in windows of `window_s`; ignores a picture.

    Raises:
        MediaError: with state "missing", "corrupt" (also if most of the sound cannot be decoded, or the whole file is
            examined and is cut off) or "no_audio".
    """
    with open_media(path) as container:
        stream, rate = _sound_stream(container)
        length, last = max(1, round(window_s * rate)), round(min(until_s * rate, sys.maxsize))
        zero = time_zero(container)
        tally = Tally(stream, zero, until_s)
        peaks: dict[int, float] = {}
        flawed: set[int] = set()
        end, found = 0, False
        for position, samples in _mono_from_zero(container, stream, tally):
            found = True
            if position >= last:
                end = last
                break
            samples = samples[: last - position]
            while len(samples):
                number = position // length
                part = samples[: (number + 1) * length - position]
                good = np.isfinite(part)
                if not good.all():
                    flawed.add(number)
                peaks[number] = max(peaks.get(number, 0.0), float(np.abs(part[good]).max(initial=0.0)))
                samples, position = samples[len(part) :], position + len(part)
                end = max(end, position)
        _check_any(found)
        tally.check("packets of the sound")
        if math.isinf(until_s):
            stream_ends(container, zero)  # refuses a file that is cut off
        return TrackFacts(
            start_s=stream_start(stream, zero),
            end_s=end / rate,
            sample_rate=rate,
            channels=stream.codec_context.channels,
            windows=tuple(
                SoundWindow(number=number, peak=peak, finite=number not in flawed)
                for number, peak in sorted(peaks.items())
            ),
        )


# ---- sounds of any length ----


@dataclass(frozen=True)
class Track:
    """A whole sound track: `waveform` (samples, channels) float32 from time zero on, in a scratch file.

    `subtype` is what it is written as without loss: 16 bits where it has no more, else 24.
    """

    waveform: np.ndarray
    sample_rate: int
    subtype: Literal["PCM_16", "PCM_24"]


def read_track(path: PathLike, number: int | None = None, *, layout: str | None = None) -> Track:
    """Read the sound of a file, all channels at its own rate; silence before it starts and in its gaps.

    Where the channels change midway, all is mixed to the larger layout.

    Args:
        number: of the track, from 1; None: see `audio_stream`.
        layout: FFmpeg's name of what to mix to; None: that of the first sample.

    Raises:
        MediaError: with state "missing", "corrupt" or "no_audio".
    """
    with open_media(path) as container, tempfile.TemporaryFile() as file:
        stream, rate = _sound_stream(container, number)
        channels = av.AudioLayout(layout).nb_channels if layout else 0
        end = 0
        mixer: av.AudioResampler | None = None
        for position, frame in _placed_frames(container, stream):
            if not channels:
                channels, layout = frame.layout.nb_channels, frame.layout.name
            if frame.layout.nb_channels > channels:
                return read_track(path, number, layout=frame.layout.name)
            if frame.layout.nb_channels < channels:
                if mixer is None:
                    mixer = av.AudioResampler(frame.format.planar or "fltp", layout, rate)
                (frame,) = mixer.resample(frame)
            planes = _planes(frame)[:, max(0, -position) :]
            before, end = end, max(end, max(0, position) + planes.shape[1])
            _reserve(file, before * channels * 4, (end - before) * channels * 4)
            file.seek(max(0, position) * channels * 4)
            file.write(np.ascontiguousarray(planes.T).tobytes())
            small = frame.format.packed.name in ("u8", "s16")
        _check_any(end > 0)
        file.flush()
        waveform = np.memmap(file, np.float32, "r+", shape=(end, channels))
    return Track(waveform, rate, "PCM_16" if small else "PCM_24")


def scratch_array(*shape: int) -> np.ndarray:
    """Zeros, float32, in a file without a name: what is as long as a video need not fit into memory.

    Raises:
        OSError: there is no room for it.
    """
    shape = (max(1, shape[0]), *shape[1:])
    with tempfile.TemporaryFile() as file:
        _reserve(file, 0, 4 * math.prod(shape))
        return np.memmap(file, np.float32, "r+", shape=shape)


def _reserve(file: Any, start: int, size: int) -> None:
    """Extend a temporary file by zeros that have their place on the disk: where the disk is full, touching a map of a
    file with holes would end the process (SIGBUS)."""
    try:
        if hasattr(os, "posix_fallocate"):
            if size:
                os.posix_fallocate(file.fileno(), start, size)
            return
        file.seek(start)
        for first in range(0, size, BLOCK):
            file.write(bytes(min(BLOCK, size - first)))
        file.flush()
    except OSError as error:
        raise OSError(
            error.errno,
            f"no room for a temporary file of {show_size(start + size)} ({error.strerror}); free some, or name another "
            "folder in TMPDIR",
            tempfile.gettempdir(),
        ) from None


def resample(waveform: np.ndarray, rate: int, to: int) -> np.ndarray:
    """A waveform (samples,) or (samples, channels) at another rate, in a scratch file; see `resample_part`."""
    if rate == to:
        return waveform
    columns = waveform if waveform.ndim == 2 else waveform[:, None]
    result = scratch_array(math.ceil(len(waveform) * to / rate), *waveform.shape[1:])
    target = result if result.ndim == 2 else result[:, None]
    for first in range(0, len(target), BLOCK):
        count = min(BLOCK, len(target) - first)
        for channel in range(columns.shape[1]):
            target[first : first + count, channel] = resample_part(columns[:, channel], rate, to, first, count)
    return result


def resample_part(waveform: np.ndarray, rate: int, to: int, first: int, count: int) -> np.ndarray:
    """Samples `first` to `first + count` of a waveform (samples,) at the rate `to`; silence where it has none.

    Equal to the same part of the whole resampled waveform; only what is needed of it is read.
    """

    def read(begin: int, end: int) -> np.ndarray:
        part = np.zeros(end - begin, np.float32)
        low, high = max(begin, 0), min(end, len(waveform))
        if high > low:
            part[low - begin : high - begin] = waveform[low:high]
        return part

    return _resampled(read, rate, to, first, count, "kaiser")


def _resampled(
    read: Callable[[int, int], np.ndarray], rate: int, to: int, first: int, count: int, resampling: Resampling
) -> np.ndarray:
    """Samples `first` to `first + count` at the rate `to`; `read` gives samples from one number up to another."""
    common = math.gcd(rate, to)
    up, down = to // common, rate // common
    # Some more is read on both sides, so that the filter does not fade at the cut. The read starts a whole number of
    # filter periods from sample 0: `periods * down` samples in are exactly `periods * up` samples out.
    width, rolloff = _SINCS[resampling]
    reach = 0 if up == down else math.ceil(width / rolloff * max(1.0, down / up)) + 1
    periods = first // up - -(-reach // down)
    wave = read(periods * down, math.ceil((first + count) * down / up) + reach)
    if up != down:
        wave = _filtered(wave, up, down, resampling)
    return np.ascontiguousarray(wave[first - periods * up :][:count])


def _filtered(wave: np.ndarray, up: int, down: int, resampling: Resampling) -> np.ndarray:
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


# ---- decoding ----


def _sound_stream(container: Any, number: int | None = None) -> tuple[Any, int]:
    """The sound track and its rate; see `audio_stream`."""
    stream = audio_stream(container, number)
    if stream is None:
        raise MediaError("no_audio", "the file has no sound track")
    rate = int(stream.codec_context.sample_rate or 0)
    if rate < 1:
        raise MediaError("corrupt", "the sound track has no sample rate")
    return stream, rate


def _check_any(found: bool) -> None:
    if not found:
        raise MediaError("corrupt", "no sound of the sound track can be decoded")


def _read_samples(container: Any, stream: Any, begin: int, count: int) -> np.ndarray:
    """Samples (count,) of the stream from the `begin`-th after time zero on."""
    wave = np.zeros(count, np.float32)
    lead = begin / stream.codec_context.sample_rate - _LEAD_S
    if lead > 0 and not joinable(container):
        container.seek(int((Fraction(lead) + time_zero(container)) / stream.time_base), stream=stream)
    found = False
    for number, frame in _placed_frames(container, stream):
        found = True
        position, samples = number - begin, _mono(frame)
        if position >= len(wave):
            break
        first, last = max(position, 0), min(position + len(samples), len(wave))
        if last > first:
            wave[first:last] = samples[first - position : last - position]
    _check_any(found)
    return wave


def _mono_from_zero(container: Any, stream: Any, tally: Tally) -> Iterator[tuple[int, np.ndarray]]:
    """Samples (n,) of the stream from time zero on, by frames, and the number of the first."""
    for position, frame in _placed_frames(container, stream, tally):
        yield max(0, position), _mono(frame)[max(0, -position) :]


def _placed_frames(container: Any, stream: Any, tally: Tally | None = None) -> Iterator[tuple[int, av.AudioFrame]]:
    """Frames of the stream, and which sample after time zero each starts with."""
    rate = stream.codec_context.sample_rate
    ticks = Ticks(stream, time_zero(container))
    position: int | None = None
    for frame in decoded(container, stream, tally):
        if frame.sample_rate != rate:
            raise MediaError("corrupt", f"the sample rate changes from {rate} to {frame.sample_rate}")
        if frame.pts is not None:
            stamped = ticks.samples(frame.pts, rate)
            if position is None or abs(stamped - position) > _GAP_S * rate:
                position = stamped
        position = position or 0
        yield position, frame
        position += frame.samples


def _mono(frame: Any) -> np.ndarray:
    """(n,): the mean of the channels."""
    planes = _planes(frame)
    mono: np.ndarray = planes.mean(axis=0, dtype=np.float32) if len(planes) > 1 else planes[0]
    return mono


def _planes(frame: Any) -> np.ndarray:
    """(channels, n) float32."""
    # Not to_ndarray: with 8 planes or more PyAV takes what lies behind them in memory for planes too.
    channels, dtype = frame.layout.nb_channels, _SAMPLES[frame.format.packed.name]
    if channels > 1 and frame.format.is_planar:
        data = np.stack([np.frombuffer(plane, dtype, frame.samples) for plane in frame.planes[:channels]])
    else:
        data = np.frombuffer(frame.planes[0], dtype, frame.samples * channels).reshape(-1, channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif data.dtype.kind == "i":
        data = data.astype(np.float32) / float(-int(np.iinfo(data.dtype).min))
    planes: np.ndarray = data.astype(np.float32)
    return planes
