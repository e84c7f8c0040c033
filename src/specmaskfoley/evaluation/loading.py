"""The test split, the sounds of all systems and the judges, from the files that earlier stages wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from specmaskfoley.config import Params
from specmaskfoley.evaluation.compare import HeldOut
from specmaskfoley.evaluation.panel import Panel
from specmaskfoley.loading import log_mels
from specmaskfoley.storage.checkpoint import load_model, read_setting
from specmaskfoley.storage.clips import read_clips
from specmaskfoley.storage.files import read_json
from specmaskfoley.storage.media import read_audio
from specmaskfoley.storage.tables import ready_clips
from specmaskfoley.synthesis import SYSTEMS


def load_panel(params: Params, device: torch.device) -> Panel:
    """The trained judges."""
    texts = read_setting(params.paths.judges, "texts")
    panel = Panel(params, texts)
    load_model(params.paths.judges, panel, judges=params.judges)
    return panel.to(device).eval()


def load_held_out(params: Params) -> HeldOut:
    """The test split's videos and the sounds of all systems, cut to the token grid."""
    audio, folder = params.audio, Path(params.paths.samples)
    rows = ready_clips(params.paths.ledger, "test")
    clips = read_clips(rows, params)
    waveforms = {"ground_truth": clips.waveform}
    for system in SYSTEMS:
        waveforms[system] = np.stack(
            [
                read_audio(
                    folder / system / f"{row.clip_id}.flac",
                    sample_rate=audio.sample_rate,
                    num_samples=audio.num_samples,
                )
                for row in tqdm(rows, desc=f"reading {system}", disable=None)
            ]
        )
    return HeldOut(
        rows=rows,
        waveforms=waveforms,
        log_mels={system: log_mels(waves, params) for system, waves in waveforms.items()},
        sync_frames=torch.from_numpy(clips.sync_frames),
        semantic_frames=torch.from_numpy(clips.semantic_frames),
        seconds_per_clip=read_json(folder / "sample_time_s.json"),
        sample_rate=audio.sample_rate,
        duration_s=audio.token_duration_s,
    )
