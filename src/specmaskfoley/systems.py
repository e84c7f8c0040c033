"""Sounds for every test clip by each system that the evaluation compares."""

from __future__ import annotations

from pathlib import Path

from specmaskfoley.settings import GuidanceMode, Params, Sampling

SYSTEMS = ("specmaskfoley", "backbone_text", "backbone_audio", "codec_roundtrip")
"""specmaskfoley: cfg.mode; backbone_text, backbone_audio: no video; codec_roundtrip: the true tokens, decoded."""

_MODES: dict[str, GuidanceMode] = {"backbone_text": "text", "backbone_audio": "audio"}


def takes_of(system: str, params: Params) -> range:
    """Takes of every clip by a system, one a sampling seed; decoding true tokens draws nothing."""
    return range(1 if system == "codec_roundtrip" else params.evaluate.seeds)


def sampling_of(system: str, take: int, params: Params) -> Sampling:
    """How a system's take is drawn: take n with the seed params.seed + n."""
    return params.sampling.changed(seed=params.seed + take, mode=_MODES.get(system, params.cfg.mode))


def take_folder(params: Params, system: str, take: int) -> Path:
    """Where the sounds of a take lie, `<clip_id>.flac`."""
    return Path(params.paths.samples) / f"take-{take}" / system
