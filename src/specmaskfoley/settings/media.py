"""Sound and picture: clip length, mel-spectrogram, frame rates and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from specmaskfoley.settings.base import NonNegative, Positive, PositiveFloat, Settings

_RECIPE = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "num_mels": 80}
HIFIGAN_RECIPE = {**_RECIPE, "fmin": 0.0, "fmax": 8000.0}
SPECVQGAN_RECIPE = {**_RECIPE, "fmin": 125.0, "fmax": 7600.0}


def recipe_text(recipe: dict[str, float]) -> str:
    """A mel recipe for a message."""
    return ", ".join(f"{name} {value:g}" for name, value in recipe.items())


@dataclass(frozen=True)
class TokenGrid:
    """The tokens of a clip: `rows` (F) x `columns` (T), a column being `step` samples long.

    Rows are bands of a spectrogram, the lowest first, or codebooks, the coarsest first. Flattened, rows are slowest.
    """

    rows: int
    columns: int
    step: int

    @property
    def size(self) -> int:
        return self.rows * self.columns


class Audio(Settings):
    """Clip length and mel-spectrogram; every other length follows from these.

    `mel` is the recipe: HiFi-GAN's (natural logarithm) or that of the public SpecVQGAN codebook (decibels on 0..1).
    `normalize` is the peak to which sounds are scaled before codec and prompt encoder hear them (MMAudio: 0.95);
    None: as recorded. References of the judges stay as recorded.
    """

    mel: Literal["hifigan", "specvqgan"] = "hifigan"
    duration_s: PositiveFloat
    sample_rate: Positive
    n_fft: Positive
    hop_length: Positive
    num_mels: Positive
    fmin: NonNegative
    fmax: PositiveFloat
    patch: Positive
    normalize: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fmin >= self.fmax:
            raise ValueError(f"fmin={self.fmin} must be below fmax={self.fmax}")
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length={self.hop_length} must be at most n_fft={self.n_fft}")
        if self.fmax > self.sample_rate / 2:
            raise ValueError(f"fmax={self.fmax} is above half of sample_rate={self.sample_rate}")
        if self.num_frames < 1:
            raise ValueError(f"duration_s={self.duration_s} is shorter than one patch of {self.patch} mel frames")
        if self.mel == "specvqgan" and (found := self.recipe) != SPECVQGAN_RECIPE:
            raise ValueError(
                f"mel=specvqgan is defined for {recipe_text(SPECVQGAN_RECIPE)}; found {recipe_text(found)}"
            )
        return self

    @property
    def recipe(self) -> dict[str, float]:
        """What a network that reads or writes mels was trained for."""
        return {name: getattr(self, name) for name in SPECVQGAN_RECIPE}

    @property
    def num_frames(self) -> int:
        """Mel frames used: whole patches from the start, so that token 0 begins at 0 s (10 s: 861 frames, 848 used)."""
        return int(self.duration_s * self.sample_rate / self.hop_length) // self.patch * self.patch

    @property
    def num_samples(self) -> int:
        """Waveform samples covered by the token grid (10 s: 217,088)."""
        return self.num_frames * self.hop_length

    @property
    def token_duration_s(self) -> float:
        return self.num_samples / self.sample_rate


Fit = Literal["stretch", "clip", "crop"]
"""How a picture becomes a square.

stretch: stretched while decoding (swscale bicubic); the cheapest, and no official extractor's own.
clip: stretched, as MMAudio does for CLIP.
crop: short side to the size, then the central square, as MMAudio does for Synchformer.
All but stretch: torchvision's antialiased bicubic on the full-size uint8 picture.
"""

FrameRule = Literal["on_screen", "rate_filter", "timestamp"]
"""Which frame belongs to a time.

on_screen: what a player shows, the last frame presented at or before the time.
rate_filter: the constant-rate filter of FFmpeg, with which MMAudio extracts training features and av-benchmark reads:
  the last frame presented before the middle of an output frame's slot.
timestamp: MMAudio's demo, the first frame presented at or after the time.
"""


class Video(Settings):
    """At which frame rates and sizes, and by which `Fit`, the encoders see a video.

    `frame_rule` says which frame belongs to a time, `span` whether the frames cover the token grid (`tokens`) or
    the whole `audio.duration_s` (`clip`), as upstream's features do.
    """

    sync_fps: PositiveFloat
    sync_size: Positive
    sync_fit: Fit
    semantic_fps: PositiveFloat
    semantic_size: Positive
    semantic_fit: Fit
    frame_rule: FrameRule
    span: Literal["tokens", "clip"]
