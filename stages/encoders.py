"""Stage encoders: training clips in; those of the sync, semantic and prompt encoders out that are trained here."""

from pathlib import Path

import own_code

from specmaskfoley.encoders.data import load_audio_visual
from specmaskfoley.encoders.objectives import encoder_objectives
from specmaskfoley.encoders.trained import ROLES, encoder_description, encoder_file
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.training.batches import InMemory
from specmaskfoley.training.session import session


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    Path(params.paths.encoders).mkdir(parents=True, exist_ok=True)
    for role in ROLES:  # official encoders have no curve; DVC wants the file all the same
        write_curves(params.paths.metrics, f"encoder_{role}", {})
    if params.encoders.any_trained:
        train_encoders(params)


def train_encoders(params: Params) -> None:
    with session("encoders", params) as here:
        train = load_audio_visual(params, "train")
        valid = load_audio_visual(params, "val", train.texts)
        for role, (objective, optim) in encoder_objectives(params, train, valid, here.device).items():
            history = here.fit(objective, InMemory(train.ids), optim, name=f"encoder_{role}")
            save_model(encoder_file(params, role), objective.modules, **encoder_description(params, role))
            write_curves(params.paths.metrics, f"encoder_{role}", history.curves)


if __name__ == "__main__":
    own_code.run(main)
