"""The networks of the generator: codec, backbone, control branch, vocoder."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from specmaskfoley.settings.base import Fraction, NonNegative, Positive, Settings
from specmaskfoley.settings.run import Training


class Codec(Settings):
    """SpecVQGAN-style tokenizer; `stem` folds stem x stem mel pixels into channels before the first level.

    With `weights` it is an official one (whose mel is audio.mel=specvqgan), otherwise the pipeline trains it.
    """

    weights: str | None = None
    codebook_size: Positive
    code_width: Positive
    stem: Positive
    channels: Positive
    channel_mults: tuple[Positive, ...]
    encoder_blocks: Positive
    decoder_blocks: Positive
    attention: bool


class TrainCodec(Settings):
    optim: Training
    crop_columns: Positive
    quantize_after: Annotated[int, Field(ge=0)]
    commitment_weight: NonNegative
    squared_weight: NonNegative
    adversarial_weight: NonNegative
    adversarial_after: Annotated[int, Field(ge=0)]
    codebook_decay: Fraction
    dead_code_threshold: NonNegative

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.quantize_after >= self.optim.steps:
            raise ValueError(
                f"quantize_after={self.quantize_after} leaves none of optim.steps={self.optim.steps} to the codebook"
            )
        return self


class Backbone(Settings):
    """SpecMaskGIT: a bidirectional Transformer over F x T tokens."""

    depth: Positive
    width: Positive
    heads: Positive
    mlp_width: Positive

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self


class TrainMasked(Settings):
    """Mask reconstruction, by the backbone or its control branch; every `listen_every` steps (0: never) it is heard.

    `label_smoothing` is the share of each target that is spread evenly over all codes, in the training loss alone.
    """

    optim: Training
    prompt_dropout: Fraction
    label_smoothing: Fraction = 0.0
    listen_every: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.listen_every % self.optim.validate_every:
            raise ValueError(
                f"listen_every={self.listen_every} must be a multiple of optim.validate_every="
                f"{self.optim.validate_every}: a network is heard after it is validated"
            )
        return self


class Control(Settings):
    """ControlNet branch: how many backbone blocks it copies, and the FT-Aligner's hidden width."""

    depth: Positive
    aligner_mlp_width: Positive


class GriffinLim(Settings):
    """Phase reconstruction; reads any mel."""

    kind: Literal["griffin_lim"]
    iterations: Positive
    momentum: Fraction


class NeuralVocoder(Settings):
    """An official vocoder; each kind reads one mel recipe."""

    kind: Literal["hifigan", "bigvgan", "melgan"]
    weights: str


Vocoder = Annotated[GriffinLim | NeuralVocoder, Field(discriminator="kind")]
