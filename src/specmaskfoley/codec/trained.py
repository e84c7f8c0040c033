"""The generator's networks at the sizes of params.yaml: new, or with the weights that earlier stages trained."""

from __future__ import annotations

import torch

from specmaskfoley.codec.network import Codec
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import Described, load_model


def load_codec(params: Params, device: torch.device) -> Codec:
    codec = Codec(params.codec)
    load_model(params.paths.codec, codec, **codec_description(params))
    return codec.to(device).eval()


def codec_description(params: Params) -> dict[str, Described]:
    """Everything that a codec's weights fit; kept in its file and compared when it is loaded."""
    return {"codec": params.codec, "mel": params.audio.mel, "num_mels": params.audio.num_mels}
