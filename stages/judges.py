"""Stage judges: training clips in; tagger, audio embedder, audio-video embedder and offset classifier out."""

from specmaskfoley import tracking
from specmaskfoley.config import Params
from specmaskfoley.evaluation.panel import Panel
from specmaskfoley.loading import load_audio_visual
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.storage.scratch import scratch
from specmaskfoley.training.judges import judge_objectives
from specmaskfoley.training.loop import fit


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    matters = [params.seed, params.judges, params.audio, params.video, params.encoders.max_clips, params.run.precision]
    with (
        scratch("judges", matters, [params.paths.ledger, params.paths.clips]) as folder,
        tracking.stage_run("judges", params) as log,
    ):
        train = load_audio_visual(params, "train")
        valid = load_audio_visual(params, "val", train.texts)
        panel = Panel(params, train.texts).to(device)
        for number, (name, (objective, optim)) in enumerate(
            judge_objectives(panel, train, valid, params, device).items()
        ):
            seed = params.seed + 1000 + number  # never the seeds of the generator's own encoders
            history = fit(objective, len(train), optim, seed=seed, name=name, scratch=folder, log=log)
            write_curves(params.paths.metrics, f"judge_{name}", history.curves)
        save_model(params.paths.judges, panel, judges=params.judges, texts=list(train.texts))


if __name__ == "__main__":
    stage_main(main)()
