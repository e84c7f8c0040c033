"""Stage codec: training clips' mels in, SpecVQGAN-style tokenizer out."""

from pathlib import Path

from specmaskfoley import tracking
from specmaskfoley.audio.mel import normalize
from specmaskfoley.config import Params
from specmaskfoley.encoders import load_encoders
from specmaskfoley.loading import load_log_mels
from specmaskfoley.models.codec import Codec
from specmaskfoley.networks import codec_description
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.storage.scratch import scratch
from specmaskfoley.training.codec import CodecObjective
from specmaskfoley.training.loop import fit


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    settings = params.train_codec
    matters = [params.seed, params.codec, settings, params.audio, params.run.precision]
    inputs = [params.paths.ledger, params.paths.clips, Path(params.paths.encoders) / "prompt.safetensors"]
    with scratch("codec", matters, inputs) as folder, tracking.stage_run("codec", params) as log:
        train = normalize(load_log_mels(params, "train"))
        objective = CodecObjective(
            Codec(params.codec).to(device),
            settings,
            train,
            normalize(load_log_mels(params, "val")),
            patch=params.audio.patch,
            device=device,
            precision=params.run.precision,
            listener=load_encoders(params, device)[2] if settings.perceptual_weight else None,
        )
        history = fit(objective, len(train), settings.optim, seed=params.seed, name="codec", scratch=folder, log=log)
        save_model(params.paths.codec, objective.codec, **codec_description(params))
        write_curves(params.paths.metrics, "codec", history.curves)


if __name__ == "__main__":
    stage_main(main)()
