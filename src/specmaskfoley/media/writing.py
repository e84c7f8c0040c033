"""Videos and sounds into files: the same arrays give the same bytes."""

from __future__ import annotations

import errno
import heapq
import io
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from specmaskfoley.media.container import (
    PathLike,
    open_media,
    packets,
    quarter_turns,
    time_zero,
    timed_frames,
    video_stream,
)
from specmaskfoley.media.frames import BICUBIC
from specmaskfoley.media.probe import MediaInfo, probe
from specmaskfoley.media.sound import BLOCK, Track, read_track, resample, scratch_array
from specmaskfoley.storage.files import atomic_path

# The same frames must give the same file. x264's look-ahead (macroblock tree, B-frame and weight decisions, rate
# control) gave other files now and then, also with one thread: 2 of 6 clips with B-frames, 1 of 48 without. So it is
# off: `ultrafast` looks at no frame but the present one, and the quantiser is constant.
_X264 = {"preset": "ultrafast", "bf": "0", "qp": "20"}
# Without loss: a fifth of the time of FFV1 (53 ms for a picture of 1920x1080, and 1.0 MB), with exact time stamps.
_X264_LOSSLESS = {**_X264, "qp": "0"}
_AAC = {"aac_coder": "fast"}  # 15 ms instead of 30 for 5 s, and no worse (signal-to-noise 28-34 dB, 25-35 dB)
_AAC_RATES = {7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}
_AAC_FALLBACK = 48000
_LOOKED_AT = 50  # packets, before it is said that a picture can be copied
COPIED = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""What a picture may be copied into, with FFmpeg's name."""

_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


Picture = Literal["copy", "encode"]


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


def write_frames(path: PathLike, frames: Iterable[np.ndarray], fps: Fraction) -> None:
    """Write frames, uint8 RGB (H, W, 3) of any one size, without loss as H.264; they are taken one at a time.

    The same frames give the same bytes.

    Raises:
        ValueError: there is none.
    """
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("there are no frames")
    rate = fps.limit_denominator(1001 * 1000)
    with atomic_path(path) as temporary, _encoding(path, temporary) as container:
        stream = container.add_stream("libx264rgb", rate=rate, options=_X264_LOSSLESS)
        stream.height, stream.width, stream.pix_fmt = *first.shape[:2], "rgb24"
        stream.codec_context.thread_count = 1
        for picture in chain([first], pictures):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))


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
    try:
        with (
            atomic_path(path) as temporary,
            soundfile.SoundFile(
                _name(temporary), "w", sample_rate, channels, subtype, format=suffix[1:].upper()
            ) as file,
        ):
            for first in range(0, len(waveform), BLOCK):
                block = _finite(waveform[first : first + BLOCK]).astype(np.float64)
                whole = np.clip(np.rint(block * scale), -scale, scale - 1)
                # soundfile takes the upper bits of an integer.
                file.write(whole.astype(np.int16) if scale == 2**15 else whole.astype(np.int32) << 8)
    except soundfile.SoundFileError as error:
        raise ValueError(f"{path}: cannot be written, perhaps for lack of space: {error}") from None


