"""What inspection asks of a clip in tests, and rows of the clip list."""

from __future__ import annotations

from types import SimpleNamespace

from specmaskfoley.storage.tables import LISTED

DURATION_S = 2.0


class Demanded(SimpleNamespace):
    """What inspection reads of Params; unlike these it can be changed."""

    def model_dump(self, mode):
        return {}


def settings():
    return Demanded(
        audio=SimpleNamespace(duration_s=DURATION_S),
        prepare=SimpleNamespace(
            min_duration_s=1.0, silence_db=-60.0, padding="hold", clip_timeout_s=20.0, clip_memory_gb=2.0
        ),
        run=SimpleNamespace(workers=2),
    )


def row(path, **columns):
    clip = {"clip_id": path.name, "path": str(path), "label": "dog", "split": "train", "events": None}
    return {**clip, "source": "folder", "state": LISTED, "reason": "", "tried_at": None, "tries": None, **columns}
