"""Stage evaluate: sounds of every system and the judges in; metrics/evaluate.json and spectrogram pictures out."""

from pathlib import Path

from specmaskfoley import pictures, tracking
from specmaskfoley.config import Params
from specmaskfoley.evaluation.compare import compare_systems
from specmaskfoley.evaluation.loading import load_held_out, load_panel
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.files import write_json


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    metrics = Path(params.paths.metrics)
    with tracking.stage_run("evaluate", params) as log:
        test = load_held_out(params)
        scores = compare_systems(load_panel(params, device), test, params.evaluate, params.seed)
        write_json(metrics / "evaluate.json", scores)
        log.summary(scores)
        for index in range(min(params.evaluate.pictures, len(test.rows))):
            row = test.rows[index]
            pictures.spectrogram_pair(
                metrics / "pictures" / f"{row.clip_id}.png",
                {
                    name: test.log_mels[name][index].numpy()
                    for name in ("ground_truth", "specmaskfoley", "backbone_text")
                },
                row.events or (),
                params.audio.token_duration_s,
                f"{row.label} ({row.clip_id})",
            )


if __name__ == "__main__":
    stage_main(main)()
