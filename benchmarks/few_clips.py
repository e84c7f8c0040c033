"""How FD and FAD depend on the number of clips: SpecMaskFoley's on parts of the test split, after `dvc repro`.

python benchmarks/few_clips.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from specmaskfoley.evaluation.judging import judging
from specmaskfoley.judges.trained import load_panel
from specmaskfoley.metrics.frechet import frechet_distance
from specmaskfoley.metrics.judged import Listened
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import ready_clips
from specmaskfoley.systems import OURS, take_folder

SIZES = (6, 12, 20, 30, 50)
DRAWS = 200


def main() -> None:
    params = Params.load(Path("params.yaml"))
    rows = ready_clips(params.paths.usable, "test")
    with judging(load_panel(params, torch.device("cpu")), params) as judge:
        true = judge.listen([Path(row.path) for row in rows])
        made = judge.listen([take_folder(params, OURS, 0) / f"{row.clip_id}.flac" for row in rows])
    rng = np.random.default_rng(0)
    print(f"{len(rows)} clips; FD of {true.embedding.shape[1]}, FAD of {true.stretches.shape[2]} features")
    print("clips   FD: mean, 95 % of draws      FAD: mean, 95 % of draws")
    for size in (*SIZES, len(rows)):
        parts = [rng.permutation(len(rows))[:size] for _ in range(DRAWS if size < len(rows) else 1)]
        values = np.array([(_fd(made.at(part), true.at(part)), _fad(made.at(part), true.at(part))) for part in parts])
        low, high = np.quantile(values, (0.025, 0.975), axis=0)
        mean = values.mean(axis=0)
        print(f"{size:5d}  " + "   ".join(f"{mean[k]:7.2f} [{low[k]:6.2f}, {high[k]:7.2f}]" for k in range(2)))


def _fd(made: Listened, true: Listened) -> float:
    return frechet_distance(made.embedding, true.embedding)


def _fad(made: Listened, true: Listened) -> float:
    return frechet_distance(*(side.stretches.reshape(-1, side.stretches.shape[-1]) for side in (made, true)))


if __name__ == "__main__":
    main()
