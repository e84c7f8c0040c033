"""The evaluation networks, and how systems are compared."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from specmaskfoley.settings.base import Fraction, Positive, PositiveFloat, Settings
from specmaskfoley.settings.run import Training


class MiniJudges(Settings):
    """Small evaluation networks, trained apart from the generator's own encoders."""

    kind: Literal["mini"]
    width: Positive
    sync_window_s: PositiveFloat
    sync_max_offset_s: PositiveFloat
    sync_classes: Positive
    train_tagger: Training
    train_audio: Training
    train_audio_video: Training
    train_sync: Training

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sync_max_offset_s >= self.sync_window_s:
            raise ValueError(
                f"sync_max_offset_s={self.sync_max_offset_s} must be below sync_window_s={self.sync_window_s}: "
                "a window shifted by more has nothing left to compare"
            )
        if self.sync_classes < 3 or self.sync_classes % 2 == 0:
            raise ValueError(f"sync_classes={self.sync_classes} must be odd and at least 3, so that 0 s is a class")
        return self


class OfficialWeights(Settings):
    weights: str


class PaperJudges(Settings):
    """The paper's judges: PaSST (FD, KL), VGGish (FAD), ImageBind (IB score), Synchformer (DeSync)."""

    kind: Literal["paper"]
    passt: OfficialWeights
    vggish: OfficialWeights
    imagebind: OfficialWeights
    synchformer: OfficialWeights


Judges = Annotated[MiniJudges | PaperJudges, Field(discriminator="kind")]


class Evaluate(Settings):
    """How systems are compared.

    `seeds` is the number of takes of every test clip, by the sampling seeds seed, seed + 1, ...; `min_coverage` the
    share of the test clips that must have a usable sound in every system.
    """

    seeds: Positive
    resamples: Annotated[int, Field(ge=0)]
    min_coverage: Fraction
    onset_tolerance_s: PositiveFloat
    pictures: Annotated[int, Field(ge=0)]
