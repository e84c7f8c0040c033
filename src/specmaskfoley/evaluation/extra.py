"""Scores besides those of the panel, for every system of a comparison; see `judges.extra`.

Shape letters: n clips, D width of what a network makes of a sound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from specmaskfoley.evaluation.agreement import Found
from specmaskfoley.evaluation.comparison import ComparedFiles, Comparison
from specmaskfoley.evaluation.judging import whole
from specmaskfoley.evaluation.scoring import JudgedTake
from specmaskfoley.judges.extra import Extra
from specmaskfoley.judges.panel import to_numpy
from specmaskfoley.lineage import kept_key
from specmaskfoley.media.clips import stream_media
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import sha256
from specmaskfoley.storage.scratch import pool
from specmaskfoley.storage.store import Store
from specmaskfoley.systems import TRUE
from specmaskfoley.weights.loading import find_weights
from specmaskfoley.weights.records import recorded


def with_extra(
    comparison: Comparison, files: ComparedFiles, judge: Extra, words: Mapping[str, str], params: Params
) -> Comparison:
    """The comparison with the scores of one more judge.

    Args:
        words: clip -> what is heard in it.
    """
    clips = comparison.agreement.clips
    texts = [words.get(clip, "") for clip in clips]
    folders: dict[str, Sequence[Found]] = {TRUE: [files.reference], **files.systems}
    paths = {system: [[take.files[clip] for clip in clips] for take in takes] for system, takes in folders.items()}
    heard = _listen(judge, [path for takes in paths.values() for take in takes for path in take], params)

    def scored(take: JudgedTake, sounds: Sequence[Path]) -> JudgedTake:
        found = judge.scores(np.stack([heard[path] for path in sounds]), texts)
        known = {name: values for name, values in found.items() if not np.isnan(values).all()}
        return replace(take, per_clip={**take.per_clip, **known})

    takes = {
        system: [scored(take, sounds) for take, sounds in zip(comparison.takes[system], paths[system], strict=True)]
        for system in comparison.takes
    }
    return replace(comparison, takes=takes)


def _listen(judge: Extra, sounds: Sequence[Path], params: Params) -> dict[Path, np.ndarray]:
    """(D,) of each sound; results are kept by the content of the files, as those of the panel are."""
    names = {path: f"heard {sha256(path)[:32]}" for path in dict.fromkeys(sounds)}
    records = [recorded(find_weights(name, params)) for name in judge.weights]
    settings = [params.audio, [record.sha256 for record in records if record is not None]]
    with (
        pool("judged", kept_key([type(judge), _listen], settings, params, judge.trained)) as folder,
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        Store(folder / "features.sqlite") as store,
    ):
        known = store.known(names.values())
        todo = [path for path, name in names.items() if name not in known]
        device = next(judge.parameters()).device
        size, title = judge.batch_size, f"{type(judge).__name__} listening"
        if todo:
            for batch in stream_media(
                todo, sounds=(judge.sound,), batch_size=size, workers=params.run.workers, title=title
            ):
                rows = to_numpy(judge.hear(whole(batch.waves[judge.sound], size).to(device)))
                store.put({names[path]: {"heard": row} for path, row in zip(todo[batch.rows], rows, strict=False)})
        return {path: store[name]["heard"] for path, name in names.items()}
