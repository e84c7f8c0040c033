"""The generator's networks at the sizes of params.yaml: new, or with the weights that earlier stages trained."""

from __future__ import annotations

import torch
from torch import nn

from specmaskfoley.audio.vocoder import GriffinLim, build_vocoder
from specmaskfoley.config import NeuralVocoder, Params
from specmaskfoley.models.backbone import Backbone
from specmaskfoley.models.codec import Codec
from specmaskfoley.models.control import ControlBranch
from specmaskfoley.storage.checkpoint import Described, load_model
from specmaskfoley.weights.loading import load_weights


def build_backbone(params: Params) -> Backbone:
    """A new backbone of the sizes in params.yaml."""
    return Backbone(
        params.backbone,
        codebook_size=params.codec.codebook_size,
        num_tokens=params.audio.token_rows * params.audio.token_columns,
        prompt_width=params.encoders.prompt.width,
    )


def build_control(backbone: Backbone, params: Params) -> ControlBranch:
    """A new control branch: a copy of the backbone's first blocks that changes nothing yet."""
    return ControlBranch(
        backbone,
        params.control,
        sync_width=params.encoders.sync.width,
        semantic_width=params.encoders.semantic.width,
        token_rows=params.audio.token_rows,
        token_columns=params.audio.token_columns,
    )


def load_codec(params: Params, device: torch.device) -> Codec:
    codec = Codec(params.codec)
    load_model(params.paths.codec, codec, **codec_description(params))
    return codec.to(device).eval()


def load_backbone(params: Params, device: torch.device) -> Backbone:
    backbone = build_backbone(params)
    load_model(params.paths.backbone, backbone, **backbone_description(params))
    return backbone.to(device).eval()


def load_control(backbone: Backbone, params: Params, device: torch.device) -> ControlBranch:
    control = build_control(backbone, params)
    load_model(params.paths.control, control, **control_description(params))
    return control.to(device).eval()


def load_vocoder(params: Params, device: torch.device) -> nn.Module:
    """What turns the codec's mel into sound; official ones with their weights."""
    vocoder = build_vocoder(params.audio, params.vocoder)
    if not isinstance(vocoder, GriffinLim) and isinstance(params.vocoder, NeuralVocoder):
        vocoder.load_official(*load_weights(params.vocoder.weights, params))
    return vocoder.to(device).eval()


def codec_description(params: Params) -> dict[str, Described]:
    """Everything that a codec's weights fit; kept in its file and compared when it is loaded."""
    return {"codec": params.codec, "mel": params.audio.mel, "num_mels": params.audio.num_mels}


def backbone_description(params: Params) -> dict[str, Described]:
    """Everything that a backbone's weights fit."""
    return {
        "backbone": params.backbone,
        "codebook_size": params.codec.codebook_size,
        "token_rows": params.audio.token_rows,
        "token_columns": params.audio.token_columns,
        "prompt_width": params.encoders.prompt.width,
    }


def control_description(params: Params) -> dict[str, Described]:
    """Everything that a control branch's weights fit."""
    return {
        "control": params.control,
        "sync_width": params.encoders.sync.width,
        "semantic_width": params.encoders.semantic.width,
        **backbone_description(params),
    }
