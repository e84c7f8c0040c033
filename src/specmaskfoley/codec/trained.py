"""The codec that params.yaml names: new, as stage `codec` made it, and as a tokenizer."""

from __future__ import annotations

from pkgutil import resolve_name

import torch

from specmaskfoley.codec.mel import MelReader, MelTokenizer
from specmaskfoley.codec.role import CodecNetwork, Reader, Tokenizer
from specmaskfoley.codec.wave import WaveReader, WaveTokenizer
from specmaskfoley.settings import Params
from specmaskfoley.storage.checkpoint import Described, load_model

KINDS = {
    "specvqgan": "specmaskfoley.codec.specvqgan.network:SpecVQGAN",
    "encodec": "specmaskfoley.codec.encodec.network:EncodecNetwork",
}
"""codec.kind -> what fills the role; only that one is imported."""


def build_codec(params: Params) -> CodecNetwork:
    """A new codec of the sizes in params.yaml."""
    built: CodecNetwork = resolve_name(KINDS[params.codec.kind])(params.codec)
    return built


def load_codec(params: Params, device: torch.device) -> CodecNetwork:
    """The codec with its weights, for use.

    Raises:
        ValueError: its file is missing, or was made with other settings.
    """
    codec = build_codec(params)
    load_model(params.paths.codec, codec, **codec_description(params))
    return codec.to(device).eval()


def load_reader(params: Params, device: torch.device) -> Reader:
    """What makes tokens of sound, and needs no vocoder."""
    codec = load_codec(params, device)
    return MelReader(codec, params, device) if params.codec.mel else WaveReader(codec, device)


def load_tokenizer(params: Params, device: torch.device, *, trained: bool = True) -> Tokenizer:
    """
    Args:
        trained: False takes new networks of the profile's sizes, whose sound is noise: to measure time and memory.
    """
    codec = load_codec(params, device) if trained else build_codec(params).to(device).eval()
    return MelTokenizer(codec, params, device, trained=trained) if params.codec.mel else WaveTokenizer(codec, device)


def codec_description(params: Params) -> dict[str, Described]:
    """Everything that a codec's weights fit; kept in its file and compared when it is loaded."""
    return {"codec": params.codec, "mel": params.audio.mel, "num_mels": params.audio.num_mels}
