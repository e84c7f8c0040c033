"""Stage codec: training clips' mels in, tokenizer (SpecVQGAN or EnCodec) out; or an official one, taken as it is."""

import own_code

from specmaskfoley.codec.data import load_mels, mel_rows
from specmaskfoley.codec.objective import CodecObjective
from specmaskfoley.codec.role import CodecNetwork
from specmaskfoley.codec.trained import build_codec, codec_description
from specmaskfoley.settings import Params, TrainCodec
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.training.loop import Curves
from specmaskfoley.training.session import session
from specmaskfoley.weights.loading import load_weights


def main(params_file: str = "params.yaml", dry_run: bool = False) -> None:
    params = Params.load(params_file)
    if params.train_codec is not None:
        train_codec(params.train_codec, params, dry_run)
    if params.codec.weights is not None:
        codec = build_codec(params)
        codec.load_official(*load_weights(params.codec.weights, params))
        save(codec, {}, params)


def train_codec(settings: TrainCodec, params: Params, dry_run: bool) -> None:
    with session("codec", params, spread=True, dry_run=dry_run) as here:
        with here.accelerator.main_process_first():  # which reads the mels
            rows = mel_rows(params, "train", here.folder)
        objective = CodecObjective(
            build_codec(params).to(here.device),
            settings,
            rows,
            load_mels(params, "val"),
            column=params.grid.step // params.audio.hop_length,
            device=here.device,
            precision=params.run.precision,
        )
        history = here.fit(objective, rows, settings.optim, name="codec")
        if here.leads:
            save(objective.codec, history.curves, params)


def save(codec: CodecNetwork, curves: Curves, params: Params) -> None:
    save_model(params.paths.codec, codec, **codec_description(params))
    write_curves(params.paths.metrics, "codec", curves)


if __name__ == "__main__":
    own_code.run(main)
