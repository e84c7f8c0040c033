"""Reading 10 s clips as the profile vggsound does: python benchmarks/decoding.py [CLIPS] [--rounds 5] [--json FILE]

Of a clip: 250 frames at 25 fps (central square of 224), 80 frames at 8 fps (stretched to 384), 217,088 samples of sound
at 22,050 Hz. Ours against plain loops of PyAV, decord and torchcodec, which deliver the same arrays: the same frames,
the same resizing, each library's own colours and resampling. One process on one core; the contenders take turns on each
clip; the table gives medians. CLIPS is a directory of videos; without it a few are rendered.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import torch
import yaml
from av.video.reformatter import VideoReformatter
from torchvision.transforms.v2 import functional

from specmaskfoley.clips.folder import find_videos
from specmaskfoley.media import clips, frames
from specmaskfoley.media.frames import read_views
from specmaskfoley.media.sound import read_audio
from specmaskfoley.settings import Params

PARAMS = Params.from_mapping(yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")) | {"profile": "vggsound"})
VIEWS = (clips.sync_view(PARAMS), clips.semantic_view(PARAMS))
SOUND = clips.model_sound(PARAMS)
TIMES = [view.times() for view in VIEWS]
TOLERANCES = {"frames": 3.0, "sound": 0.01}
"""Mean absolute differences: 256 grey levels, full scale 1. Colours and resampling filters are each library's own."""

CHUNK = 16  # full-size frames that decord holds in memory

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


# ---- contenders: a path -> frames of both views, sound ----


def ours(path: str) -> Arrays:
    seen = read_views(path, VIEWS)
    wave = read_audio(path, sample_rate=SOUND.sample_rate, num_samples=SOUND.num_samples)
    return seen[VIEWS[0]], seen[VIEWS[1]], wave


def ours_one_thread(path: str) -> Arrays:
    """Ours, with one decoder thread instead of one for each of up to four cores."""
    with patch("os.cpu_count", lambda: 1):
        return ours(path)


def plain_pyav(path: str) -> Arrays:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        starts = sorted(packet.pts * packet.time_base for packet in container.demux(stream) if packet.pts is not None)
    places, wanted = choose(np.array(starts, np.float64) - float(starts[0]))
    kept = set(wanted)
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        decoded = (frame for number, frame in enumerate(container.decode(stream)) if number in kept)
        frames = shape((torch.from_numpy(frame.to_ndarray(format="rgb24"))[None] for frame in decoded), places)
    return frames[0], frames[1], pyav_sound(path)


def pyav_sound(path: str) -> np.ndarray:
    with av.open(path) as container:
        resample = av.AudioResampler(format="fltp", rate=SOUND.sample_rate)
        decoded = container.decode(container.streams.audio[0])
        parts = [part.to_ndarray() for frame in decoded for part in resample.resample(frame)]
        parts += [part.to_ndarray() for part in resample.resample(None)]
    return trim(np.concatenate(parts, axis=1).mean(axis=0))


def plain_decord(path: str) -> Arrays:
    """With PyAV's sound: decord 0.6 gives no numbers for stereo, and its mono is 3 dB too loud."""
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    starts = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
    places, wanted = choose(starts - starts[0])
    chunks = (wanted[first : first + CHUNK] for first in range(0, len(wanted), CHUNK))
    frames = shape((torch.from_numpy(reader.get_batch(chunk).asnumpy()) for chunk in chunks), places)
    return frames[0], frames[1], pyav_sound(path)


def plain_torchcodec(path: str) -> Arrays:
    from torchcodec.decoders import AudioDecoder, VideoDecoder

    reader = VideoDecoder(path, num_ffmpeg_threads=1, dimension_order="NHWC", seek_mode="approximate")
    begin, end = reader.metadata.begin_stream_seconds or 0.0, reader.metadata.end_stream_seconds
    # A frame that begins in the very middle of a slot is not that slot's: settings.FrameRule.
    times = [np.clip(begin + times - 1e-6, begin, end - 1e-3) for times in TIMES]
    together, inverse = np.unique(np.concatenate(times), return_inverse=True)
    places = np.split(inverse, [len(times[0])])
    # All at once, up to a gigabyte: every further call seeks again, which took 25 to 40 % longer.
    frames = shape([reader.get_frames_played_at(together.tolist()).data], places)
    sound = AudioDecoder(path, sample_rate=SOUND.sample_rate).get_all_samples().data
    return frames[0], frames[1], trim(sound.mean(dim=0).numpy())


