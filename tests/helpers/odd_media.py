"""Broken and odd media files, made on the spot: what a download of 200,000 clips may hold.

Every case says which ledger state its file must get, asked for 2 s of picture and sound, and a part of the reason.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

PICTURE = "testsrc2=size=64x48:rate=25:duration=3"
TONE = "sine=frequency=440:sample_rate=22050:duration=3"
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25")
AAC = ("-c:a", "aac")


def ffmpeg(*arguments: str | Path) -> None:
    """Run the ffmpeg program; with no network and no questions."""
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", "-loglevel", "error", "-threads", "1"]
    done = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, errors="replace")
    assert not done.returncode, f"{arguments}: {done.stderr}"


def encode(path: Path, *options: str | Path, picture: str = PICTURE, tone: str = TONE) -> None:
    """A test picture and a tone as a file."""
    sources = ("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone)
    ffmpeg(*sources, *(options or (*H264, *AAC)), f"file:{path}")


@dataclass(frozen=True)
class Case:
    """A file name, how the file is made, and what must be found."""

    name: str
    make: Callable[[Path], object]
    states: frozenset[str]
    reason: str = ""
    facts: dict[str, object] = field(default_factory=dict)


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[str, int, int]]:
    """Every box of an MP4, parents first: kind, where its content starts, where it ends."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1:
            size, header = struct.unpack_from(">Q", data, start + 8)[0], 16
        stop = end if size == 0 else start + size
        yield kind.decode("latin-1"), start + header, stop
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"):
            yield from boxes(data, start + header, stop)
        start = stop


def edits(path: Path) -> list[list[tuple[int, int]]]:
    """Of each edit list of an MP4 its entries: duration and media time."""
    data, found = path.read_bytes(), []
    for kind, start, _ in boxes(data):
        if kind == "elst":
            wide, count = data[start] == 1, struct.unpack_from(">I", data, start + 4)[0]
            step, form = (20, ">Qq") if wide else (12, ">Ii")
            found.append([struct.unpack_from(form, data, start + 8 + step * n) for n in range(count)])
    return found


def without_edits(source: Path, target: Path) -> None:
    """A copy of an MP4 whose players do not know its edit lists."""
    data = bytearray(source.read_bytes())
    for kind, start, _ in boxes(bytes(data)):
        if kind == "edts":
            data[start - 4 : start] = b"free"
    target.write_bytes(data)


def corpus(work: Path) -> list[Case]:
    """All cases; `work` is for files that others are made from."""
    work.mkdir(parents=True, exist_ok=True)
    whole, end_index, stream = work / "whole.mp4", work / "end.mp4", work / "whole.ts"
    # One second more than is needed, more bits than needed: damage hits data, not headers alone.
    busy = "nullsrc=size=64x48:rate=25:duration=3,geq=random(1)*255:128:128"
    encode(whole, *H264, "-qp", "30", *AAC, "-movflags", "+faststart", picture=busy)
    ffmpeg("-i", whole, "-c", "copy", end_index)
    ffmpeg("-i", whole, "-c", "copy", stream)
    return [*_ready(work, whole), *_unusable(work), *_damaged(whole, end_index, stream), *_no_media(work)]


