"""What the judges of `--candidates` say of sounds of which it is known how well they fit: the thresholds of its words.

    python benchmarks/verdicts.py

Needs what `dvc repro` makes of a world. Every test clip is judged with its true sound, that sound shifted by 40 ms,
which nobody notices, and by half a second, and with the sound of a clip of another label. Prints quartiles and tails of
both scores, and how much the 40 ms change what orders the takes.
"""

from pathlib import Path

import numpy as np

from specmaskfoley.foley import Foley
from specmaskfoley.foley.choosing import judge
from specmaskfoley.media.probe import probe
from specmaskfoley.media.sound import read_track
from specmaskfoley.storage.tables import ready_clips

SOUNDS = ("true", "true, 40 ms later", "true, 40 ms earlier", "true, 0.5 s later", "of another label")
TAILS = (5, 25, 50, 75, 95)


def main() -> None:
    foley = Foley.load(".")
    rows = ready_clips(foley.params.paths.usable, "test")
    rng = np.random.default_rng(0)
    tracks = [read_track(row.path) for row in rows]
    found = []
    for row, track in zip(rows, tracks, strict=True):
        rate, wave = track.sample_rate, np.asarray(track.waveform[:, 0])
        others = [other for other, one in zip(tracks, rows, strict=True) if one.label != row.label]
        shifted = [np.roll(wave, round(seconds * rate)) for seconds in (0.0, 0.04, -0.04, 0.5)]
        other = others[rng.integers(len(others))]
        sounds = [(one, rate) for one in shifted] + [(np.asarray(other.waveform[:, 0]), other.sample_rate)]
        judged = judge(foley.judges, Path(row.path), probe(row.path).duration_s, sounds)
        found.append([list(one.values()) for one in judged])
    scores = np.array(found)  # (clips, sounds, sync_s and semantic and overall)
    print(f"of {len(rows)} clips 5, 25, 50, 75, 95 % are below")
    print("| sound | sync_s | semantic |\n| --- | --- | --- |")
    for index, name in enumerate(SOUNDS):
        cells = (", ".join(f"{value:.2f}" for value in np.percentile(scores[:, index, kind], TAILS)) for kind in (0, 1))
        print(f"| {name} | {' | '.join(cells)} |")
    change = np.abs(scores[:, 1:3, 2] - scores[:, :1, 2])
    print(f"40 ms change `overall` by up to {np.percentile(change, 90):.2f} in nine of ten cases")


if __name__ == "__main__":
    main()
