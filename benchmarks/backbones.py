"""Kinds of backbone on the same clips: means over whole runs of the pipeline by several seeds, with intervals.

    python benchmarks/backbones.py mini=A,B,C mini_1d=D,E,F [--system specmaskfoley]

Each folder is a project after `dvc repro`, the first of every kind with one seed, the second with another, and so on:
runs with one seed see the same clips and are heard by the same judges. Intervals are Student's over the seeds (95 %);
the last row is of the differences, seed by seed, of the first two kinds. Onset F1 is counted anew from the sounds, at
0.1 s and at 0.03 s.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from specmaskfoley.media.sound import read_audio
from specmaskfoley.metrics.onsets import detect_onsets, onset_f1
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import ready_clips

COLUMNS = {
    "fd": ("FD ↓", 1), "fad": ("FAD ↓", 2), "kl": ("KL ↓", 2), "ib": ("IB ↑", 3), "desync": ("DeSync ↓", 3),
    "onset_0.1": ("Onset F1, 0.1 s ↑", 3), "onset_0.03": ("Onset F1, 0.03 s ↑", 3),
}  # fmt: skip
TOLERANCES_S = (0.1, 0.03)


def scores_of(project: Path, system: str) -> dict[str, float]:
    """The metrics of a system in a project, and its onset F1 at each tolerance."""
    params = Params.load(project / "params.yaml")
    found: dict[str, float] = json.loads((project / params.paths.metrics / "systems" / f"{system}.json").read_text())
    audio, f1 = params.audio, {tolerance: list[float]() for tolerance in TOLERANCES_S}
    for row in ready_clips(project / params.paths.usable, "test"):
        events = [event for event in row.events or () if event < audio.token_duration_s]
        if not events:
            continue
        path = project / params.paths.samples / "take-0" / system / f"{row.clip_id}.flac"
        wave = read_audio(path, sample_rate=audio.sample_rate, num_samples=audio.num_samples)
        onsets = detect_onsets(wave, audio.sample_rate).tolist()
        for tolerance, values in f1.items():
            values.append(onset_f1(events, onsets, tolerance))
    return found | {f"onset_{tolerance:g}": float(np.mean(values)) for tolerance, values in f1.items()}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values)), float(half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="+", metavar="NAME=FOLDER,...")
    parser.add_argument("--system", default="specmaskfoley")
    options = parser.parse_args()
    found = {}
    for kind in options.kinds:
        name, _, folders = kind.partition("=")
        found[name] = [scores_of(Path(folder), options.system) for folder in folders.split(",")]
    print(f"| {options.system} | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    rows = {name: {key: [one[key] for one in runs] for key in COLUMNS} for name, runs in found.items()}
    if len(rows) > 1:
        first, second, *_ = rows
        pairs = {key: [b - a for a, b in zip(rows[first][key], rows[second][key], strict=True)] for key in COLUMNS}
        rows[f"{second} - {first}"] = pairs
    for name, row in rows.items():
        cells = (
            f"{mean:.{COLUMNS[key][1]}f} ± {half:.{COLUMNS[key][1]}f}"
            for key in COLUMNS
            for mean, half in [interval(row[key])]
        )
        print(f"| {name} | " + " | ".join(cells) + " |")
    for name, runs in found.items():
        print(name, *(json.dumps({key: round(one[key], 4) for key in COLUMNS}) for one in runs), sep="\n  ")


if __name__ == "__main__":
    main()
