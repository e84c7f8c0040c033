"""What running the active profile will take: downloads and their licences, what is computed, what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from specmaskfoley.config import Params, Synchformer
from specmaskfoley.encoders.synchformer import SynchformerEncoder
from specmaskfoley.models.codec import Codec
from specmaskfoley.networks import build_backbone, build_control
from specmaskfoley.sources.folder import SUFFIXES
from specmaskfoley.storage.tables import SPLITS, ready_clips
from specmaskfoley.synthesis import SYSTEMS
from specmaskfoley.weights.lock import WeightFile, locked, read_lock

_HALF, _SINGLE, _TOKEN = 2, 4, 2
"""Bytes of a feature, a weight and a token on disk."""

_SAMPLE_BYTES = 1.2
"""A FLAC sample, roughly."""


def plan(params: Params) -> Iterator[str]:
    """Lines for the terminal."""
    clips, source = _clips(params)
    yield f"profile {params.profile}, data.source {params.data.source}: {source}"
    yield ""
    yield from _downloads(params)
    yield ""
    yield from _stored(params, clips)


def _downloads(params: Params) -> Iterator[str]:
    names, lock = params.needed_weights(), read_lock()
    if not names:
        yield "downloaded: nothing; every network is trained here"
        return
    yield "downloaded (dvc repro does it, or: specmaskfoley weights fetch):"
    missing = []
    for name in names:
        entry = locked(name, lock)
        here = (Path(params.weights.folder) / entry.file).exists()
        missing += [] if here else [entry.size]
        yield f"  {name:30} {_size(entry.size):>10}  {'here' if here else 'missing':8} {_licence(entry)}"
    unstated = f" and {missing.count(None)} files of unstated size" if None in missing else ""
    yield f"  still to download: {_size(sum(size or 0 for size in missing))}{unstated}"


def _stored(params: Params, clips: dict[str, int] | None) -> Iterator[str]:
    audio, encoders, frames = params.audio, params.encoders, params.num_sync_frames
    num_sync = SynchformerEncoder.num_features(frames) if isinstance(encoders.sync, Synchformer) else frames
    widths = num_sync * encoders.sync.width + params.num_semantic_frames * encoders.semantic.width
    features = _HALF * (widths + 2 * encoders.prompt.width)
    tokens = _TOKEN * audio.token_rows * audio.token_columns
    yield "computed and stored:"
    yield (
        f"  a clip: sync {num_sync} x {encoders.sync.width}, semantic {params.num_semantic_frames} x "
        f"{encoders.semantic.width}, prompts 2 x {encoders.prompt.width} ({_size(features)}), "
        f"tokens {audio.token_rows} x {audio.token_columns} ({_size(tokens)})"
    )
    if clips is not None:
        total = sum(clips.values())
        samples = clips["test"] * len(SYSTEMS) * audio.num_samples * _SAMPLE_BYTES
        yield f"  {total} clips: features {_size(total * features)}, tokens {_size(total * tokens)}"
        yield f"  {clips['test']} test clips by {len(SYSTEMS)} systems: about {_size(int(samples))} of FLAC"
    with torch.device("meta"):
        backbone = build_backbone(params)
        networks = {"codec": Codec(params.codec), "backbone": backbone, "control": build_control(backbone, params)}
    recipes = {"codec": params.train_codec, "backbone": params.train_backbone, "control": params.train_control}
    for name, network in networks.items():
        count, recipe = sum(parameter.numel() for parameter in network.parameters()), recipes[name]
        how = f"{recipe.optim.steps} steps of batch {recipe.optim.batch_size}" if recipe else "official, not trained"
        yield f"  {name:9} {count / 1e6:8.1f} M parameters, {_size(count * _SINGLE)}: {how}"


def _clips(params: Params) -> tuple[dict[str, int] | None, str]:
    """Clips by split if they can be known now, and where the number comes from."""
    if params.data.source == "world":
        world = params.world
        found = {"train": world.train_clips, "val": world.val_clips, "test": world.test_clips}
        return found, f"{_splits(found)} clips to render"
    ledger = Path(params.paths.ledger)
    rows = ready_clips(ledger) if ledger.exists() else []
    if rows and rows[0].source == params.data.source:
        found = {split: sum(row.split == split for row in rows) for split in SPLITS}
        return found, f"{_splits(found)} usable clips by {ledger}"
    folder = Path(params.data.folder or "")
    count = sum(path.suffix.lower() in SUFFIXES for path in folder.rglob("*"))
    return None, f"{count} videos in {folder}; the split is known after stage clips"


def _splits(clips: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in clips.items())


def _licence(entry: WeightFile) -> str:
    return f"{entry.licence}; NOT for commercial use" if entry.commercial == "forbidden" else entry.licence


def _size(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return "unstated"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""
