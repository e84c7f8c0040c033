"""Stage codec: training clips' mels in, SpecVQGAN-style tokenizer out; or an official one, taken as it is."""

import own_code  # noqa: F401
import torch

from specmaskfoley import tracking
from specmaskfoley.audio.mel import build_mel
from specmaskfoley.config import Params, TrainCodec
from specmaskfoley.encoders import load_prompt
from specmaskfoley.loading import load_mels
from specmaskfoley.models.codec import Codec
from specmaskfoley.networks import codec_description
from specmaskfoley.runtime import stage_main, start
from specmaskfoley.storage.checkpoint import save_model
from specmaskfoley.storage.curves import write_curves
from specmaskfoley.storage.scratch import scratch
from specmaskfoley.training.codec import CodecObjective
from specmaskfoley.training.loop import Curves, fit
from specmaskfoley.weights.loading import load_weights


def main(params_file: str = "params.yaml") -> None:
    params = Params.load(params_file)
    device = start(params)
    if params.train_codec is not None:
        train_codec(params.train_codec, params, device)
    if params.codec.weights is not None:
        codec = Codec(params.codec)
        codec.load_official(*load_weights(params.codec.weights, params))
        save(codec, {}, params)


def train_codec(settings: TrainCodec, params: Params, device: torch.device) -> None:
    matters = [params.seed, params.codec, settings, params.audio, params.run.precision]
    inputs = [params.paths.usable, params.paths.clips, params.paths.encoders]
    with scratch("codec", matters, inputs) as folder, tracking.stage_run("codec", params) as log:
        normalize = build_mel(params.audio).normalize
        clips, train = load_mels(params, "train")
        objective = CodecObjective(
            Codec(params.codec).to(device),
            settings,
            normalize(train),
            normalize(load_mels(params, "val")[1]),
            patch=params.audio.patch,
            device=device,
            precision=params.run.precision,
            listener=load_prompt(params).to(device).eval() if settings.perceptual_weight else None,
        )
        history = fit(objective, clips, settings.optim, seed=params.seed, name="codec", scratch=folder, log=log)
        save(objective.codec, history.curves, params)


def save(codec: Codec, curves: Curves, params: Params) -> None:
    save_model(params.paths.codec, codec, **codec_description(params))
    write_curves(params.paths.metrics, "codec", curves)


if __name__ == "__main__":
    stage_main(main)()
