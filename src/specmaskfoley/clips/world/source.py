"""Source `world`: clips of the procedural world, rendered into `paths.clips`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specmaskfoley.clips.listing import clip_row
from specmaskfoley.clips.world import render_clip
from specmaskfoley.lineage import kept_key
from specmaskfoley.media.writing import write_video
from specmaskfoley.processes.isolation import parallel_map
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import read_json, write_json
from specmaskfoley.storage.scratch import scratch


@dataclass(frozen=True, kw_only=True)
class _Order:
    """One clip to render; all that a worker needs to know."""

    directory: Path
    seed: int
    split: str
    index: int
    duration_s: float
    fps: int
    sample_rate: int

    @property
    def clip_id(self) -> str:
        return f"{self.split}-{self.index:05d}"


def list_clips(params: Params) -> list[dict[str, Any]]:
    """Render every clip; a killed run keeps the finished ones for the next."""
    world = params.world
    counts = {"train": world.train_clips, "val": world.val_clips, "test": world.test_clips}
    # Not the counts: a larger world keeps the clips of an interrupted smaller one.
    settings = [params.seed, world.fps, params.audio.duration_s, params.audio.sample_rate]
    clips = Path(params.paths.clips)
    with scratch("clips", kept_key([_render], settings, params)) as work:
        orders = [
            _Order(
                directory=work,
                seed=params.seed,
                split=split,
                index=index,
                duration_s=params.audio.duration_s,
                fps=world.fps,
                sample_rate=params.audio.sample_rate,
            )
            for split, count in counts.items()
            for index in range(count)
        ]
        results = parallel_map(_render, orders, workers=params.run.workers, title="rendering")
        _keep_only(work / "clips", {f"{order.clip_id}.mp4" for order in orders})
        if clips.exists():
            shutil.rmtree(clips)
        clips.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(work / "clips", clips)
    return [
        clip_row(
            order.clip_id,
            clips / f"{order.clip_id}.mp4",
            rendered["label"],
            order.split,
            "world",
            events=rendered["events"],
        )
        for order, rendered in zip(orders, results, strict=True)
    ]


def _render(order: _Order) -> dict[str, Any]:
    video = order.directory / "clips" / f"{order.clip_id}.mp4"
    take_path = order.directory / "takes" / f"{order.clip_id}.json"
    if not (video.exists() and take_path.exists()):
        clip = render_clip(
            seed=order.seed,
            split=order.split,
            index=order.index,
            duration_s=order.duration_s,
            fps=order.fps,
            sample_rate=order.sample_rate,
        )
        write_video(video, clip.frames, clip.fps, clip.waveform, clip.sample_rate)
        write_json(take_path, {"label": clip.label, "events": [float(event) for event in clip.events]})
    take: dict[str, Any] = read_json(take_path)
    return take


def _keep_only(directory: Path, names: set[str]) -> None:
    for path in directory.iterdir():
        if path.name not in names:
            path.unlink()
