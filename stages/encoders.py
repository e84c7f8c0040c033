"""Stage encoders: training clips in; sync, semantic and prompt encoders out."""

from pathlib import Path

from specmaskfoley import tracking
from specmaskfoley.config import Params
from specmaskfoley.encoders import build_prompt, build_semantic, build_sync, encoder_description
from specmaskfoley.loading import load_audio_visual
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.storage.scratch import scratch
from specmaskfoley.training.encoders import PromptObjective, SemanticObjective, SyncObjective
from specmaskfoley.training.loop import fit


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    settings, precision = params.encoders, params.run.precision
    matters = [params.seed, settings, params.audio, params.video, precision]
    with (
        scratch("encoders", matters, [params.paths.ledger, params.paths.clips]) as folder,
        tracking.stage_run("encoders", params) as log,
    ):
        train = load_audio_visual(params, "train")
        valid = load_audio_visual(params, "val", train.texts)
        sync, semantic, prompt = (build(params).to(device) for build in (build_sync, build_semantic, build_prompt))
        jobs = [
            ("sync", SyncObjective(sync, train, valid, device, precision), settings.train_sync),
            (
                "semantic",
                SemanticObjective(semantic, train, valid, device, precision),
                settings.train_semantic,
            ),
            (
                "prompt",
                PromptObjective(prompt, train, valid, device, precision),
                settings.train_prompt,
            ),
        ]
        for name, objective, optim in jobs:
            history = fit(objective, len(train), optim, seed=params.seed, name=name, scratch=folder, log=log)
            save_model(
                Path(params.paths.encoders) / f"{name}.safetensors",
                objective.modules,
                **encoder_description(params, name),
            )
            write_curves(params.paths.metrics, f"encoder_{name}", history.curves)


if __name__ == "__main__":
    stage_main(main)()
