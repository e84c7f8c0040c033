"""Videos and sounds into files: the same arrays give the same bytes."""

from __future__ import annotations

import heapq
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from specmaskfoley.media.container import MediaError, PathLike, open_media, time_zero, video_stream
from specmaskfoley.media.frames import BICUBIC
from specmaskfoley.media.probe import probe
from specmaskfoley.media.sound import BLOCK, read_track, resample, scratch_array
from specmaskfoley.storage.files import atomic_path

# The same frames must give the same file. x264's look-ahead (macroblock tree, B-frame and weight decisions, rate
# control) gave other files now and then, also with one thread: 2 of 6 clips with B-frames, 1 of 48 without. So it is
# off: `ultrafast` looks at no frame but the present one, and the quantiser is constant.
_X264 = {"preset": "ultrafast", "bf": "0", "qp": "20"}
_AAC = {"aac_coder": "fast"}  # 15 ms instead of 30 for 5 s, and no worse (signal-to-noise 28-34 dB, 25-35 dB)
_AAC_RATES = {7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}
_AAC_FALLBACK = 48000
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def write_video(
    path: PathLike,
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
            frame = convert.reformat(frame, width, height, "yuv420p", interpolation=BICUBIC, threads=1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None and waveform is not None:
            for packet in _sound_packets(sound, waveform, sample_rate, len(waveform)):
                container.mux(packet)


def write_audio(
    path: PathLike, waveform: np.ndarray, sample_rate: int, subtype: Literal["PCM_16", "PCM_24"] = "PCM_16"
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
        for first in range(0, len(waveform), BLOCK):
            block = _finite(waveform[first : first + BLOCK]).astype(np.float64)
            whole = np.clip(np.rint(block * scale), -scale, scale - 1)
            # soundfile takes the upper bits of an integer.
            file.write(whole.astype(np.int16) if scale == 2**15 else whole.astype(np.int32) << 8)


def mux(
    video_path: PathLike,
    waveform: np.ndarray,
    sample_rate: int,
    out_path: PathLike,
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
    with open_media(video_path, fflags="+genpts") as source:
        stream = video_stream(source)
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
            heard = _sound_packets(sound, waveform, sample_rate, length)
            # In the order of time, or the muxer keeps one of the two in memory.
            for packet in heapq.merge(heard, _copied_packets(source, stream, copy), key=_seconds):
                container.mux(packet)


def muxed_suffix(video_path: PathLike) -> str:
    """.mp4, or .mkv where the codec of the picture does not fit in it: what `mux` can copy a video into.

    Raises:
        MediaError: neither, or the video cannot be read.
    """
    with open_media(video_path) as source:
        stream = video_stream(source)
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


@contextmanager
def _encoding(path: PathLike, temporary: Path) -> Iterator[Any]:
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
        count = min(BLOCK, length - done)
        block = np.zeros((count, *waveform.shape[1:]), np.float32)
        part = waveform[done : done + count]
        block[: len(part)] = np.clip(_finite(part), -1, 1)
        planes = np.ascontiguousarray(block[None] if block.ndim == 1 else block.T)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=stream.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, done, Fraction(1, sample_rate)
        yield from stream.encode(frame)
        done += count
    yield from stream.encode(None)


def _copied_packets(source: Any, stream: Any, copy: Any) -> Iterator[Any]:
    """The packets of `stream`, counted from time zero, for the stream `copy` of another file."""
    zero = round(time_zero(source) / stream.time_base)
    for packet in source.demux(stream):
        if packet.size:
            packet.pts = None if packet.pts is None else packet.pts - zero
            packet.dts = None if packet.dts is None else packet.dts - zero
            packet.stream = copy
            yield packet


def _seconds(packet: Any) -> float | Fraction:
    """When a packet is decoded; those that do not say come at once."""
    return -math.inf if packet.dts is None else Fraction(packet.dts * packet.time_base)


def _mixed(video_path: PathLike, waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, int]:
    """The video's own sound with the waveform added, and its rate."""
    own = read_track(video_path)
    added = resample(waveform, sample_rate, own.sample_rate)
    added = added if added.ndim == 2 else added[:, None]
    if added.shape[1] not in (1, own.waveform.shape[1]):
        added = added.mean(axis=1, keepdims=True)
    mixed = scratch_array(max(len(own.waveform), len(added)), own.waveform.shape[1])
    peak = 0.0
    for first in range(0, len(mixed), BLOCK):
        block = slice(first, first + BLOCK)
        mixed[: len(own.waveform)][block] += own.waveform[block]
        mixed[: len(added)][block] += added[block]
        peak = max(peak, float(np.abs(mixed[block]).max()))
    if peak > 1.0:
        mixed /= peak
    return mixed, own.sample_rate


def _finite(waveform: np.ndarray) -> np.ndarray:
    samples = np.asarray(waveform, np.float32)
    if samples.ndim not in (1, 2) or not np.isfinite(samples).all():
        raise ValueError(
            f"a waveform must be finite numbers, (samples,) or (samples, channels); got shape {samples.shape}"
        )
    return samples
