"""What the active profile needs: downloads and their licences, what is computed, what is stored."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from specmaskfoley.clips.folder import list_clips
from specmaskfoley.clips.listing import few_tests
from specmaskfoley.clips.searching import VIDEOS, files_below
from specmaskfoley.clips.sounds import find_sounds
from specmaskfoley.clips.vggsound import load_lists, shared_videos
from specmaskfoley.commands.estimate import Network, count_networks
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import show_size
from specmaskfoley.storage.tables import LISTED, SPLITS
from specmaskfoley.systems import generated, takes_of
from specmaskfoley.weights.lock import WeightFile, locked, read_lock

_HALF, _SINGLE, _TOKEN = 2, 4, 2
"""Bytes of a feature, a weight and a token on disk."""

_SAMPLE_BYTES = 1.2
"""A FLAC sample, roughly."""


_VGGSOUND = {"train": 182_000, "val": 2_000, "test": 15_000}
"""Clips of MMAudio's lists, roughly."""

_CLIP_BYTES = {"youtube": 2_200_000, "archive": 1_600_000}
"""A fetched clip, roughly: ten seconds at 360 lines; the archive's own files."""

_PARTS, _PART_BYTES = 20, 16_000_000_000
"""Of the archive, roughly."""


@dataclass(frozen=True)
class _Machine:
    """What is assumed to do the work: operations a second, what that is, and what the estimate leaves out."""

    name: str
    flops: float
    told: str
    left_out: str


_GPU = _Machine(
    "one GPU", 60e12, "60 TFLOP/s in bfloat16, about a third of an RTX 4090's peak",  # docs/scale.md assumes the same
    "sampling, judges and waiting for the disk not counted",
)  # fmt: skip
_CPU = _Machine(  # by the times in docs/results.md
    "a CPU", 0.06e12, "0.06 TFLOP/s in float32, two cores of a server",
    "all other stages together take about half as long again",
)  # fmt: skip

_ENCODER_FLOPS = {"synchformer": 10.9e12, "dfn5b_clip": 49.1e12, "clap": 0.033e12}
"""Operations of the official encoders on a clip of 10 s (python benchmarks/extractors.py)."""

_NEAR = 0.1
"""How far estimated numbers of clips may be off."""


@dataclass(frozen=True)
class _Clips:
    """Clips by split; where the numbers come from; how many are to be fetched."""

    counts: Mapping[str, int]
    summary: str
    fetched: int = 0


def plan(params: Params) -> Iterator[str]:
    """Lines for the terminal."""
    clips = _clips(params)
    yield f"profile {params.profile}, data.source {params.data.source}: {clips.summary}"
    if told := few_tests(clips.counts["test"]):
        yield told
    if params.data.source in _CLIP_BYTES:
        yield ""
        yield from _fetched(params, clips.fetched)
    if params.data.audio:
        yield ""
        yield from _sounds(params)
    yield ""
    yield from _downloads(params)
    yield ""
    networks = count_networks(params)
    machine = _GPU if params.needed_weights() else _CPU  # profiles without official networks are for a CPU
    yield from _computed(params, clips.counts, networks, machine)
    yield ""
    yield from _stored(params, clips.counts, networks)


def _fetched(params: Params, clips: int) -> Iterator[str]:
    source, fetch = params.data.source, params.fetch
    folder = Path(fetch.folder)
    here = sum(1 for _ in folder.glob("clips/*/*.mp4"))
    yield f"fetched into {folder} (sizes are estimates; dvc repro does it, a killed run goes on where it stopped):"
    each = _CLIP_BYTES[source]
    yield f"  {clips} clips of about {show_size(each)}: {show_size(clips * each)}; {here} clips are here"
    if source == "archive":
        parts = _parts(params)
        yield (
            f"  transferred: up to {parts} of {_PARTS} parts of about {show_size(_PART_BYTES)}, "
            f"{show_size(parts * _PART_BYTES)}; keep about {show_size(_PART_BYTES)} free for the part at hand"
        )
    else:
        hours = clips * fetch.interval_s / fetch.workers / 3600
        yield (
            f"  fetch.interval_s={fetch.interval_s:g} and fetch.workers={fetch.workers} alone take {hours:.1f} h; "
            "clips that are no longer on YouTube take no space"
        )


