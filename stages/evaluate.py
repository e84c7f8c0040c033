"""Stage evaluate: sounds of every system and the judges in; scores of systems and clips, and spectrograms out."""

from pathlib import Path

import own_code
import torch

from specmaskfoley import tracking
from specmaskfoley.device import announce, start
from specmaskfoley.evaluation.comparison import compare_systems
from specmaskfoley.evaluation.judging import judging
from specmaskfoley.evaluation.loading import load_compared_files, subsets
from specmaskfoley.judges.trained import load_panel
from specmaskfoley.media.clips import model_sound, read_media
from specmaskfoley.media.mel import MelSpectrogram, decibels
from specmaskfoley.metrics import METRICS
from specmaskfoley.report import pictures
from specmaskfoley.report.results import SCORES_SCHEMA, write_evaluation
from specmaskfoley.settings import Params
from specmaskfoley.storage.files import write_json
from specmaskfoley.storage.tables import ready_clips, write_table
from specmaskfoley.systems import OURS, SYSTEMS, TRUE, generated, label_of, take_folder


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    announce(device, "float32")
    metrics, rows = Path(params.paths.metrics), ready_clips(params.paths.usable, "test")
    with (
        tracking.stage_run("evaluate", params) as log,
        judging(load_panel(params, device), params) as judge,
    ):
        comparison = compare_systems(judge, load_compared_files(params), params.evaluate, params.seed)
        scores = comparison.scores()
        intervals = comparison.intervals(params.evaluate.resamples, params.seed)
        found = {name: comparison.subset(clips) for name, clips in subsets(params).items()}
        of = {"profile": params.profile, "judges": params.judges.kind}
        clips = comparison.summary() | of | {"subsets": {name: part for name, part in found.items() if part}}
        write_evaluation(metrics, scores, intervals, clips)
        for name in SYSTEMS.keys() - scores.keys():  # that this profile cannot have; DVC wants the files all the same
            write_json(metrics / "systems" / f"{name}.json", {})
        write_json(metrics / "scores.json", scores[OURS])
        labels = {row.clip_id: row.label for row in rows}
        write_table(Path(params.paths.evaluation) / "clips.parquet", comparison.per_clip(labels), SCORES_SCHEMA)
        log.summary(scores[OURS])
        log.text("".join(f"{metric.name}: {metric.heading}, {metric.about}\n" for metric in METRICS), "metrics.txt")
        draw(params, comparison.agreement.clips)


def draw(params: Params, clips: tuple[str, ...]) -> None:
    """Spectrograms of the first scored clips by every system."""
    sound, mel, systems = model_sound(params), MelSpectrogram(params.audio), generated(params)
    scored = [row for row in ready_clips(params.paths.usable, "test") if row.clip_id in set(clips)]
    for row in scored[: params.evaluate.pictures]:
        files = [row.path, *(take_folder(params, name, 0) / f"{row.clip_id}.flac" for name in systems)]
        waves = read_media(files, sounds=(sound,)).waves[sound]
        levels = decibels(mel, mel(torch.from_numpy(waves))).numpy()
        pictures.spectrograms(
            Path(params.paths.metrics) / "pictures" / f"{row.clip_id}.png",
            dict(zip(map(label_of, (TRUE, *systems)), levels, strict=True)),
            row.events or (),
            params.audio.token_duration_s,
            f"{row.label} ({row.clip_id})",
        )


if __name__ == "__main__":
    own_code.run(main)
