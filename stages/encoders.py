"""Stage encoders: training clips in; those of the sync, semantic and prompt encoders out that are trained here."""

from pathlib import Path

import own_code  # noqa: F401
import torch

from specmaskfoley import tracking
from specmaskfoley.config import Params
from specmaskfoley.encoders import ROLES, encoder_description, encoder_file
from specmaskfoley.loading import load_audio_visual
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.storage.scratch import scratch
from specmaskfoley.training.encoders import encoder_objectives
from specmaskfoley.training.loop import fit


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    Path(params.paths.encoders).mkdir(parents=True, exist_ok=True)
    for role in ROLES:  # official encoders have no curve; DVC wants the file all the same
        write_curves(params.paths.metrics, f"encoder_{role}", {})
    if params.encoders.any_trained:
        train_encoders(params, device)


def train_encoders(params: Params, device: torch.device) -> None:
    matters = [params.seed, params.encoders, params.audio, params.video, params.run.precision]
    with (
        scratch("encoders", matters, [params.paths.usable, params.paths.clips]) as folder,
        tracking.stage_run("encoders", params) as log,
    ):
        train = load_audio_visual(params, "train")
        valid = load_audio_visual(params, "val", train.texts)
        for role, (objective, optim) in encoder_objectives(params, train, valid, device).items():
            history = fit(objective, train.ids, optim, seed=params.seed, name=role, scratch=folder, log=log)
            save_model(encoder_file(params, role), objective.modules, **encoder_description(params, role))
            write_curves(params.paths.metrics, f"encoder_{role}", history.curves)


if __name__ == "__main__":
    stage_main(main)()
