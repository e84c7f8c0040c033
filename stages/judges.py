"""Stage judges: training clips in; tagger, audio, audio-video embedder and offset classifier out, if trained here."""

import own_code  # noqa: F401
import torch
from torch import nn

from specmaskfoley import tracking
from specmaskfoley.config import MiniJudges, Params
from specmaskfoley.evaluation.mini_panel import MiniPanel
from specmaskfoley.loading import load_audio_visual
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.storage.scratch import scratch
from specmaskfoley.training.judges import JUDGES, judge_objectives
from specmaskfoley.training.loop import fit


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    for name in JUDGES:  # official judges have no curve and nothing to save; DVC wants the files all the same
        write_curves(params.paths.metrics, f"judge_{name}", {})
    if isinstance(params.judges, MiniJudges):
        train_judges(params.judges, params, device)
    else:
        save_model(params.paths.judges, nn.Module(), judges=params.judges)


def train_judges(judges: MiniJudges, params: Params, device: torch.device) -> None:
    matters = [params.seed, judges, params.audio, params.video, params.encoders.max_clips, params.run.precision]
    with (
        scratch("judges", matters, [params.paths.usable, params.paths.clips]) as folder,
        tracking.stage_run("judges", params) as log,
    ):
        train = load_audio_visual(params, "train")
        valid = load_audio_visual(params, "val", train.texts)
        panel = MiniPanel(params, judges, train.texts).to(device)
        objectives = judge_objectives(panel, train, valid, judges, device, params.run.precision)
        for number, (name, (objective, optim)) in enumerate(objectives.items()):
            seed = params.seed + 1000 + number  # never the seeds of the generator's own encoders
            history = fit(objective, train.ids, optim, seed=seed, name=name, scratch=folder, log=log)
            write_curves(params.paths.metrics, f"judge_{name}", history.curves)
        save_model(params.paths.judges, panel, judges=judges, texts=list(train.texts))


if __name__ == "__main__":
    stage_main(main)()
