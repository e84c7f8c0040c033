"""Media files opened for reading: their streams, their clock, and what can be decoded of them.

Time zero is the earliest start of a file's video and audio streams; all times in `media` count from there by
presentation timestamps. A sound that starts 0.3 s late therefore stays 0.3 s late, and the priming samples of AAC and
MP3 shift nothing.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

PathLike = str | os.PathLike[str]

_WHOLE = 0.5  # the share of frames and sound that must be decodable for a file to count as whole
# Files that name other files (playlists posing as videos) and devices are no clips and must not be opened.
_FOREIGN_FORMATS = {"hls", "concat", "concatf", "dash", "imf", "sdp", "rtsp", "rtp", "sap", "image2", "tty", "lavfi"}
_FORMATS = ",".join(sorted(av.formats_available - _FOREIGN_FORMATS))


class MediaError(ValueError):
    """A file that cannot be used; `state` is its ledger state, the message the reason."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:  # exceptions with two arguments cannot be pickled without it
        return type(self), (self.state, str(self))


def check_file(path: PathLike) -> os.stat_result:
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
def open_media(path: PathLike, **options: str) -> Iterator[Any]:
    """Open a file for reading; every error of FFmpeg inside the block becomes a MediaError."""
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


def video_streams(container: Any) -> list[Any]:
    """All video streams except cover pictures."""
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def video_stream(container: Any) -> Any:
    """The first video stream, ready for decoding.

    Raises:
        MediaError: with state "no_video" or "corrupt".
    """
    streams = video_streams(container)
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


def first_audio(container: Any) -> Any | None:
    """The first audio stream that can be decoded."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def time_zero(container: Any) -> Fraction:
    """The earliest start of all video and audio streams, in seconds of the file's own clock."""
    starts = [
        stream.start_time * stream.time_base
        for stream in [*video_streams(container), *container.streams.audio]
        if stream.start_time is not None
    ]
    return min(starts, default=Fraction(0))


def stream_start(stream: Any, zero: Fraction) -> float:
    """Where a stream starts, in seconds from time zero."""
    return float(stream.start_time * stream.time_base - zero) if stream.start_time is not None else 0.0


class Tally:
    """Counts how much of a stream can be decoded from time zero to `until_s`, which may be infinite."""

    def __init__(self, zero: Fraction, until_s: float) -> None:
        self._zero = zero
        self._until_s = until_s
        self._packets = 0
        self._decoded = 0

    def count_packet(self, packet: Any) -> None:
        # An edit list may discard packets that are needed for decoding only; they give no frame.
        if packet.size and not packet.is_discard and self._inside(packet.pts, packet.time_base):
            self._packets += 1

    def count_frame(self, frame: Any) -> None:
        if self._inside(frame.pts, frame.time_base):
            self._decoded += 1

    def check(self, what: str) -> None:
        """
        Raises:
            MediaError: with state "corrupt": most packets could not be decoded.
        """
        if self._decoded < _WHOLE * self._packets:
            where = "" if math.isinf(self._until_s) else f" in the first {self._until_s:g} s"
            raise MediaError("corrupt", f"only {self._decoded} of {self._packets} {what}{where} can be decoded")

    def _inside(self, pts: int | None, time_base: Fraction) -> bool:
        return pts is None or 0 <= pts * time_base - self._zero < self._until_s


def packets(container: Any, streams: Any) -> Iterator[Any]:
    """Packets of one or more streams, and the empty ones that flush decoders, as far as the file is readable."""
    demuxed = container.demux(streams)
    while True:
        try:
            packet = next(demuxed)
        except MemoryError:
            raise
        except (StopIteration, av.error.FFmpegError):
            return
        except IndexError:  # PyAV, behind the last packet, of streams that appeared midway (damaged MPEG-TS)
            return
        yield packet


def decoded(container: Any, stream: Any, tally: Tally | None = None) -> Iterator[Any]:
    """Frames of a stream in presentation order; damaged packets are skipped, as players do."""
    for packet in packets(container, stream):
        if tally is not None:
            tally.count_packet(packet)
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.error.FFmpegError:
            continue
        for frame in frames:
            if tally is not None:
                tally.count_frame(frame)
            yield frame


def timed_frames(
    container: Any, stream: Any, zero: Fraction, tally: Tally | None = None
) -> Iterator[tuple[Any, float]]:
    """Frames of a video stream, each with the second from time zero at which it is presented."""
    rate = float(stream.average_rate or 25)
    start = -1 / rate
    for frame in decoded(container, stream, tally):
        # Through a fraction: official rules compare exact times, where a float's last digit would decide.
        start = float(frame.pts * stream.time_base - zero) if frame.pts is not None else start + 1 / rate
        yield frame, start


def quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns from the stored to the displayed picture."""
    return int(round(frame.rotation / 90) % 4)
