"""Source `world`: clips of the procedural world, rendered into `paths.clips`."""

from __future__ import annotations

import shutil
from functools import partial
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


def list_clips(params: Params) -> list[dict[str, Any]]:
    """Render every clip; the run after a killed one keeps the clips that were finished."""
    world, audio = params.world, params.audio
    counts = {"train": world.train_clips, "val": world.val_clips, "test": world.test_clips}
    places = [(split, index) for split, count in counts.items() for index in range(count)]
    same = {"seed": params.seed, "duration_s": audio.duration_s, "fps": world.fps, "sample_rate": audio.sample_rate}
    clips = Path(params.paths.clips)
    # The key leaves out the counts: a larger world keeps the clips of an interrupted smaller one.
    with scratch("clips", kept_key([_render], same, params)) as work:
        facts = parallel_map(partial(_render, work, same), places, workers=params.run.workers, title="rendering")
        _keep_only(work / "clips", {f"{_clip_id(*place)}.mp4" for place in places})
        if clips.exists():
            shutil.rmtree(clips)
        clips.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(work / "clips", clips)
    rows = []
    for (split, index), found in zip(places, facts, strict=True):
        clip_id = _clip_id(split, index)
        path = clips / f"{clip_id}.mp4"
        rows.append(clip_row(clip_id, path, found["label"], split, "world", events=found["events"]))
    return rows


def _render(folder: Path, same: dict[str, Any], place: tuple[str, int]) -> dict[str, Any]:
    """Label and events of one clip, which lies in `folder` afterwards; `same` are `render_clip`'s other arguments."""
    split, index = place
    video = folder / "clips" / f"{_clip_id(split, index)}.mp4"
    facts = folder / "facts" / f"{_clip_id(split, index)}.json"
    if not (video.exists() and facts.exists()):
        clip = render_clip(split=split, index=index, **same)
        write_video(video, clip.frames, clip.fps, clip.waveform, clip.sample_rate)
        write_json(facts, {"label": clip.label, "events": [float(event) for event in clip.events]})
    found: dict[str, Any] = read_json(facts)
    return found


def _clip_id(split: str, index: int) -> str:
    return f"{split}-{index:05d}"


def _keep_only(directory: Path, names: set[str]) -> None:
    for path in directory.iterdir():
        if path.name not in names:
            path.unlink()
