"""Sound of unseen world videos of three times the training length, beside videos of that length: onsets and seams.

    python benchmarks/long_videos.py [--clips 72] [--seed 0]
    python benchmarks/long_videos.py --candidates 4
    python benchmarks/long_videos.py --seconds 180 3600

Needs the model that `dvc repro` trains. Prints onset F1 of both, and what share of the seams between windows has more
spectral flux than 95 % of the moments elsewhere (chance: 5 %). With --candidates: onset F1 of the candidate that the
judges rank first, of the mean and of the last, on videos of three times the training length. With --seconds: the time
and the memory that videos of these lengths take, from the file to the files.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from scipy import ndimage

from specmaskfoley.clips.world import render_clip
from specmaskfoley.foley import Foley, Take
from specmaskfoley.media.writing import write_video
from specmaskfoley.metrics.onsets import HOP_S, detect_onsets, onset_f1, onset_strength

NEAR_S = 0.025
"""A seam's flux is the largest this close to it; elsewhere, too."""
APART_S = 0.1


@dataclass
class Sums:
    f1: list[float]
    above: list[bool]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=72)
    parser.add_argument("--candidates", type=int, default=1)
    parser.add_argument("--seconds", type=int, nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    foley = Foley.load(".")
    if arguments.seconds:
        return measure_memory(foley, arguments.seconds)
    if arguments.candidates > 1:
        return measure_choice(foley, arguments.clips, arguments.seed, arguments.candidates)
    fps = foley.params.world.fps
    length = int(foley.params.audio.token_duration_s * fps) / fps  # whole frames in one window
    print("| video | onset F1 | clips with events | seams | above the 95th percentile |")
    print("| --- | ---: | ---: | ---: | ---: |")
    scores = {}
    for name, duration_s in (("training length", length), ("three times", 3 * length)):
        sums = measure(foley, name.split()[0], duration_s, arguments.clips, arguments.seed)
        scores[name] = np.mean(sums.f1)
        share = f"{np.mean(sums.above):.1%}" if sums.above else "-"
        print(
            f"| {name}, {duration_s:.2f} s | {scores[name]:.3f} | {len(sums.f1)} | {len(sums.above)} | {share} |",
            flush=True,
        )
    print(f"\nratio of onset F1: {scores['three times'] / scores['training length']:.3f}")


def measure(foley: Foley, split: str, duration_s: float, clips: int, seed: int) -> Sums:
    sums = Sums([], [])
    for takes, events in generated(foley, split, duration_s, clips, seed, 1):
        if events:
            sums.f1.append(onsets_of(foley, takes[0], events))
        sums.above += seams_above(takes[0])
    return sums


def measure_choice(foley: Foley, clips: int, seed: int, candidates: int) -> None:
    length = 3 * foley.params.audio.token_duration_s
    scores = np.array(
        [
            [onsets_of(foley, take, events) for take in takes]
            for takes, events in generated(foley, "three", length, clips, seed, candidates)
            if events
        ]
    )
    best, last = scores[:, 0], scores[:, -1]
    error = (best - scores.mean(axis=1)).std(ddof=1) / len(scores) ** 0.5
    print(
        f"onset F1 of {len(scores)} clips, {candidates} candidates: first {best.mean():.3f}, mean {scores.mean():.3f},"
    )
    print(f"last {last.mean():.3f}; first - mean {best.mean() - scores.mean():.3f} (standard error {error:.3f})")


def generated(
    foley: Foley, split: str, duration_s: float, clips: int, seed: int, candidates: int
) -> Iterator[tuple[list[Take], tuple[float, ...]]]:
    """Takes of unseen clips and the clips' true events."""
    params = foley.params
    with tempfile.TemporaryDirectory() as folder:
        for index in range(clips):
            clip = render_clip(
                seed=seed, split=split, index=index, duration_s=duration_s, fps=params.world.fps,
                sample_rate=params.audio.sample_rate,
            )  # fmt: skip
            video = Path(folder) / f"{index}.mp4"
            write_video(video, clip.frames, clip.fps)
            yield foley.generate(video, text=clip.label, seed=seed, candidates=candidates), clip.events


def onsets_of(foley: Foley, take: Take, events: tuple[float, ...]) -> float:
    found = detect_onsets(take.waveform, take.sample_rate).tolist()
    return onset_f1(events, found, foley.params.evaluate.onset_tolerance_s)


def seams_above(take: Take) -> list[bool]:
    """Of each seam, whether its flux is above the 95th percentile of the flux elsewhere in the sound."""
    flux, times = onset_strength(take.waveform, take.sample_rate)
    near = ndimage.maximum_filter1d(flux, 2 * round(NEAR_S / HOP_S) + 1)
    seams = np.array(take.seams_s)
    if not len(seams):
        return []
    elsewhere = np.abs(times[:, None] - seams).min(axis=1) > APART_S
    limit = np.percentile(near[elsewhere], 95)
    return [bool(near[np.abs(times - seam).argmin()] > limit) for seam in seams]


def measure_memory(foley: Foley, lengths: list[int]) -> None:
    print("| video | seconds taken | peak memory of its own, MB |\n| ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder) / "short.mp4"
        clip = render_clip(seed=0, split="memory", index=3, duration_s=20, fps=25, sample_rate=22050)
        write_video(short, clip.frames, clip.fps)
        foley.generate(short)
        for seconds in lengths:
            video = repeat(short, Path(folder) / f"{seconds}.mp4", seconds // 20)
            peaks, begin = [own_memory()], time.perf_counter()
            take = foley.generate(video, text=clip.label, progress=lambda *_, peaks=peaks: peaks.append(own_memory()))[
                0
            ]
            take.save(Path(folder) / "made")
            peaks.append(own_memory())
            print(f"| {seconds} s | {time.perf_counter() - begin:.1f} | {max(peaks):.0f} |", flush=True)


def own_memory() -> float:
    """Megabytes that no file backs: scratch files are given back to the disk when memory is short."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1e3


def repeat(source: Path, target: Path, times: int) -> Path:
    """The picture of a video several times over, not encoded again."""
    with av.open(str(target), "w") as container:
        copy = None
        for number in range(times):
            with av.open(str(source)) as clip:
                stream = clip.streams.video[0]
                copy = copy or container.add_stream_from_template(stream)
                for packet in clip.demux(stream):
                    if packet.size:
                        packet.pts += number * stream.duration
                        packet.dts += number * stream.duration
                        packet.stream = copy
                        container.mux(packet)
    return target


if __name__ == "__main__":
    main()
