"""The test split, the sounds of all systems and the judges, from the files that earlier stages wrote."""

from __future__ import annotations

from pathlib import Path

import torch

from specmaskfoley.config import PaperJudges, Params
from specmaskfoley.evaluation.compare import HeldOut
from specmaskfoley.evaluation.mini_panel import MiniPanel
from specmaskfoley.evaluation.panel import Panel
from specmaskfoley.evaluation.paper_panel import PaperPanel
from specmaskfoley.storage.checkpoint import load_model, read_setting
from specmaskfoley.storage.clips import model_sound
from specmaskfoley.storage.files import read_json
from specmaskfoley.storage.tables import ready_clips
from specmaskfoley.synthesis import SYSTEMS
from specmaskfoley.weights.loading import load_weights


def load_panel(params: Params, device: torch.device) -> Panel:
    """The judges that `judges.kind` names: trained by stage `judges`, or official."""
    panel: Panel
    if isinstance(params.judges, PaperJudges):
        panel = PaperPanel(params)
        for name in ("passt", "vggish", "imagebind", "synchformer"):
            getattr(panel, name).load_official(*load_weights(getattr(params.judges, name).weights, params))
    else:
        panel = MiniPanel(params, params.judges, read_setting(params.paths.judges, "texts"))
        load_model(params.paths.judges, panel, judges=params.judges)
    return panel.to(device).eval()


def load_held_out(params: Params) -> HeldOut:
    """The test split's videos and where the sounds of all systems lie."""
    folder = Path(params.paths.samples)
    rows = ready_clips(params.paths.usable, "test")
    files = {system: [folder / system / f"{row.clip_id}.flac" for row in rows] for system in SYSTEMS}
    return HeldOut(
        rows=rows,
        files={"ground_truth": [Path(row.path) for row in rows], **files},
        seconds_per_clip=read_json(folder / "sample_time_s.json"),
        sound=model_sound(params),
        duration_s=params.audio.token_duration_s,
        workers=params.run.workers,
    )
