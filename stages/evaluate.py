"""Stage evaluate: sounds of every system and the judges in; metrics/evaluate.json and spectrogram pictures out."""

from pathlib import Path

import torch

from specmaskfoley import pictures, tracking
from specmaskfoley.audio.mel import MelSpectrogram
from specmaskfoley.config import Params
from specmaskfoley.evaluation.compare import compare_systems
from specmaskfoley.evaluation.loading import load_held_out, load_panel
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.clips import read_media
from specmaskfoley.storage.files import write_json

SHOWN = ("ground_truth", "specmaskfoley", "backbone_text")


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    metrics, mel = Path(params.paths.metrics), MelSpectrogram(params.audio)
    with tracking.stage_run("evaluate", params) as log:
        test = load_held_out(params)
        scores = compare_systems(load_panel(params, device), test, params.evaluate, params.seed)
        write_json(metrics / "evaluate.json", scores)
        log.summary(scores)
        for index, row in enumerate(test.rows[: params.evaluate.pictures]):
            waves = read_media([test.files[name][index] for name in SHOWN], sounds=(test.sound,)).waves[test.sound]
            pictures.spectrogram_pair(
                metrics / "pictures" / f"{row.clip_id}.png",
                dict(zip(SHOWN, mel(torch.from_numpy(waves)).numpy(), strict=True)),
                row.events or (),
                params.audio.token_duration_s,
                f"{row.label} ({row.clip_id})",
            )


if __name__ == "__main__":
    stage_main(main)()
