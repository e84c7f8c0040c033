"""Stage judges: training clips in; tagger, audio, audio-video embedder and offset classifier out, if trained here."""

import own_code
from torch import nn

from specmaskfoley.encoders.data import load_audio_visual
from specmaskfoley.judges.mini_panel import MiniPanel
from specmaskfoley.judges.objectives import JUDGES, judge_objectives
from specmaskfoley.settings import MiniJudges, Params
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.training.batches import InMemory
from specmaskfoley.training.session import session


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    for name in JUDGES:  # official judges have no curve and nothing to save; DVC wants the files all the same
        write_curves(params.paths.metrics, f"judge_{name}", {})
    if isinstance(params.judges, MiniJudges):
        train_judges(params.judges, params)
    else:
        save_model(params.paths.judges, nn.Module(), judges=params.judges)


def train_judges(judges: MiniJudges, params: Params) -> None:
    with session("judges", params) as here:
        train = load_audio_visual(params, "train")
        valid = load_audio_visual(params, "val", train.texts)
        panel = MiniPanel(params, judges, train.texts).to(here.device)
        objectives = judge_objectives(panel, train, valid, judges, here.device, params.run.precision)
        for number, (name, (objective, optim)) in enumerate(objectives.items()):
            seed = params.seed + 1000 + number  # never the seeds of the generator's own encoders
            history = here.fit(objective, InMemory(train.ids), optim, name=f"judge_{name}", seed=seed)
            write_curves(params.paths.metrics, f"judge_{name}", history.curves)
        save_model(params.paths.judges, panel, judges=judges, texts=list(train.texts))


if __name__ == "__main__":
    own_code.run(main)