def _name(path: Path) -> str | bytes:
    """For soundfile, which refuses a str that is not UTF-8, and reads bytes in another way on Windows."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def mux(
    video_path: PathLike,
    waveform: np.ndarray,
    sample_rate: int,
    out_path: PathLike,
    keep: Literal["replace", "mix"] = "replace",
    *,
    picture: Picture = "copy",
    audio_track: int | None = None,
) -> None:
    """Write the video of `video_path` under a new sound track.

    The waveform, (samples,) or (samples, channels), starts at the source's time zero and is cut or padded with silence
    to where the video ends. It is read piece by piece.

    Args:
        keep: "mix" adds the sound to the video's own, at the higher of the two rates and with the channels of the
            video's own; if the sum would clip, all of it is turned down.
        picture: bit by bit, or encoded anew as H.264.
        audio_track: which of the video's own is mixed, from 1; None: the one that players play.

    Raises:
        ValueError: if the video's codec cannot go into a file with the suffix of `out_path`.
    """
    info = probe(video_path)
    if keep == "mix" and info.audio_rate is not None:
        waveform, sample_rate = _mixed(read_track(video_path, audio_track), waveform, sample_rate)
    if sample_rate not in _AAC_RATES:
        waveform = resample(waveform, sample_rate, _AAC_FALLBACK)
        sample_rate = _AAC_FALLBACK
    channels = 1 if waveform.ndim == 1 else waveform.shape[1]
    length = round(info.duration_s * sample_rate)
    with open_media(video_path, fflags="+genpts") as source:
        stream = video_stream(source)
        with atomic_path(out_path) as temporary, _encoding(out_path, temporary) as container:
            if picture == "copy":
                try:
                    copy, sound = _copy_stream(container, stream), _add_sound(container, sample_rate, channels)
                    container.start_encoding()
                except (av.error.FFmpegError, ValueError):
                    raise ValueError(
                        f"{out_path}: {stream.codec_context.name} video cannot be put into {Path(out_path).suffix}"
                    ) from None
                seen = _copied_packets(source, stream, copy)
            else:
                seen = _encoded_packets(source, stream, container, info)
                sound = _add_sound(container, sample_rate, channels)
            heard = _sound_packets(sound, waveform, sample_rate, length)
            # In the order of time, or the muxer keeps one of the two in memory.
            for packet in heapq.merge(heard, _lasting(seen, info.duration_s), key=_seconds):
                container.mux(packet)


def copied_suffix(video_path: PathLike) -> str | None:
    """Of the file that `mux` can copy a picture into, or None if there is none: .mp4, else .mov for what came in one
    (editing codecs), else .mkv, which many players and no editors open. Pictures with transparency go into .mkv, where
    it is kept.

    Raises:
        MediaError: the video cannot be read.
    """
    with open_media(video_path, fflags="+genpts") as source:
        stream = video_stream(source)
        begin = list(islice((packet for packet in packets(source, stream) if packet.size), _LOOKED_AT))
        # Packets without times, as H.264 has in MPEG program streams, and bare pictures have no place in any of them.
        bare = stream.codec_context.name == "rawvideo" or any(one.pts is None for one in begin)
        suffixes = [".mkv"] if _transparent(stream) else [".mp4", ".mkv"]
        if "mov" in source.format.name or source.format.name == "dv":
            suffixes.insert(1, ".mov")
        return next((suffix for suffix in suffixes if begin and not bare and _takes(suffix, stream, begin[0])), None)


def _takes(suffix: str, stream: Any, packet: Any) -> bool:
    """Whether a file can be begun with the stream, a sound and the packet."""
    try:
        with av.open(io.BytesIO(), "w", format=COPIED[suffix]) as container:
            packet.stream = _copy_stream(container, stream)
            _add_sound(container, _AAC_FALLBACK)
            container.start_encoding()
            container.mux(packet)
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def _copy_stream(container: Any, stream: Any) -> Any:
    """A stream of a file to be written, for the packets of `stream`."""
    copy = container.add_stream_from_template(stream, opaque=True)
    codec, tag = stream.codec_context, stream.codec_context.codec_tag
    if "mp4" in container.format.name or "mov" in container.format.name:
        if codec.name == "hevc" and _whole_header(codec.extradata or b""):
            copy.codec_context.codec_tag = "hvc1"  # QuickTime, Safari and iOS play no other
        elif tag.isprintable() and "mov" in stream.container.format.name:
            copy.codec_context.codec_tag = tag
    if _transparent(stream):
        copy.metadata["alpha_mode"] = "1"
    return copy


def _transparent(stream: Any) -> bool:
    """VP8 and VP9 keep transparency beside the picture, where only Matroska has a place for it."""
    return any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())


def _whole_header(extradata: bytes) -> bool:
    """Whether an HEVC header holds the parameter sets, which may also stand in the stream alone."""
    configuration = 23  # bytes of an hvcC box before its arrays
    return len(extradata) > (configuration if extradata.startswith(b"\x01") else 0)


@contextmanager
def _encoding(path: PathLike, temporary: Path) -> Iterator[Any]:
    try:
        # bitexact: no encoder versions in the file
        with av.open(str(temporary.absolute()), "w", options={"fflags": "+bitexact"}) as container:
            yield container
    except av.error.FFmpegError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no fault of the video
            raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from None
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
    last = -math.inf
    for packet in packets(source, stream):
        if packet.size:
            packet.pts = None if packet.pts is None else packet.pts - zero
            if packet.dts is not None:
                # Of two packets at one time, which some recorders write, muxers refuse the second.
                packet.dts = max(packet.dts - zero, last + 1)
                packet.pts = None if packet.pts is None else max(packet.pts, packet.dts)
                last = packet.dts
            packet.stream = copy
            yield packet


def _encoded_packets(source: Any, stream: Any, container: Any, info: MediaInfo) -> Iterator[Any]:
    """The pictures of `stream` as displayed, as H.264 in a new stream of `container`; sizes are rounded down to even
    ones."""
    clock = Fraction(1, 90_000)
    target = container.add_stream("libx264", rate=stream.average_rate or 25, options=_X264)
    target.width, target.height, target.pix_fmt = info.width // 2 * 2 or 2, info.height // 2 * 2 or 2, "yuv420p"
    target.codec_context.time_base = target.time_base = clock
    convert, zero = VideoReformatter(), time_zero(source)

    def encoded() -> Iterator[Any]:
        last = -1
        for frame, start in timed_frames(source, stream, zero):
            turns = quarter_turns(frame)
            picture = convert.reformat(frame, format="rgb24", interpolation=BICUBIC, threads=1) if turns else frame
            if turns:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(picture.to_ndarray(), turns)))
            made = convert.reformat(picture, target.width, target.height, "yuv420p", interpolation=BICUBIC, threads=1)
            made.pts, made.time_base = max(round(start / clock), last + 1), clock
            last = made.pts
            yield from target.encode(made)
        yield from target.encode(None)

    return encoded()


def _lasting(seen: Iterator[Any], end_s: float) -> Iterator[Any]:
    """The packets of a picture, of which the last is shown until `end_s`."""
    last = end = None
    for packet in seen:
        if last is not None:
            yield last
        last = packet
        if packet.pts is not None:
            end = max(packet.pts + (packet.duration or 0), end or 0)
    if last is not None:
        if end is not None and end * last.time_base < end_s:
            last.duration = (last.duration or 0) + round(Fraction(end_s) / last.time_base) - end
        yield last


def _seconds(packet: Any) -> float | Fraction:
    """When a packet is decoded; those that do not say come at once."""
    return -math.inf if packet.dts is None else Fraction(packet.dts * packet.time_base)


def _mixed(own: Track, waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, int]:
    """The video's own sound with the waveform added, and the rate of both: the higher one, so that none loses."""
    rate = max(own.sample_rate, sample_rate)
    kept, added = resample(own.waveform, own.sample_rate, rate), resample(waveform, sample_rate, rate)
    added = added if added.ndim == 2 else added[:, None]
    if added.shape[1] not in (1, kept.shape[1]):
        added = added.mean(axis=1, keepdims=True)
    mixed = scratch_array(max(len(kept), len(added)), kept.shape[1])
    peak = 0.0
    for first in range(0, len(mixed), BLOCK):
        block = slice(first, first + BLOCK)
        mixed[: len(kept)][block] += kept[block]
        mixed[: len(added)][block] += added[block]
        peak = max(peak, float(np.abs(mixed[block]).max()))
    if peak > 1.0:
        mixed /= peak
    return mixed, rate


def _finite(waveform: np.ndarray) -> np.ndarray:
    samples = np.asarray(waveform, np.float32)
    if samples.ndim not in (1, 2) or not np.isfinite(samples).all():
        raise ValueError(
            f"a waveform must be finite numbers, (samples,) or (samples, channels); got shape {samples.shape}"
        )
    return samples
