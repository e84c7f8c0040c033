"""A panel of judges with a memory: each file and each pair of files is judged once, results are kept by content.

Sounds and videos are read batch by batch; what grows with the number of clips are the arrays that the metrics compare.

Shape letters: n clips, C classes, D width, k stretches a clip, w DeSync windows, O offset classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specmaskfoley.device import worker_count
from specmaskfoley.evaluation.agreement import sound_facts
from specmaskfoley.judges.panel import Panel
from specmaskfoley.lineage import kept_key
from specmaskfoley.media import clips
from specmaskfoley.media.clips import model_sound, stream_media
from specmaskfoley.media.sound import SoundFacts
from specmaskfoley.metrics.judged import OF_SOUND, Listened
from specmaskfoley.metrics.onsets import detect_onsets
from specmaskfoley.processes.isolation import IsolatedPool, Lost
from specmaskfoley.settings import MiniJudges, Params
from specmaskfoley.storage.files import sha256
from specmaskfoley.storage.scratch import pool
from specmaskfoley.storage.store import Store
from specmaskfoley.weights.loading import find_weights
from specmaskfoley.weights.records import recorded

_KEPT_AT_ONCE = 64  # facts of files: every write to the disk costs milliseconds
LONGER_S = 1.0
"""Sounds are examined up to this much beyond what the judges hear."""


class Judging:
    """A panel with its memory; see `judging`.

    Args:
        judge: the panel.
        params: how onsets are heard, files read and processes bounded.
    """

    def __init__(self, judge: Panel, store: Store, params: Params) -> None:
        self.panel = judge
        self._store = store
        self._sound = model_sound(params)
        self._threads = params.run.workers
        self._processes = partial(
            IsolatedPool,
            worker_count(params),
            timeout_s=params.prepare.clip_timeout_s,
            memory_gb=params.prepare.clip_memory_gb,
        )
        self._keys: dict[Path, str] = {}

    def examine(self, sounds: Sequence[Path]) -> dict[Path, SoundFacts | Lost]:
        """Facts about every sound, or why it cannot be read; in other processes, since broken files crash decoders."""
        until_s = self.panel.duration_s + LONGER_S
        found: dict[Path, SoundFacts | Lost] = {}
        names: dict[Path, str] = {}
        for path in dict.fromkeys(sounds):
            try:
                names[path] = f"facts {self._key(path)}"
            except OSError as error:
                found[path] = Lost("missing", str(error.strerror))
        known = self._store.known(names.values())
        todo = [path for path, name in names.items() if name not in known]
        if todo:
            examined = partial(sound_facts, until_s=until_s)
            with self._processes() as processes:
                results = zip(todo, processes.map(examined, todo, title="examining sounds"), strict=True)
                while part := list(islice(results, _KEPT_AT_ONCE)):
                    found |= {path: result for path, result in part if isinstance(result, Lost)}
                    self._store.put({names[path]: asdict(facts) for path, facts in part if not isinstance(facts, Lost)})
        return found | {path: SoundFacts(**self._store[name]) for path, name in names.items() if path not in found}

    def watch(self, videos: Sequence[Path]) -> np.ndarray:
        """Show the judges every video: (n, D) of the audio-video embedder."""
        names = {path: f"seen {self._key(path)}" for path in videos}
        known = self._store.known(names.values())
        todo = [path for path in dict.fromkeys(videos) if names[path] not in known]
        for batch in self._stream(todo, "watching", views=self.panel.views):
            seen = self.panel.see({view: self._whole(frames) for view, frames in batch.frames.items()})
            rows = _rows({"joint": seen.joint, **_numbered(seen.windows)})
            self._store.put({names[path]: row for path, row in zip(todo[batch.rows], rows, strict=False)})
        return np.stack([self._store[names[path]]["joint"] for path in videos])

    def listen(self, sounds: Sequence[Path], against: Sequence[Sequence[Path]] = (), title: str = "") -> Listened:
        """Play the judges every sound; a sound that is paired with several videos is heard only once.

        Args:
            against: lists of n videos that `watch` has seen. Sound i is paired with video i of each list for `offsets`.
        """
        heard = [f"heard {self._key(path)}" for path in sounds]
        pairs = [
            [f"offset {self._key(video)} {self._key(sound)}" for video, sound in zip(videos, sounds, strict=True)]
            for videos in against
        ]
        known = self._store.known([*heard, *(name for names in pairs for name in names)])
        needed = [[name, *(names[index] for names in pairs)] for index, name in enumerate(heard)]
        todo = [index for index, names in enumerate(needed) if not known.issuperset(names)]
        wanted = (*self.panel.sounds, self._sound)
        for batch in self._stream([sounds[index] for index in todo], title or "listening", sounds=wanted):
            indices = todo[batch.rows]
            result = self.panel.hear({sound: self._whole(batch.waves[sound]) for sound in self.panel.sounds})
            rows = _rows({name: getattr(result, name) for name in OF_SOUND})[: len(indices)]
            for row, wave in zip(rows, batch.waves[self._sound], strict=True):
                row["onsets"] = detect_onsets(wave, self._sound.sample_rate)
            kept: dict[str, Mapping[str, np.ndarray]] = {
                heard[index]: row for index, row in zip(indices, rows, strict=True)
            }
            for videos, names in zip(against, pairs, strict=True):
                logits = self.panel.offsets(self._windows([videos[index] for index in indices]), result.windows)
                kept |= {names[index]: {"logits": row} for index, row in zip(indices, logits, strict=False)}
            self._store.put(kept)
        found = [self._store[name] for name in heard]
        return Listened(
            **{name: np.stack([row[name] for row in found]) for name in OF_SOUND},
            onsets=tuple(row["onsets"] for row in found),
            offsets=tuple(np.stack([self._store[name]["logits"] for name in names]) for names in pairs),
        )

    def _windows(self, videos: Sequence[Path]) -> list[np.ndarray]:
        rows = [self._store[f"seen {self._key(path)}"] for path in videos]
        return [self._whole(np.stack([row[name] for row in rows])).numpy() for name in rows[0] if name != "joint"]

    def _whole(self, array: np.ndarray) -> torch.Tensor:
        return whole(array, self.panel.batch_size)

    def _stream(self, paths: Sequence[Path], title: str, **what: Any) -> Iterator[clips.MediaBatch]:
        if paths:
            size = self.panel.batch_size
            yield from stream_media(paths, batch_size=size, workers=self._threads, title=title, **what)

    def _key(self, path: Path) -> str:
        if path not in self._keys:
            self._keys[path] = sha256(path)[:32]
        return self._keys[path]


@contextmanager
def judging(judge: Panel, params: Params) -> Iterator[Judging]:
    """The panel, with all results that an earlier run kept under the same settings, weights and code.

    Judges compute in float32; TF32, which torch allows in convolutions, would move scores by 1e-3 (relative).
    """
    if isinstance(params.judges, MiniJudges):
        weights: list[Any] = [params.audio, params.video]
        inputs = [params.paths.judges]
    else:
        names = [getattr(params.judges, role).weights for role in ("passt", "vggish", "imagebind", "synchformer")]
        records = [recorded(find_weights(name, params)) for name in dict.fromkeys(names)]
        weights = [params.audio, [record.sha256 for record in records if record is not None]]
        inputs = []
    key = kept_key([Judging, type(judge)], [params.judges, *weights], params, inputs)
    with pool("judged", key) as folder, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # noqa: SIM117
        with Store(folder / "features.sqlite") as store:
            yield Judging(judge, store, params)


def whole(array: np.ndarray, batch_size: int) -> torch.Tensor:
    """(n, ...) of a batch, filled up with its last row: a result must not depend on the size of its batch."""
    missing = batch_size - len(array)
    return torch.from_numpy(np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array)


def _rows(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Arrays (n, ...) as n rows."""
    return [dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)]


def _numbered(windows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"window{number}": window for number, window in enumerate(windows)}