CONTENDERS: dict[str, Callable[[str], Arrays]] = {
    "ours": ours,
    "ours, one decoder thread": ours_one_thread,
    "PyAV, plain loop": plain_pyav,
    "decord, sound by PyAV": plain_decord,
    "torchcodec": plain_torchcodec,
}


def choose(starts: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
    """For frames presented at `starts`: where each view's frames lie among those to be decoded, and which these are."""
    rows = [np.maximum(np.searchsorted(starts, times, side="left") - 1, 0) for times in TIMES]
    wanted, inverse = np.unique(np.concatenate(rows), return_inverse=True)
    return np.split(inverse, [len(rows[0])]), wanted.tolist()


def shape(chunks: Iterable[torch.Tensor], places: list[np.ndarray]) -> list[np.ndarray]:
    """Full-size frames, uint8 (n, H, W, 3) a chunk, as the views; `places` says which rows they fill."""
    results = [np.empty((view.frames, view.size, view.size, 3), np.uint8) for view in VIEWS]
    number = 0
    for chunk in chunks:
        for picture in chunk.permute(0, 3, 1, 2):  # one by one: to pick out many would copy them at full size
            for result, view, place in zip(results, VIEWS, places, strict=True):
                first, last = np.searchsorted(place, (number, number + 1))
                if first < last:
                    size = [view.size] * 2 if view.fit == "clip" else short_side(picture.shape[-2:], view.size)
                    small = functional.resize(picture, size, functional.InterpolationMode.BICUBIC, antialias=True)
                    small = functional.center_crop(small, [view.size] * 2) if view.fit == "crop" else small
                    result[first:last] = small.permute(1, 2, 0).numpy()
            number += 1
    return results


def short_side(shape: Iterable[int], size: int) -> list[int]:
    height, width = shape
    return [size, int(size * width / height)] if height < width else [int(size * height / width), size]


def trim(wave: np.ndarray) -> np.ndarray:
    return np.pad(wave[: SOUND.num_samples], (0, max(0, SOUND.num_samples - len(wave)))).astype(np.float32)


# ---- measuring ----


def compare(paths: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Contender -> medians, or why it is not available."""
    results: dict[str, dict[str, Any]] = {}
    for name, read in CONTENDERS.items():
        try:
            read(paths[0])  # loads its libraries
            results[name] = {"seconds": {path: [] for path in paths}, "frames": [], "sound": []}
        except (ImportError, RuntimeError, OSError) as error:
            results[name] = {"not_available": next(filter(str.strip, str(error).splitlines()), type(error).__name__)}
    able = [name for name, result in results.items() if "seconds" in result]
    for path in paths:
        expected = ours(path)
        for name in able:
            *frames, wave = CONTENDERS[name](path)
            for found, right in zip((*frames, wave), expected, strict=True):
                if found.shape != right.shape or found.dtype != right.dtype:
                    raise SystemExit(f"{name}: {path}: {found.dtype} {found.shape}, not {right.dtype} {right.shape}")
            results[name]["frames"].append(max(apart(f, r) for f, r in zip(frames, expected[:2], strict=True)))
            results[name]["sound"].append(apart(wave, expected[2]))
    for number in range(rounds):
        for path in paths:
            for name in [*able[number % len(able) :], *able[: number % len(able)]]:  # nobody is always first
                begin = time.perf_counter()
                CONTENDERS[name](path)
                results[name]["seconds"][path].append(time.perf_counter() - begin)
    for name in able:
        for what, tolerance in TOLERANCES.items():
            results[name][what] = max(results[name][what])
            if results[name][what] > tolerance:
                print(f"WARNING: {name}: mean absolute difference of {what} {results[name][what]:.3g} > {tolerance}")
    return results


def apart(found: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(found.astype(np.float32) - right.astype(np.float32)).mean())


def split(paths: list[str], rounds: int) -> dict[str, float]:
    """Where our time goes, in seconds a clip: medians over rounds of the mean over clips."""
    taken: list[Counter[str]] = []
    for _ in range(rounds):
        spent: Counter[str] = Counter()

        for path in paths:
            with stopwatch(spent, "video, decoding alone (one thread)"):
                decode(path, "video")
            with stopwatch(spent, "sound, decoding alone"):
                decode(path, "audio")
            with stopwatch(spent, "sound"):
                read_audio(path, sample_rate=SOUND.sample_rate, num_samples=SOUND.num_samples)
            with (
                patch.object(frames, "VideoReformatter", partial(TimedReformatter, spent)),
                patch.object(functional, "resize", timed(functional.resize, spent, "resize")),
                stopwatch(spent, "video"),
            ):
                read_views(path, VIEWS)
        spent["decode and the rest"] = spent["video"] - spent["convert"] - spent["resize"]
        taken.append(spent)
    return {name: statistics.median(spent[name] for spent in taken) / len(paths) for name in taken[0]}


class TimedReformatter:
    """PyAV's, which cannot be inherited from."""

    def __init__(self, spent: Counter[str]) -> None:
        self.reformat = timed(VideoReformatter().reformat, spent, "convert")


def timed(function: Callable[..., Any], spent: Counter[str], name: str) -> Callable[..., Any]:
    def run(*arguments: Any, **more: Any) -> Any:
        with stopwatch(spent, name):
            return function(*arguments, **more)

    return run


@contextmanager
def stopwatch(spent: Counter[str], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    spent[name] += time.perf_counter() - begin  # type: ignore[assignment]


def decode(path: str, kind: str) -> None:
    with av.open(path) as container:
        stream = getattr(container.streams, kind)[0]
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass


def render(folder: Path) -> None:
    """Ten-second clips of 640 x 360 as VGGSound's, with motion and sound."""
    import imageio_ffmpeg

    for name, pictures in {
        "bars": "testsrc2=size=640x360:rate=30",
        "fractal": "mandelbrot=size=640x360:rate=30",
        "noise": "testsrc2=size=640x360:rate=25,noise=alls=20:allf=t",
    }.items():
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", pictures]
        command += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100,tremolo=f=3", "-t", "10", "-ac", "2"]
        command += ["-c:v", "libx264", "-preset", "medium", "-pix_fmt", "yuv420p", str(folder / f"{name}.mp4")]
        subprocess.run(command, check=True)


def report(results: dict[str, dict[str, Any]]) -> None:
    able = {name: result for name, result in results.items() if "seconds" in result}
    for result in able.values():
        medians = [statistics.median(times) for times in result["seconds"].values()]
        result["seconds_a_clip"] = sum(medians) / len(medians)
    reference = able["ours"]["seconds_a_clip"]
    print("| contender | clips/s per core | ours / it | frames differ by | sound differs by |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, result in results.items():
        if "seconds" not in result:
            print(f"| {name} | not available: {result['not_available']} | | | |")
            continue
        seconds = result["seconds_a_clip"]
        ratio = seconds / reference
        print(f"| {name} | {1 / seconds:.2f} | {ratio:.2f} | {result['frames']:.2f} | {result['sound']:.5f} |")
    print("\nours / it: how many times as many clips a second ours reads. Differences: the mean absolute one of grey")
    print("levels of 256, and of samples at full scale 1, from ours; the worst clip.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="?", type=Path, help="directory of videos; none: some are rendered")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="read only the first so many clips")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    with tempfile.TemporaryDirectory() as folder:
        if options.clips is None:
            render(Path(folder))
        directory = options.clips or Path(folder)
        paths = [str(directory / path) for path in find_videos(directory).values()][: options.limit]
        if not paths:
            parser.error(f"{directory}: no videos")
        print(f"{len(paths)} clips, {options.rounds} rounds, medians; one core\n", flush=True)
        results = compare(paths, options.rounds)
        report(results)
        parts = split(paths, options.rounds)
    print("\n| part of ours | ms a clip |\n| --- | ---: |")
    for name, seconds in parts.items():
        print(f"| {name} | {seconds * 1000:.0f} |")
    if options.json:
        named = {Path(path).name: path for path in paths}
        for result in results.values():
            if "seconds" in result:
                result["seconds"] = {name: result["seconds"][path] for name, path in named.items()}
        options.json.write_text(json.dumps({"contenders": results, "split_s": parts}, indent=2) + "\n")


if __name__ == "__main__":
    main()
