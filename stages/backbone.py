"""Stage backbone: tokens and audio prompts in, SpecMaskGIT backbone out."""

import own_code  # noqa: F401

from specmaskfoley import tracking
from specmaskfoley.config import Params
from specmaskfoley.loading import load_token_clips
from specmaskfoley.networks import backbone_description, build_backbone
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.storage.scratch import scratch
from specmaskfoley.training.loop import fit
from specmaskfoley.training.masked import BackboneObjective


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    settings = params.train_backbone
    matters = [params.seed, params.backbone, settings, params.run.precision]
    inputs = [params.paths.tokens, params.paths.features]
    with scratch("backbone", matters, inputs) as folder, tracking.stage_run("backbone", params) as log:
        train = load_token_clips(params, "train", video=False)
        objective = BackboneObjective(
            build_backbone(params).to(device),
            train,
            load_token_clips(params, "val", video=False),
            prompt_dropout=settings.prompt_dropout,
            device=device,
            precision=params.run.precision,
        )
        history = fit(objective, train.ids, settings.optim, seed=params.seed, name="backbone", scratch=folder, log=log)
        save_model(params.paths.backbone, objective.backbone, **backbone_description(params))
        write_curves(params.paths.metrics, "backbone", history.curves)


if __name__ == "__main__":
    stage_main(main)()