def _sounds(params: Params) -> Iterator[str]:
    audio = params.audio
    sounds = find_sounds(params.data.audio)
    held = sum(path.stat().st_size for path in sounds.values() if path.exists())
    each = _TOKEN * params.grid.size + _HALF * math.prod(params.encoders.prompt.shape)
    yield f"sounds without picture (data.audio): {len(sounds)} files of {show_size(held)}, read where they lie"
    ledger = Path(params.paths.audio_ledger)
    known = _known(ledger, "audio")
    if known is None:
        yield (
            f"  stored: {show_size(each)} for every {audio.duration_s:g} s, at least {show_size(len(sounds) * each)} "
            "if all are usable; a long sound gives several"
        )
    else:
        ready = known["train", "ready"]
        yield (
            f"  {ready} usable parts of {audio.duration_s:g} s among {known.total()} rows of {ledger}: tokens and "
            f"prompts {show_size(ready * each)}"
        )


def _downloads(params: Params) -> Iterator[str]:
    names, lock = params.needed_weights(), read_lock()
    if not names:
        yield "weights downloaded: nothing; every network is trained here"
        return
    yield "weights downloaded (dvc repro does it, or: specmaskfoley weights fetch):"
    missing = []
    for name in names:
        entry = locked(name, lock)
        here = (Path(params.weights.folder) / entry.file).exists()
        missing += [] if here else [entry.size]
        yield f"  {name:30} {show_size(entry.size):>10}  {'here' if here else 'missing':8} {_licence(entry)}"
    unstated = f" and {missing.count(None)} files of unstated size" if None in missing else ""
    yield f"  still to download: {show_size(sum(size or 0 for size in missing))}{unstated}"


def _computed(
    params: Params, clips: Mapping[str, int], networks: Mapping[str, Network], machine: _Machine
) -> Iterator[str]:
    """Operations, time and memory: of the official encoders and the trainings."""
    yield (
        f"computed on {machine.name} (an estimate: operations counted by torch, at an assumed {machine.told}; "
        f"{machine.left_out}):"
    )
    total = 0.0
    roles = (params.encoders.sync, params.encoders.semantic, params.encoders.prompt)
    each = params.video_duration_s / 10 * sum(_ENCODER_FLOPS.get(role.kind, 0.0) for role in roles)
    if each:
        total += (flops := each * sum(clips.values()))
        yield f"  encoders  {sum(clips.values())} clips x {each / 1e12:.1f} TFLOP: {_time(flops, machine)}"
    for name, network in networks.items():
        if network.recipe is not None:
            total += network.flops
            yield (
                f"  {name:9} {network.recipe.steps} steps x {network.recipe.batch_size} clips x "
                f"{network.clip_flops / 1e12:.3g} TFLOP: {_time(network.flops, machine)}"
            )
    yield f"  together  {_time(total, machine)}"
    half = params.run.precision in ("bfloat16", "float16") or (params.run.precision == "auto" and machine is _GPU)
    needs = {}
    for name, network in networks.items():
        if network.recipe is not None:
            at_once = params.run.micro_batch or network.recipe.batch_size
            needs[name] = (*network.memory(min(at_once, network.recipe.batch_size), half=half), network.recipe)
    name, (fixed, activations, recipe) = max(needs.items(), key=lambda item: sum(item[1][:2]))
    yield (
        f"  memory of the largest training step ({name}): weights, gradients and Adam {show_size(fixed)}, activations "
        f"of {min(params.run.micro_batch or recipe.batch_size, recipe.batch_size)} clips {show_size(activations)}; "
        "run.micro_batch lowers the latter"
    )


