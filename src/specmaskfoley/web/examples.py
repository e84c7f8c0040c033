"""Videos for who has none at hand: a click, and there is something to hear."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from specmaskfoley.clips.world import LABELS, render_clip
from specmaskfoley.media.probe import probe
from specmaskfoley.media.writing import write_video
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import ready_clips
from specmaskfoley.web.pictures import write_poster
from specmaskfoley.web.studio import Upload, link

_MOST = 4
_SPLIT = "examples"
"""Of the world, beside those of the pipeline: no model was trained on these clips, and no score is of them."""


def examples(params: Params, home: Path, folder: Path) -> list[Upload]:
    """Videos of different sounds that the model knows but was not trained on; their names are the sounds.

    Rendered for a model of the procedural world, otherwise test clips of the project; none where these are not at hand.

    Args:
        home: from which the paths in `params` count.
        folder: for the files, which every user of the page may read.
    """
    folder.mkdir(parents=True)
    videos = _rendered(params, folder) if params.data.source == "world" else _test_clips(params, home, folder)
    made = []
    for label, video in videos:
        poster, info = video.with_suffix(".jpg"), probe(video)
        write_poster(poster, video, info)
        made.append(Upload(video, info, poster, label))
    return made


def _rendered(params: Params, folder: Path) -> Iterator[tuple[str, Path]]:
    for number, index in enumerate(range(0, len(LABELS), len(LABELS) // _MOST)):
        clip = render_clip(
            seed=params.seed, split=_SPLIT, index=index, duration_s=params.audio.duration_s, fps=params.world.fps,
            sample_rate=params.audio.sample_rate,
        )  # fmt: skip
        video = _path(folder, number, clip.label, ".mp4")
        write_video(video, clip.frames, clip.fps)
        yield clip.label, video


def _test_clips(params: Params, home: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    usable = home / params.paths.usable
    rows = [row for row in ready_clips(usable) if row.split == "test"] if usable.exists() else []
    first = {row.label: home / row.path for row in reversed(rows) if row.label and (home / row.path).exists()}
    for number, label in enumerate(sorted(first)[:_MOST]):
        video = _path(folder, number, label, first[label].suffix)
        link(first[label], video)
        yield label, video


def _path(folder: Path, number: int, label: str, suffix: str) -> Path:
    return folder / f"{number}-{re.sub(r'[^a-z0-9]+', '-', label.lower())[:60]}{suffix}"
