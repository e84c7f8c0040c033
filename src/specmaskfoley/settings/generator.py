"""The networks of the generator: codec, backbone, control branch, vocoder."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from specmaskfoley.settings.base import Fraction, NonNegative, Positive, Settings
from specmaskfoley.settings.media import Audio, TokenGrid
from specmaskfoley.settings.run import Training


class SpecVQGAN(Settings):
    """A tokenizer of mel-spectrograms; `stem` folds stem x stem mel pixels into channels before the first level.

    With `weights` it is an official one (whose mel is audio.mel=specvqgan), otherwise the pipeline trains it.
    """

    kind: Literal["specvqgan"]
    weights: str | None = None
    codebook_size: Positive
    code_width: Positive
    stem: Positive
    channels: Positive
    channel_mults: tuple[Positive, ...]
    encoder_blocks: Positive
    decoder_blocks: Positive
    attention: bool

    mel: ClassVar[bool] = True
    """Whether its sound is a mel, which a vocoder turns into samples."""
    bands: ClassVar[bool] = True
    """Whether token rows are bands of frequency."""

    def grid(self, audio: Audio) -> TokenGrid:
        """
        Raises:
            ValueError: its patches are others than audio.patch.
        """
        patch = self.stem * 2 ** (len(self.channel_mults) - 1)
        if patch != audio.patch:
            raise ValueError(
                f"codec.stem={self.stem} and {len(self.channel_mults)} codec.channel_mults give patches of {patch}, "
                f"but audio.patch={audio.patch}"
            )
        if audio.num_mels % patch:
            raise ValueError(f"audio.num_mels={audio.num_mels} must be a multiple of audio.patch={patch}")
        if self.weights is not None and audio.mel != "specvqgan":
            raise ValueError(
                f"codec.weights={self.weights}: the public codebook reads audio.mel=specvqgan, found {audio.mel}"
            )
        return TokenGrid(audio.num_mels // patch, audio.num_frames // patch, patch * audio.hop_length)


class Encodec(Settings):
    """A tokenizer by residual vector quantisation (Défossez et al. 2022): `codebooks` tokens a column.

    `inputs` is 1 for samples, as the official one codes them, which `weights` names; or audio.num_mels for the frames
    of a mel, of which the pipeline trains one. `strides` of the encoder's levels multiply to the samples, or frames, of
    a column.
    """

    kind: Literal["encodec"]
    weights: str | None = None
    inputs: Positive
    codebooks: Positive
    codebook_size: Positive
    code_width: Positive
    channels: Positive
    strides: Annotated[tuple[Positive, ...], Field(min_length=1)]
    lstm_layers: Annotated[int, Field(ge=0)]

    bands: ClassVar[bool] = False

    @property
    def mel(self) -> bool:
        return self.inputs > 1

    def grid(self, audio: Audio) -> TokenGrid:
        """
        Raises:
            ValueError: the clip is no whole number of columns, or not what the codec reads.
        """
        step = math.prod(self.strides)
        if self.inputs not in (1, audio.num_mels):
            raise ValueError(
                f"codec.inputs={self.inputs}: expected 1, for samples, or audio.num_mels={audio.num_mels}, for a mel"
            )
        if self.mel != (self.weights is None):
            raise ValueError(
                f"codec.inputs={self.inputs} and codec.weights={self.weights}: a codec of samples (1) is official, and "
                "needs weights; the pipeline trains one of a mel (audio.num_mels), without them"
            )
        if self.weights is not None and audio.sample_rate != ENCODEC_RATE:
            raise ValueError(
                f"codec.weights={self.weights} reads audio.sample_rate={ENCODEC_RATE}, found {audio.sample_rate}"
            )
        length, what = (audio.num_frames, "mel frames") if self.mel else (audio.num_samples, "samples")
        if length % step:
            raise ValueError(
                f"codec.strides={list(self.strides)} make columns of {step} {what}, and the {length} of a clip are no "
                "multiple of it; change audio.hop_length, audio.patch or codec.strides"
            )
        samples = step * audio.hop_length if self.mel else step
        return TokenGrid(self.codebooks, length // step, samples)


ENCODEC_RATE = 16000
"""Of the public EnCodec that audio-MAGNeT and AudioGen use."""

Codec = Annotated[SpecVQGAN | Encodec, Field(discriminator="kind")]


DISCRIMINATOR_FRAMES = 24
"""The fewest mel frames that the discriminator of `train_codec` judges."""


class TrainCodec(Settings):
    """How a codec of mels is trained."""

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


class _Transformer(Settings):
    depth: Positive
    width: Positive
    heads: Positive
    mlp_width: Positive

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self


class SpecMaskGIT(_Transformer):
    """A bidirectional Transformer over F x T tokens, which it all decides together."""

    kind: Literal["specmaskgit"]

    weights: ClassVar[None] = None  # none are published
    levels: ClassVar[int] = 1
    decides_by: ClassVar[tuple[str, ...]] = ("gumbel_temperature", "schedule")
    """The fields of `Sample` that its decoding reads, besides steps."""


class Magnet(_Transformer):
    """MAGNeT (Ziv et al. 2024): a Transformer over T columns, which decides one codebook after the other.

    `window` is how many columns apart later codebooks may look, `span` the columns that are decided together, side by
    side (`arrangement` nonoverlap) or from any column on (stride1). With `weights` it is an official one, otherwise the
    pipeline trains it.
    """

    kind: Literal["magnet"]
    weights: str | None = None
    codebooks: Positive
    window: Positive = 5
    span: Positive = 3
    arrangement: Literal["nonoverlap", "stride1"] = "nonoverlap"

    decides_by: ClassVar[tuple[str, ...]] = ("temperature", "top_p")

    @property
    def levels(self) -> int:
        return self.codebooks


Backbone = Annotated[SpecMaskGIT | Magnet, Field(discriminator="kind")]


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
    """ControlNet branch: how many backbone blocks it copies, and the FT-Aligner's hidden width.

    `alignment`: video features meet token columns by their place in the sequence (index: adaptive average pooling, as
    in the paper), or by their true time (time: linear between the two nearest).
    """

    depth: Positive
    aligner_mlp_width: Positive
    alignment: Literal["index", "time"] = "index"


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