def _time(flops: float, machine: _Machine) -> str:
    hours = flops / machine.flops / 3600
    return f"{flops:.1e} operations, " + (f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min")


def _stored(params: Params, clips: Mapping[str, int], networks: Mapping[str, Network]) -> Iterator[str]:
    grid, encoders, num_sync = params.grid, params.encoders, len(params.sync_features_s)
    prompts = (2 if encoders.prompt.hears else 1, *encoders.prompt.shape)
    widths = num_sync * encoders.sync.width + params.num_semantic_frames * encoders.semantic.width
    features = _HALF * (widths + math.prod(prompts)) + _SINGLE * encoders.semantic.width  # and their mean
    tokens = _TOKEN * grid.size
    total = 0.0
    yield "computed and stored:"
    yield (
        f"  a clip: sync {num_sync} x {encoders.sync.width}, semantic {params.num_semantic_frames} x "
        f"{encoders.semantic.width}, prompts {' x '.join(map(str, prompts))} ({show_size(features)}), "
        f"tokens {grid.rows} x {grid.columns} ({show_size(tokens)})"
    )
    count = sum(clips.values())
    systems = generated(params)
    takes = sum(len(takes_of(system, params)) for system in systems)
    flac = clips["test"] * takes * params.audio.num_samples * _SAMPLE_BYTES
    total += count * (features + tokens) + flac
    yield f"  {count} clips: features {show_size(count * features)}, tokens {show_size(count * tokens)}"
    yield f"  {clips['test']} test clips in {takes} takes by {len(systems)} systems: {show_size(flac)} of FLAC"
    for name, network in networks.items():
        recipe, size = network.recipe, _SINGLE * network.parameters
        how = f"{recipe.steps} steps of batch {recipe.batch_size}" if recipe else "official, not trained"
        kept = f"; checkpoints {show_size(network.checkpoint_bytes)}" if recipe else ""
        total += size + network.checkpoint_bytes
        yield f"  {name:9} {network.parameters / 1e6:8.1f} M parameters, {show_size(size)}: {how}{kept}"
    lock = read_lock()
    weights = sum(locked(name, lock).size or 0 for name in params.needed_weights())
    yield f"  together with official weights ({show_size(weights)}), without videos: {show_size(total + weights)}"


def _clips(params: Params) -> _Clips:
    if params.data.source == "world":
        world = params.world
        found = {"train": world.train_clips, "val": world.val_clips, "test": world.test_clips}
        return _Clips(found, f"{_splits(found)} clips to render")
    wanted, estimated = _wanted(params) if params.data.listed else (None, False)
    about = "about " if estimated else ""
    videos = f"; {_videos(params)}" if params.data.source == "folder" else ""
    stale = ""
    for table, state in ((params.paths.ledger, "ready"), (params.paths.clip_list, LISTED)):
        known = _known(Path(table), params.data.source)
        if known is None:
            continue
        total = {split: sum(count for (one, _), count in known.items() if one == split) for split in SPLITS}
        if wanted is not None and not _near(total, wanted, _NEAR if estimated else 0.0):
            stale = stale or f" ({table} is of another choice: {_splits(total)})"
            continue
        found = {split: known[split, state] for split in SPLITS}
        which = "usable" if state == "ready" else "listed"
        fetched = sum(count for (_, state), count in known.items() if state != "duplicate")
        return _Clips(found, f"{_splits(found)} {which} clips of {sum(total.values())} by {table}", fetched)
    if wanted is None:
        listed = Counter(row["split"] for row in list_clips(params) if row["state"] == LISTED)
        found = {split: listed[split] for split in SPLITS}
        return _Clips(found, f"{_splits(found)} clips; {_videos(params)}")
    return _Clips(wanted, f"{about}{_splits(wanted)} clips wanted{stale}{videos}", sum(wanted.values()))


def _wanted(params: Params) -> tuple[dict[str, int], bool]:
    """Clips that data.lists, data.limit and data.exclude_shared ask for, by split, and whether that is an estimate."""
    data = params.data
    limits = {split: data.limit_of(split) for split in SPLITS}
    if data.lists == "mmaudio":  # its lists are not fetched for a plan
        share = _parts(params) / _PARTS if data.source == "archive" else 1.0
        there = {split: round(count * share) for split, count in _VGGSOUND.items()}
        wanted = {split: min(limit or there[split], there[split]) for split, limit in limits.items()}
        return wanted, wanted != limits
    lists = load_lists(params)
    there = {split: len(clips) for split, clips in lists.items()}
    if limits["train"] is not None and data.exclude_shared:  # a limit passes over them
        held_out = shared_videos(lists)
        there["train"] = sum(clip.youtube_id not in held_out for clip in lists["train"])
    wanted = {split: min(limit or there[split], there[split]) for split, limit in limits.items()}
    return wanted, data.source == "archive"  # which may not hold all of them


def _known(path: Path, source: str) -> Counter[tuple[str, str]] | None:
    """Clips by split and state of an earlier run from this kind of source, if there was one."""
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, columns=["split", "state", "source"])
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a table of clips: {str(error).splitlines()[0]}; run dvc repro") from None
    kin = set(_CLIP_BYTES) if source in _CLIP_BYTES else {source}
    if not kin & set(table.column("source").unique().to_pylist()):
        return None
    groups = table.group_by(["split", "state"]).aggregate([([], "count_all")]).to_pylist()
    return Counter({(row["split"], row["state"]): row["count_all"] for row in groups})


def _near(found: Mapping[str, int], wanted: Mapping[str, int], tolerance: float) -> bool:
    return all(abs(found[split] - count) <= tolerance * count for split, count in wanted.items())


def _parts(params: Params) -> int:
    return _PARTS if params.fetch.parts is None else len(params.fetch.parts)


def _videos(params: Params) -> str:
    folder = Path(params.data.folder or "")
    return f"{len(files_below(folder, VIDEOS))} videos in {folder}"


def _splits(clips: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in clips.items())


def _licence(entry: WeightFile) -> str:
    return f"{entry.licence}; NOT for commercial use" if entry.commercial == "forbidden" else entry.licence
