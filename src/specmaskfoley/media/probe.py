"""What a media file holds, and whether it is whole."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from specmaskfoley.media.container import (
    MediaError,
    PathLike,
    Tally,
    Ticks,
    audio_stream,
    joinable,
    open_media,
    packets,
    quarter_turns,
    stream_start,
    time_zero,
    timed_frames,
    video_stream,
    video_streams,
)

_CUT_S = 0.5  # a file whose data end this much before the end in its index is cut off
_HELD_S = 0.5  # sounds often end a little after the picture; beside one that goes on longer the last picture stays


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """What a file holds; audio fields are None without a sound track."""

    duration_s: float  # where the video ends; in Matroska, which does not say how long the last picture lasts, the file
    fps: float  # average
    width: int  # as displayed, after rotation
    height: int
    rotation: int  # degrees clockwise from the stored to the displayed picture: 0, 90, 180, 270
    video_start_s: float
    audio_rate: int | None
    audio_channels: int | None
    audio_start_s: float | None
    audio_end_s: float | None
    audio_tracks: int  # of which one is used: see `audio_stream`


def probe(path: PathLike, until_s: float = 0.0) -> MediaInfo:
    """Read the headers, decode the frames up to `until_s` (at least one), and check that the data reach the end.

    Raises:
        MediaError: with state "missing", "corrupt" (also if most frames cannot be decoded) or "no_video".
    """
    with open_media(path) as container:
        stream, audio, zero = video_stream(container), audio_stream(container), time_zero(container)
        frame = _check_frames(container, stream, zero, until_s)
        turns = quarter_turns(frame)
        width, height = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
        ends = stream_ends(container, zero)
        if ends[stream.index] <= 0:
            raise MediaError("corrupt", "no picture of the video has a time")
        last, held = max(ends.values()), "matroska" in container.format.name
        rate = stream.average_rate or stream.guessed_rate
        return MediaInfo(
            duration_s=last if held and last > ends[stream.index] + _HELD_S else ends[stream.index],
            fps=float(rate) if rate else 0.0,
            width=width,
            height=height,
            rotation=-turns % 4 * 90,
            video_start_s=stream_start(stream, zero),
            audio_rate=audio.codec_context.sample_rate if audio else None,
            audio_channels=audio.codec_context.channels if audio else None,
            audio_start_s=stream_start(audio, zero) if audio else None,
            audio_end_s=ends[audio.index] if audio else None,
            audio_tracks=len(container.streams.audio),
        )


def _check_frames(container: Any, stream: Any, zero: Fraction, until_s: float) -> Any:
    """The first frame; all up to `until_s` are decoded."""
    tally = Tally(stream, zero, until_s)
    first = None
    for frame, start in timed_frames(container, stream, zero, tally):
        first = first or frame
        if start >= until_s:
            break
    if first is None:
        raise MediaError("corrupt", "no frame of the video can be decoded")
    tally.check("frames")
    return first


def stream_ends(container: Any, zero: Fraction) -> dict[int, float]:
    """Index of each video and audio stream -> where its last packet ends; from the tail of the file, for headers may
    promise more.

    Raises:
        MediaError: with state "corrupt": the file holds no data or is cut off.
    """
    streams = [*video_streams(container), *container.streams.audio]
    promised = None if joinable(container) else _promised_end(container, zero)
    # Subtitles count too, which may go on when picture and sound have ended.
    ends = {} if promised is None else _last_packets(container, list(container.streams), zero, promised - 1)
    if not ends.keys() >= {stream.index for stream in streams}:
        ends = _last_packets(container, list(container.streams), zero, None)
    if not ends:
        raise MediaError("corrupt", "the file holds no data")
    last = max(ends.values())
    indexed = any(name in container.format.name for name in ("mov", "matroska"))
    if indexed and promised is not None and last < promised - _CUT_S:
        raise MediaError("corrupt", f"cut off: the data end at {last:.2f} s of {promised:.2f} s")
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
    ticks = {stream.index: Ticks(stream, zero) for stream in streams}
    for packet in packets(container, streams):
        if packet.pts is not None and packet.size and not packet.is_corrupt:
            number = packet.stream_index
            end = ticks[number].seconds(packet.pts + (packet.duration or 0))
            ends[number] = max(end, ends.get(number, end))
    return ends
