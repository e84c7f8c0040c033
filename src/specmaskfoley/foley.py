"""Sound for one's own video.

Shape letters: W windows, t sync frames, u semantic frames, S samples of a window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from specmaskfoley.config import Params
from specmaskfoley.features import Features
from specmaskfoley.generator import Generator, clip_seed
from specmaskfoley.sources.folder import SUFFIXES
from specmaskfoley.storage.clips import read_views
from specmaskfoley.storage.media import MediaError, mux, probe, write_audio

_FADE_S = 0.02


@dataclass(frozen=True)
class Made:
    """What was written for a video: .flac, and .mp4 (.mkv where the picture's codec does not fit in it)."""

    audio: Path
    video: Path
    duration_s: float


class Foley:
    """The trained system: video in, sound out."""

    def __init__(self, params: Params, device: torch.device) -> None:
        self.params = params
        self.features = Features(params, device)
        self.generator = Generator(params, device)

    def waveform(self, path: Path, *, text: str = "", seed: int = 0) -> np.ndarray:
        """Sound as long as the video, float32 (samples,).

        A video longer than the model is made in windows one after the other; each window's last one is moved
        back to end with the video, and a short cross-fade hides the seam.
        """
        audio = self.params.audio
        duration_s = probe(path).duration_s
        window = audio.num_samples
        total = math.ceil(duration_s * audio.sample_rate)
        starts = [*range(0, max(1, total - window), window)]
        if total > window and starts[-1] + window < total:
            starts.append(total - window)
        result = np.zeros(max(total, window), np.float32)
        fade = int(_FADE_S * audio.sample_rate)
        mode = self.params.cfg.mode if text or self.params.cfg.mode == "audio" else "no_text_video"
        for number, start in enumerate(tqdm(starts, desc=path.name, unit="window", disable=None)):
            views = (self.features.sync_view, self.features.semantic_view)
            frames = read_views(path, views, start / audio.sample_rate)
            sync, semantic = self.features.video(*(torch.from_numpy(frames[view])[None] for view in views))
            tokens = self.generator.tokens(
                prompt=self.features.text_prompt([text]).float(),
                sync=sync.float(),
                semantic=semantic.float(),
                seeds=[clip_seed(seed, f"{path.stem}/{number}")],
                mode=mode,
            )
            made = self.generator.decode(tokens)[0].numpy()
            if number:
                ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
                made[:fade] = made[:fade] * ramp + result[start : start + fade] * (1.0 - ramp)
            result[start : start + window] = made
        return result[:total]

    def generate(self, path: Path, target: Path, *, text: str = "", seed: int = 0) -> Made:
        """Write the sound, and the video's own picture with it, beside `target`, a path without ending.

        Raises:
            MediaError: the video cannot be read.
        """
        waveform = self.waveform(path, text=text, seed=seed)
        rate = self.params.audio.sample_rate
        audio, video = _named(target, ".flac"), _named(target, ".mp4")
        write_audio(audio, waveform, rate)
        try:
            mux(path, waveform, rate, video)
        except MediaError:
            raise
        except ValueError:  # the picture's codec fits in no .mp4; Matroska takes any
            video = _named(target, ".mkv")
            mux(path, waveform, rate, video)
        return Made(audio, video, len(waveform) / rate)


def _named(target: Path, suffix: str) -> Path:
    """Not `with_suffix`: a dot in the name is part of the name."""
    return target.with_name(target.name + suffix)


def find_videos(paths: Sequence[Path]) -> list[Path]:
    """Files as they are; of folders, all files inside whose ending is a video's.

    Raises:
        ValueError: a path does not exist, or a folder holds no video.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES)
            if not inside:
                raise ValueError(f"{path}: no video in this folder (looked for {', '.join(sorted(SUFFIXES))})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ValueError(f"{path}: no such file or folder")
    return found
