"""Every vocoder by its name, and the one that params.yaml names, with its weights."""

from __future__ import annotations

from pkgutil import resolve_name

from torch import nn

from specmaskfoley.settings import GriffinLim, NeuralVocoder, Params
from specmaskfoley.weights.loading import load_weights

VOCODERS = {
    "griffin_lim": "specmaskfoley.vocoders.griffin_lim:GriffinLim",
    "hifigan": "specmaskfoley.vocoders.hifigan:HiFiGAN",
    "bigvgan": "specmaskfoley.vocoders.bigvgan:BigVGAN",
    "melgan": "specmaskfoley.vocoders.melgan:MelGAN",
}
"""vocoder.kind -> what fills the role; only that one is imported."""


def build_vocoder(options: GriffinLim | NeuralVocoder, params: Params) -> nn.Module:
    """The vocoder that `vocoder.kind` names, mel (B, M, L) -> waveform (B, N); a network comes without its weights.

    That it reads the mel that `audio` describes is checked with the settings, see settings.VOCODER_MELS.
    """
    vocoder = resolve_name(VOCODERS[options.kind])
    built: nn.Module = vocoder(params.audio, options) if isinstance(options, GriffinLim) else vocoder()
    return built


def load_vocoder(options: GriffinLim | NeuralVocoder, params: Params) -> nn.Module:
    """What turns the codec's mel into sound; official ones with their weights."""
    vocoder = build_vocoder(options, params)
    if isinstance(options, NeuralVocoder):
        vocoder.load_official(*load_weights(options.weights, params))  # type: ignore[operator]
    return vocoder
