"""Sounds for every test clip by each system that the evaluation compares."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from specmaskfoley.config import GuidanceMode, Params
from specmaskfoley.generator import Generator, clip_seed
from specmaskfoley.storage.tables import read_arrays

SYSTEMS = ("specmaskfoley", "backbone_text", "backbone_audio", "codec_roundtrip")
"""specmaskfoley: cfg.mode; backbone_text, backbone_audio: no video; codec_roundtrip: the true tokens, decoded."""

_MODES: dict[str, GuidanceMode] = {"backbone_text": "text", "backbone_audio": "audio"}


def takes_of(system: str, params: Params) -> range:
    """Takes of every clip by a system, one a sampling seed; decoding true tokens draws nothing."""
    return range(1 if system == "codec_roundtrip" else params.evaluate.seeds)


def take_folder(params: Params, system: str, take: int) -> Path:
    """Where the sounds of a take lie, `<clip_id>.flac`."""
    return Path(params.paths.samples) / f"take-{take}" / system


@dataclass(frozen=True)
class Sounds:
    """A batch of one system: tokens (n, F, T) int64, waveform (n, samples); seconds of sampling and vocoding."""

    ids: list[str]
    tokens: Tensor
    waveform: Tensor
    seconds: float


def synthesise(generator: Generator, system: str, take: int, params: Params) -> Iterator[Sounds]:
    """Batches of the test split in the order of the shards; take n is drawn with the seed params.seed + n."""
    ids, features = read_arrays(params.paths.features, "test")
    true = read_arrays(params.paths.tokens, "test")[1]["tokens"]
    size = params.sample.batch_size
    for first in tqdm(range(0, len(ids), size), desc=f"{system}, take {take}", unit="batch"):
        rows = slice(first, first + size)
        begin = time.perf_counter()
        if system == "codec_roundtrip":
            tokens = torch.from_numpy(true[rows].astype(np.int64))
        else:
            mode = _MODES.get(system, params.cfg.mode)
            prompt = features["audio_prompt" if mode == "audio" else "text_prompt"][rows]
            tokens = generator.tokens(
                prompt=_float(prompt),
                sync=_float(features["sync"][rows]),
                semantic=_float(features["semantic"][rows]),
                seeds=[clip_seed(params.seed + take, clip_id) for clip_id in ids[rows]],
                mode=mode,
            ).cpu()
        waveform = generator.decode(tokens)
        yield Sounds(ids[rows], tokens, waveform, time.perf_counter() - begin)


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