def _ready(work: Path, whole: Path) -> Iterator[Case]:
    def made(name: str, *options: str, picture: str = PICTURE, tone: str = TONE, **facts: object) -> Case:
        return Case(
            name, lambda path: encode(path, *options, picture=picture, tone=tone), frozenset({"ready"}), "", facts
        )

    yield made("plain.mp4", *H264, *AAC, width=64, height=48, audio_rate=22050, fps=25.0, padded_s=0.0)
    yield made("plain.mkv", *H264, *AAC)
    yield made("vp9_opus.webm", "-c:v", "libvpx-vp9", "-cpu-used", "8", "-c:a", "libopus", audio_rate=48000)
    yield made("vp8_vorbis.webm", "-c:v", "libvpx", "-cpu-used", "8", "-c:a", "libvorbis")
    yield made("mpeg4_mp3.avi", "-c:v", "mpeg4", "-c:a", "libmp3lame")
    yield made("h264_pcm.mov", *H264, "-c:a", "pcm_s16le")
    yield made("plain.ts", *H264, *AAC)
    yield made("plain.flv", *H264, *AAC)
    yield made("mpeg2_mp2.mpg", "-c:v", "mpeg2video", "-c:a", "mp2", "-ar", "44100")
    yield made("interlaced.mpg", "-c:v", "mpeg2video", "-flags", "+ilme+ildct", "-c:a", "mp2", "-ar", "44100")
    yield made("wmv2.wmv", "-c:v", "wmv2", "-c:a", "wmav2", "-ar", "44100")
    yield made("fragmented.mp4", *H264, *AAC, "-movflags", "+frag_keyframe+empty_moov")
    yield made("hevc.mp4", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", *AAC)
    yield made("av1.mp4", "-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "lp=1", *AAC)
    yield made("mjpeg.avi", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_u8")
    yield made("prores.mov", "-c:v", "prores_ks", "-c:a", "pcm_s24le")
    yield made("ten_bits.mp4", *H264, "-pix_fmt", "yuv420p10le", *AAC)
    yield made("b_frames.mp4", "-c:v", "libx264", "-bf", "3", "-b_strategy", "0", *AAC)
    yield made("variable_rate.mp4", "-vf", "select='lt(t,1)+not(mod(n,5))'", "-fps_mode", "vfr", *H264, *AAC)
    yield made("ntsc.mp4", *H264, *AAC, picture="testsrc2=size=64x48:rate=30000/1001:duration=3")
    yield made("fps_1.mp4", *H264, *AAC, picture="testsrc2=size=64x48:rate=1:duration=3", fps=1.0)
    yield made("fps_120.mp4", *H264, *AAC, picture="testsrc2=size=64x48:rate=120:duration=3")
    for turn in (90, 180, 270):
        size = {"width": 48, "height": 64} if turn != 180 else {"width": 64, "height": 48}
        yield Case(
            f"turned_{turn}.mp4",
            lambda path, turn=turn: ffmpeg("-display_rotation", str(turn), "-i", whole, "-c", "copy", path),
            frozenset({"ready"}),
            "",
            {**size, "rotation": -turn % 360},
        )
    odd = {"picture": "testsrc=size=47x35:rate=25:duration=3", "width": 47, "height": 35}
    yield made("odd_yuv444.mp4", *H264, "-pix_fmt", "yuv444p", *AAC, **odd)
    yield made("odd_mpeg4.avi", "-c:v", "mpeg4", "-c:a", "libmp3lame", **odd)
    yield made("tiny.mkv", "-c:v", "ffv1", *AAC, picture="testsrc2=size=2x2:rate=25:duration=3", width=2, height=2)
    yield made("wide.mp4", *H264, *AAC, picture="testsrc2=size=4000x16:rate=25:duration=3", width=4000, height=16)
    yield made("tall.mp4", *H264, *AAC, picture="testsrc2=size=16x4000:rate=25:duration=3", width=16, height=4000)
    for channels in (1, 2, 6, 8):
        yield made(f"channels_{channels}.mp4", *H264, *AAC, "-ac", str(channels), audio_channels=channels)
    yield made("rate_8000.mp4", *H264, *AAC, "-ar", "8000", audio_rate=8000)
    yield made("rate_96000.mp4", *H264, *AAC, "-ar", "96000", audio_rate=96000)
    for pcm in ("pcm_u8", "pcm_s24le", "pcm_f32le", "pcm_f64le", "pcm_s32le"):
        yield made(f"{pcm}.mkv", *H264, "-c:a", pcm)
    for codec in ("libmp3lame", "libopus", "libvorbis", "flac", "ac3"):
        yield made(f"{codec}.mkv", *H264, "-c:a", codec, *(("-ar", "48000") if codec == "ac3" else ()))
    yield Case(
        "late_sound.mp4",
        lambda path: ffmpeg(
            "-i", whole, "-itsoffset", "0.3", "-i", whole, "-map", "0:v", "-map", "1:a", "-c", "copy", path
        ),
        frozenset({"ready"}),
    )
    yield Case(
        "late_video.mkv",
        lambda path: ffmpeg(
            "-itsoffset", "0.3", "-i", whole, "-i", whole, "-map", "0:v", "-map", "1:a", "-c", "copy", path
        ),
        frozenset({"ready"}),
    )
    yield Case(
        "edit_list.mp4",
        lambda path: ffmpeg("-ss", "0.5", "-i", whole, "-c", "copy", path),
        frozenset({"ready"}),
    )
    yield Case(
        "negative_times.mkv",
        lambda path: ffmpeg(
            "-i", whole, "-c", "copy", "-bsf", "setts=ts=TS-1/TB", "-avoid_negative_ts", "disabled", path
        ),
        frozenset({"ready"}),
    )
    yield Case(
        "late_clock.ts",
        lambda path: ffmpeg("-i", whole, "-c", "copy", "-output_ts_offset", "26000", path),
        frozenset({"ready"}),
    )
    yield made("padded.mp4", *H264, *AAC, "-t", "1.5")
    yield made("two_tracks.mkv", *H264, *AAC, "-map", "0:v", "-map", "1:a", "-map", "1:a")
    first, second = work / "small.ts", work / "large.ts"
    encode(first, *H264, *AAC, "-t", "1")
    encode(second, *H264, *AAC, "-t", "2", picture="testsrc2=size=128x96:rate=25:duration=3")
    yield Case("size_changes.ts", lambda path: _join(path, first, second), frozenset({"ready"}))
    # Names that shells, FFmpeg or a table could stumble over.
    for name in ("-first.mp4", 'it\'s "quoted".mp4', "line\nend.mp4", "%03d.mp4", "a:b.mp4", "pipe:.mp4", "è 音.mp4"):
        yield Case(name, lambda path: path.write_bytes(whole.read_bytes()), frozenset({"ready"}))
    yield Case("no_ending", lambda path: path.write_bytes(whole.read_bytes()), frozenset({"ready"}))
    yield Case("wrong_ending.avi", lambda path: path.write_bytes(whole.read_bytes()), frozenset({"ready"}))


def _unusable(work: Path) -> Iterator[Case]:
    def made(name: str, state: str, reason: str, *options: str, tone: str = TONE) -> Case:
        return Case(name, lambda path: encode(path, *options, tone=tone), frozenset({state}), reason)

    yield made("no_audio.mp4", "no_audio", "no sound track", *H264, "-an")
    yield made("animation.gif", "no_audio", "no sound track", "-an", "-c:v", "gif")
    yield made("no_video.mp4", "no_video", "no video stream", "-vn", *AAC)
    yield made("half_second.mp4", "short", "0.52 s of video", *H264, *AAC, "-t", "0.5")
    yield made("one_frame.mp4", "short", "0.04 s of video and 3.", *H264, *AAC, "-vf", "trim=end_frame=1")
    yield made("short_sound.mp4", "short", "3.00 s of video and 0.", *H264, *AAC, "-af", "atrim=end=0.3")
    yield made("silent.mp4", "silent", "peak of -inf dBFS", *H264, *AAC, tone="anullsrc=r=22050:cl=mono:d=3")
    yield made("nearly_silent.mkv", "silent", "prepare.silence_db=-60", *H264, "-c:a", "flac", "-af", "volume=0.003")
    yield made("silent_where_used.mp4", "silent", "dBFS", *H264, *AAC, "-af", "volume=0:enable='lt(t,2.2)'")
    cover = work / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48", "-frames:v", "1", cover)
    yield Case(
        "cover_only.m4a",
        lambda path: ffmpeg(
            "-f", "lavfi", "-i", TONE, "-i", cover, "-map", "0", "-map", "1", "-c:v", "copy", *AAC,
            "-disposition:v:0", "attached_pic", path,
        ),
        frozenset({"no_video"}),
        "no video stream",
    )  # fmt: skip
    picture = "a single picture, not a video"
    yield Case("png_renamed.mp4", lambda path: path.write_bytes(cover.read_bytes()), frozenset({"corrupt"}), picture)
    yield Case("empty_sound_track.mkv", _empty_sound_track, frozenset({"short"}), "0.00 s of sound")
    yield Case("empty_sound_track.mp4", _empty_sound_track, frozenset({"no_audio"}), "no sound track")
    low, high = work / "low.ts", work / "high.ts"
    encode(low, *H264, *AAC, "-t", "1", "-ar", "22050")
    encode(high, *H264, *AAC, "-t", "2", "-ar", "44100")
    yield Case(
        "rate_changes.ts", lambda path: _join(path, low, high), frozenset({"corrupt"}), "changes from 22050 to 44100"
    )


def _damaged(whole: Path, end_index: Path, stream: Path) -> Iterator[Case]:
    data = whole.read_bytes()
    for percent in (1, 5, 10, 25, 40, 50, 60, 75, 80, 90):
        yield Case(
            f"cut_at_{percent:02d}.mp4",
            lambda path, percent=percent: path.write_bytes(data[: len(data) * percent // 100]),
            frozenset({"corrupt" if percent <= 80 else "ready"}),
            "" if percent > 80 else "c",
        )
    yield Case("no_moov.mp4", lambda path: _cut(path, end_index, 0.9), frozenset({"corrupt"}), "cannot be decoded")
    yield Case("cut.ts", lambda path: _cut(path, stream, 0.6), frozenset({"ready"}))
    yield Case("cut_early.ts", lambda path: _cut(path, stream, 0.2), frozenset({"short"}))
    content = next((start, end) for kind, start, end in boxes(data) if kind == "mdat")
    for rate in (1e-5, 1e-4, 1e-3):
        for seed in range(3):
            yield Case(
                f"flipped_{rate:g}_{seed}.mp4",
                lambda path, rate=rate, seed=seed: path.write_bytes(_flipped(data, rate, seed)),
                frozenset({"ready", "corrupt", "short", "no_video", "no_audio", "silent"}),
            )
    for suffix, source in (("mp4", data), ("ts", stream.read_bytes())):
        yield Case(
            f"flipped_badly.{suffix}",
            lambda path, source=source: path.write_bytes(_flipped(source, 0.02, 9)),
            frozenset({"ready", "corrupt", "short", "no_video", "no_audio", "silent"}),
        )
    yield Case(
        "content_zeroed.mp4", lambda path: path.write_bytes(_zeroed(data, *content, 0.0)), frozenset({"corrupt"}), "c"
    )
    yield Case(
        "mostly_zeroed.mp4",
        lambda path: path.write_bytes(_zeroed(data, *content, 0.2)),
        frozenset({"corrupt"}),
        "can be decoded",
    )
    yield Case("vast_picture.avi", lambda path: _vast_picture(path, 65500), frozenset({"corrupt"}), "no frame")
    yield Case("large_picture.avi", lambda path: _vast_picture(path, 16000), frozenset({"corrupt"}), "no frame")
    yield Case("endless.mp4", lambda path: path.write_bytes(_endless(data)), frozenset({"ready"}))


def _no_media(work: Path) -> Iterator[Case]:
    def text(name: str, content: bytes, state: str, reason: str) -> Case:
        return Case(name, lambda path: path.write_bytes(content), frozenset({state}), reason)

    target = work / "whole.mp4"
    yield text("empty.mp4", b"", "corrupt", "the file is empty")
    yield text("one_byte.mp4", b"\0", "corrupt", "cannot be decoded")
    yield text("text.mp4", b"no video\n" * 50, "corrupt", "cannot be decoded")
    yield text("error.mp4", b"<!DOCTYPE html><html><title>404</title></html>" * 9, "corrupt", "cannot be decoded")
    yield text("zeros.mp4", bytes(100_000), "corrupt", "cannot be decoded")
    yield text("json.mp4", b'{"error": "quota"}', "corrupt", "cannot be decoded")
    noise = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8).tobytes()
    yield text("noise.mp4", noise, "corrupt", "c")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{target}\n#EXT-X-ENDLIST\n"
    yield text("playlist.mp4", playlist.encode(), "corrupt", "cannot be decoded")
    yield text("playlist.m3u8", playlist.encode(), "corrupt", "cannot be decoded")
    yield text("concat.mp4", f"ffconcat version 1.0\nfile {target.name}\n".encode(), "corrupt", "cannot be decoded")
    session = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    yield text("session.mp4", session, "corrupt", "cannot be decoded")
    yield text("subtitles.mp4", b"1\n00:00:00,000 --> 00:00:02,000\nhello\n", "no_video", "no video stream")
    yield Case("directory.mp4", lambda path: path.mkdir(), frozenset({"missing"}), "a directory")
    yield Case("dangling.mp4", lambda path: path.symlink_to("nowhere"), frozenset({"missing"}), "a link")
    yield Case("loop.mp4", lambda path: path.symlink_to("loop.mp4"), frozenset({"missing"}), "cannot be read")
    yield Case("pipe.mp4", lambda path: os.mkfifo(path), frozenset({"missing"}), "not a regular file")
    yield Case("absent.mp4", lambda path: None, frozenset({"missing"}), "no such file")
    yield Case("link.mp4", lambda path: path.symlink_to(target), frozenset({"ready"}))


def _join(path: Path, *parts: Path) -> None:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))


def _cut(path: Path, source: Path, share: float) -> None:
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def _flipped(data: bytes, rate: float, seed: int) -> bytes:
    """One bit of each of a share of the bytes turned over, at least of one."""
    random = np.random.default_rng(seed)
    changed = np.frombuffer(data, np.uint8).copy()
    places = random.choice(len(changed), max(1, round(rate * len(changed))), replace=False)
    changed[places] ^= (1 << random.integers(0, 8, len(places))).astype(np.uint8)
    return changed.tobytes()


def _zeroed(data: bytes, start: int, end: int, keep: float) -> bytes:
    """All but the first share of the content overwritten."""
    first = start + int((end - start) * keep)
    return data[:first] + bytes(end - first) + data[end:]


def _empty_sound_track(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.add_stream("aac", rate=22050, layout="mono")
        for number in range(75):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _vast_picture(path: Path, side: int) -> None:
    """JPEG frames whose headers claim side x side pixels."""
    encode(path, "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16le")
    data = path.read_bytes()
    size = struct.pack(">HH", 48, 64)
    for marker in (b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x08"):
        data = data.replace(marker + size, marker + struct.pack(">HH", side, side))
    assert struct.pack(">HH", side, side) in data
    path.write_bytes(data)


def _endless(data: bytes) -> bytes:
    """An MP4 whose headers claim 49 days or more."""
    changed = bytearray(data)
    for kind, start, _ in boxes(data):
        if kind in ("mvhd", "mdhd", "tkhd"):
            assert data[start] == 0, "64-bit times"
            at = start + (20 if kind == "tkhd" else 16)
            struct.pack_into(">I", changed, at, 0xFFFFFFF0)
    return bytes(changed)
