"""The codec that stage `codec` made."""

from __future__ import annotations

import torch

from specmaskfoley.codec.network import Codec
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import Described, load_model


def load_codec(params: Params, device: torch.device) -> Codec:
    """The codec with its weights, for use.

    Raises:
        ValueError: its file is missing, or was made with other settings.
    """
    codec = Codec(params.codec)
    load_model(params.paths.codec, codec, **codec_description(params))
    return codec.to(device).eval()


def codec_description(params: Params) -> dict[str, Described]:
    """Everything that a codec's weights fit; kept in its file and compared when it is loaded."""
    return {"codec": params.codec, "mel": params.audio.mel, "num_mels": params.audio.num_mels}
