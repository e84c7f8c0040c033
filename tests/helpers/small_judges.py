"""A place with judges that were never trained: what is tested is the way of files and numbers, not their worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml

from helpers import ROOT
from helpers.tiny import shrink
from specmaskfoley.judges.mini_panel import MiniPanel
from specmaskfoley.media.writing import write_audio, write_video
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import save_model

RATE = 22050
SECONDS = 2.0
TEXTS = ["bell", "dog", "rain"]


def make_place(root: Path) -> Params:
    """params.yaml and judges in `root`."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    shrink(raw)
    raw["run"]["workers"] = 1  # every comparison starts its own, which takes longer than these clips do
    (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    params = Params.load(root / "params.yaml")
    torch.manual_seed(0)
    panel = MiniPanel(params, params.judges, TEXTS).eval()
    save_model(root / params.paths.judges, panel, judges=params.judges, texts=TEXTS)
    return params


def sound(seed: int, seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    """A few bursts of noise."""
    rng = np.random.default_rng(seed)
    wave = np.zeros(round(seconds * rate), np.float32)
    for start in rng.uniform(0.1, seconds - 0.3, 3):
        first = round(start * rate)
        wave[first : first + rate // 10] = 0.3 * rng.normal(size=rate // 10)
    return wave


def write_sound(path: Path, seed: int, **shape: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = int(shape.get("rate", RATE))
    write_audio(path, sound(seed, shape.get("seconds", SECONDS), rate), rate)
    return path


def write_clip(path: Path, seed: int, seconds: float = SECONDS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(seed).integers(0, 255, (round(25 * seconds), 32, 32, 3), np.uint8)
    write_video(path, frames, 25, sound(seed, seconds), RATE)
    return path
