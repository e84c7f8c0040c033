"""Stage control: tokens, features and the frozen backbone in, ControlNet branch out."""

import own_code  # noqa: F401

from specmaskfoley import tracking
from specmaskfoley.config import Params
from specmaskfoley.loading import load_token_clips
from specmaskfoley.networks import build_control, control_description, load_backbone
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.storage.scratch import scratch
from specmaskfoley.training.loop import fit
from specmaskfoley.training.masked import ControlObjective


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    settings = params.train_control
    matters = [params.seed, params.control, settings, params.run.precision]
    inputs = [params.paths.tokens, params.paths.features, params.paths.backbone]
    with scratch("control", matters, inputs) as folder, tracking.stage_run("control", params) as log:
        train = load_token_clips(params, "train", video=True)
        backbone = load_backbone(params, device)
        objective = ControlObjective(
            backbone,
            build_control(backbone, params).to(device),
            train,
            load_token_clips(params, "val", video=True),
            prompt_dropout=settings.prompt_dropout,
            device=device,
            precision=params.run.precision,
        )
        history = fit(objective, train.ids, settings.optim, seed=params.seed, name="control", scratch=folder, log=log)
        save_model(params.paths.control, objective.control, **control_description(params))
        write_curves(params.paths.metrics, "control", history.curves)


if __name__ == "__main__":
    stage_main(main)()
