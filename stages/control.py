"""Stage control: tokens, features and the frozen backbone in, ControlNet branch out."""

import own_code

from specmaskfoley.backbone.data import load_token_clips, token_rows
from specmaskfoley.backbone.trained import load_backbone
from specmaskfoley.control.objective import ControlObjective
from specmaskfoley.control.trained import build_control, control_description
from specmaskfoley.sampling.listening import Listener
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.training.session import session


def main(params_file: str = "params.yaml", dry_run: bool = False) -> None:
    params = Params.load(params_file)
    settings = params.train_control
    with session("control", params, spread=True, dry_run=dry_run) as here:
        backbone = load_backbone(params, here.device)
        control, valid = build_control(backbone, params).to(here.device), load_token_clips(params, "val", video=True)
        objective = ControlObjective(
            backbone,
            control,
            valid,
            prompt_dropout=settings.prompt_dropout,
            label_smoothing=settings.label_smoothing,
            device=here.device,
            precision=params.run.precision,
        )
        listener = Listener(params, here, backbone, control, valid, every=settings.listen_every)
        rows = token_rows(params, "train", video=True)
        history = here.fit(objective, rows, settings.optim, name="control", listen=listener)
        if here.leads:
            save_model(params.paths.control, control, **control_description(params))
            write_curves(params.paths.metrics, "control", history.curves)


if __name__ == "__main__":
    own_code.run(main)
