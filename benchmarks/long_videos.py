"""Sound of unseen world videos of three times the training length, beside videos of that length: onsets and seams.

    python benchmarks/long_videos.py [--clips 48] [--seed 0]

Needs the model that `dvc repro` trains. Prints onset F1 of both, and what share of the seams between windows has more
spectral flux than 95 % of the moments elsewhere (chance: 5 %).
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from specmaskfoley.evaluation.onsets import HOP_S, detect_onsets, onset_f1, onset_strength
from specmaskfoley.foley import Foley, Take
from specmaskfoley.storage.media import write_video
from specmaskfoley.world import render_clip

NEAR_S = 0.025
"""A seam's flux is the largest this close to it; elsewhere, too."""
APART_S = 0.1


@dataclass
class Sums:
    f1: list[float]
    at_seams: list[float]
    above: list[bool]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    foley = Foley.load(".")
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
    sums, audio = Sums([], [], []), foley.params.audio
    with tempfile.TemporaryDirectory() as folder:
        for index in range(clips):
            clip = render_clip(
                seed=seed, split=split, index=index, duration_s=duration_s, fps=foley.params.world.fps,
                sample_rate=audio.sample_rate,
            )  # fmt: skip
            video = Path(folder) / f"{index}.mp4"
            write_video(video, clip.frames, clip.fps)
            take = foley.generate(video, text=clip.label, seed=seed)[0]
            if clip.events:
                found = detect_onsets(take.waveform, take.sample_rate)
                sums.f1.append(onset_f1(clip.events, found, foley.params.evaluate.onset_tolerance_s).f1)
            sums.above += seams_above(take)
    return sums


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


if __name__ == "__main__":
    main()
