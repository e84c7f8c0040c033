"""Stage backbone: tokens and prompts of clips and sounds in, backbone out; or an official one, taken as it is."""

import own_code

from specmaskfoley.backbone.data import load_token_clips, token_rows
from specmaskfoley.backbone.objective import BackboneObjective
from specmaskfoley.backbone.role import Backbone
from specmaskfoley.backbone.trained import backbone_description, build_backbone
from specmaskfoley.sampling.listening import Listener
from specmaskfoley.settings import Params, TrainMasked
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.training.loop import Curves
from specmaskfoley.training.session import session
from specmaskfoley.weights.loading import load_weights


def main(params_file: str = "params.yaml", dry_run: bool = False) -> None:
    params = Params.load(params_file)
    if params.train_backbone is not None:
        train_backbone(params.train_backbone, params, dry_run)
    if params.backbone.weights is not None:
        backbone = build_backbone(params)
        backbone.load_official(*load_weights(params.backbone.weights, params))
        save(backbone, {}, params)


def train_backbone(settings: TrainMasked, params: Params, dry_run: bool) -> None:
    with session("backbone", params, spread=True, dry_run=dry_run) as here:
        backbone, valid = build_backbone(params).to(here.device), load_token_clips(params, "val", video=False)
        objective = BackboneObjective(
            backbone,
            valid,
            prompt_dropout=settings.prompt_dropout,
            label_smoothing=settings.label_smoothing,
            device=here.device,
            precision=params.run.precision,
        )
        listener = Listener(params, here, backbone, None, valid, every=settings.listen_every)
        rows = token_rows(params, "train", video=False)
        history = here.fit(objective, rows, settings.optim, name="backbone", listen=listener)
        if here.leads:
            save(backbone, history.curves, params)


def save(backbone: Backbone, curves: Curves, params: Params) -> None:
    save_model(params.paths.backbone, backbone, **backbone_description(params))
    write_curves(params.paths.metrics, "backbone", curves)


if __name__ == "__main__":
    own_code.run(main)
