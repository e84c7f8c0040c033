"""Where clips and weight files come from, where everything lies, and which clips are usable."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from specmaskfoley.settings.base import Finite, Fraction, NonNegative, Positive, PositiveFloat, Settings


class Paths(Settings):
    """Where the stages read and write; relative to the directory of params.yaml."""

    code: str
    weights: str
    clips: str
    clip_list: str
    ledger: str
    usable: str
    encoders: str
    features: str
    codec: str
    tokens: str
    audio_ledger: str
    audio: str
    backbone: str
    control: str
    judges: str
    samples: str
    evaluation: str
    metrics: str


class SplitLimits(Settings):
    """Clips wanted of each split; null: all."""

    train: Positive | None = None
    val: Positive | None = None
    test: Positive | None = None


class Data(Settings):
    """Where clips come from, and which of them are wanted.

    `lists` are VGGSound's splits (sources youtube and archive, and folder with `pattern`); `limit` is the number of
    clips wanted of each split, in a class-balanced draw by `seed` of which a smaller one is part of a larger. `audio`
    are directories of sounds without picture.
    """

    source: Literal["world", "folder", "youtube", "archive"]
    folder: str | None = None
    labels: str | None = None
    lists: str | None = None
    pattern: str = "{youtube_id}_{start:06d}.mp4"
    limit: Positive | SplitLimits | None = None
    exclude_shared: bool = True
    audio: tuple[str, ...] = ()

    def limit_of(self, split: str) -> int | None:
        """Clips wanted of a split; None: all."""
        if isinstance(self.limit, SplitLimits):
            wanted: int | None = getattr(self.limit, split)
            return wanted
        return self.limit

    @property
    def listed(self) -> bool:
        """Whether VGGSound's lists say which clips are wanted."""
        return self.source in ("youtube", "archive") or (self.source == "folder" and self.lists is not None)


class Fetch(Settings):
    """How clips of the sources youtube and archive get here, and where they lie."""

    folder: str
    workers: Positive
    retries: Annotated[int, Field(ge=0)]
    interval_s: NonNegative
    timeout_s: PositiveFloat
    proxy: str | None = None
    cookies: str | None = None
    max_height: Positive
    again: tuple[str, ...] = ()
    youtube: str
    archive: str
    parts: tuple[str, ...] | None = None


class Weights(Settings):
    """Where official weight files lie and how they get there; `weights.lock.yaml` says which there are."""

    folder: str
    bundle: str | None = None
    mirror: str | dict[str, str] | None = None
    proxy: str | None = None
    retries: Annotated[int, Field(ge=0)] = 5


class World(Settings):
    """The procedural audio-visual world: clips rendered per split."""

    train_clips: Positive
    val_clips: Positive
    test_clips: Positive
    fps: Positive


class Prepare(Settings):
    """Which clips are usable.

    `padding` is what happens to a clip of at least `min_duration_s` that is shorter than audio.duration_s: `hold` its
    last frame under silence, or `none`: it is set aside as short. `clip_timeout_s` and `clip_memory_gb` bound what
    the reading of one clip may take.
    """

    min_duration_s: PositiveFloat
    silence_db: Finite
    padding: Literal["hold", "none"]
    clip_timeout_s: PositiveFloat
    clip_memory_gb: PositiveFloat
    shard_rows: Positive
    val_fraction: Fraction
    test_fraction: Fraction

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction={self.val_fraction} and test_fraction={self.test_fraction} leave no clips to train on"
            )
        return self
