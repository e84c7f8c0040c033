"""How far sounds lie from those that the mini judges learnt: `foreign.distance_ratio`, after `dvc repro`.

python benchmarks/foreign.py [FOLDER of videos]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from specmaskfoley.evaluation.foreign import FAR, distance_ratio, known_sounds, spectra
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import ready_clips

DRAWS = 500


def main(folders: list[str]) -> None:
    params = Params.load(Path("params.yaml"))
    known = spectra(known_sounds(params), params)
    rows = ready_clips(params.paths.usable, "test")
    test = spectra([Path(row.path) for row in rows], params)
    print(f"limit {FAR:g}\n{len(rows)} test clips: {distance_ratio(test, known):.1f}")
    rng = np.random.default_rng(0)
    drawn = [distance_ratio(test[rng.permutation(len(test))[:8]], known) for _ in range(DRAWS)]
    print(f"8 of them: {np.median(drawn):.1f}, at most {max(drawn):.1f} in {DRAWS} draws")
    for label in sorted({row.label for row in rows}):
        members = [number for number, row in enumerate(rows) if row.label == label]
        print(f"  {label}: {distance_ratio(test[members], known):.1f}")
    for folder in folders:
        videos = sorted(Path(folder).glob("*.mp4"))
        print(f"{len(videos)} videos of {folder}: {distance_ratio(spectra(videos, params), known):.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
