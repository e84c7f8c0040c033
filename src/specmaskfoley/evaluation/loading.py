"""The test split and the sounds of all systems, from the files that earlier stages wrote."""

from __future__ import annotations

from pathlib import Path

from specmaskfoley.evaluation.agreement import Found
from specmaskfoley.evaluation.comparison import ComparedFiles
from specmaskfoley.evaluation.subsets import vggsounder_clips
from specmaskfoley.settings import Params
from specmaskfoley.storage.tables import LedgerRow, ready_clips
from specmaskfoley.systems import OURS, generated, take_folder, takes_of


def load_compared_files(params: Params) -> ComparedFiles:
    """The test split's videos and the sounds of all systems, in all their takes."""
    rows = ready_clips(params.paths.usable, "test")
    videos = Found({row.clip_id: Path(row.path) for row in rows}, {})
    systems = {
        system: [_take(params, system, take, rows) for take in takes_of(system, params)] for system in generated(params)
    }
    return ComparedFiles(
        reference=videos,
        videos=videos,
        systems=systems,
        shortest_s=0.0,  # stage prepare has found them long enough
        events={row.clip_id: row.events for row in rows},
        events_until_s=params.audio.token_duration_s,
        shuffled=OURS,
    )


def subsets(params: Params) -> dict[str, frozenset[str]]:
    """Parts of the test split that are scored on their own: of VGGSound, the clips that suit video to audio."""
    if params.data.lists != "mmaudio":
        return {}
    labels = {row.clip_id: row.label for row in ready_clips(params.paths.usable, "test")}
    return {"vggsounder": vggsounder_clips(labels)}


def _take(params: Params, system: str, take: int, rows: list[LedgerRow]) -> Found:
    folder = take_folder(params, system, take)
    paths = {row.clip_id: folder / f"{row.clip_id}.flac" for row in rows}
    return Found({clip: path for clip, path in paths.items() if path.exists()}, {})
