"""The generator's networks at the sizes of params.yaml: new, or with the weights that earlier stages trained."""

from __future__ import annotations

import torch
from torch import nn

from specmaskfoley.settings import NeuralVocoder, Params
from specmaskfoley.vocoders.vocoder import GriffinLim, build_vocoder
from specmaskfoley.weights.loading import load_weights


def load_vocoder(params: Params, device: torch.device) -> nn.Module:
    """What turns the codec's mel into sound; official ones with their weights."""
    vocoder = build_vocoder(params.audio, params.vocoder)
    if not isinstance(vocoder, GriffinLim) and isinstance(params.vocoder, NeuralVocoder):
        vocoder.load_official(*load_weights(params.vocoder.weights, params))
    return vocoder.to(device).eval()
