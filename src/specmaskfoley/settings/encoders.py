"""The feature encoders."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from specmaskfoley.settings.base import Positive, Settings
from specmaskfoley.settings.run import Training


class MiniVideoEncoder(Settings):
    """A small video encoder that the pipeline trains.

    It has a feature for each frame; with `segments`, as a sync encoder, features in Synchformer's order: 8 for each
    segment of 16 frames, every 8 frames.
    """

    kind: Literal["mini"]
    width: Positive
    channels: Annotated[tuple[Positive, ...], Field(min_length=1)]
    segments: bool = False

    def times_s(self, frames: int, fps: float) -> list[float]:
        """Seconds of the middle of what each feature shows, as a sync encoder."""
        return segment_times_s(frames, fps) if self.segments else [(frame + 0.5) / fps for frame in range(frames)]


class MiniPromptEncoder(Settings):
    """A small encoder of sounds and texts that the pipeline trains; `blocks` of convolution over time."""

    kind: Literal["mini"]
    width: Positive
    blocks: Positive

    hears: ClassVar[bool] = True
    """Whether it embeds sounds, too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a prompt: one vector."""
        return (self.width,)


class Synchformer(Settings):
    """Synchformer's visual features: 8 vectors for each 0.64 s of 25 fps video, every 0.32 s."""

    kind: Literal["synchformer"]
    weights: str

    @property
    def width(self) -> int:
        return 768

    def times_s(self, frames: int, fps: float) -> list[float]:
        """Seconds of the middle of what each feature shows."""
        return segment_times_s(frames, fps)


class DFN5BClip(Settings):
    """CLIP image embeddings (DFN5B, ViT-H/14)."""

    kind: Literal["dfn5b_clip"]
    weights: str

    @property
    def width(self) -> int:
        return 1024


class Clap(Settings):
    """CLAP embeddings of sounds and texts (LAION, HTSAT-base)."""

    kind: Literal["clap"]
    weights: str
    tokenizer: Annotated[tuple[str, ...], Field(min_length=1)]

    hears: ClassVar[bool] = True

    @property
    def width(self) -> int:
        return 512

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.width,)


class T5(Settings):
    """A vector for each token of a text (T5-large, encoder alone); what exceeds `max_tokens` is cut off."""

    kind: Literal["t5"]
    weights: str
    tokenizer: Annotated[tuple[str, ...], Field(min_length=1)]
    max_tokens: Positive = 32

    hears: ClassVar[bool] = False

    @property
    def width(self) -> int:
        return 1024

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.max_tokens, self.width)


SEGMENT = 16
"""Frames that Synchformer sees together; it moves on by half, and two frames make a feature."""


def segment_times_s(frames: int, fps: float) -> list[float]:
    """Seconds of the middle of what each of Synchformer's features shows: in order only within a segment."""
    starts = range(0, frames - SEGMENT + 1, SEGMENT // 2)
    return [(start + part + 1) / fps for start in starts for part in range(0, SEGMENT, 2)]


SyncEncoder = Annotated[MiniVideoEncoder | Synchformer, Field(discriminator="kind")]
SemanticEncoder = Annotated[MiniVideoEncoder | DFN5BClip, Field(discriminator="kind")]
PromptEncoder = Annotated[MiniPromptEncoder | Clap | T5, Field(discriminator="kind")]


class Encoders(Settings):
    """The feature encoders; `train_*` only for those that the pipeline trains.

    `max_clips` bounds what training (of the judges too) holds in memory, `batch_size` the clips encoded together.
    """

    max_clips: Positive
    batch_size: Positive
    sync: SyncEncoder
    semantic: SemanticEncoder
    prompt: PromptEncoder
    train_sync: Training | None = None
    train_semantic: Training | None = None
    train_prompt: Training | None = None

    @property
    def any_trained(self) -> bool:
        return any((self.train_sync, self.train_semantic, self.train_prompt))

    @model_validator(mode="after")
    def _check(self) -> Self:
        for role in ("sync", "semantic", "prompt"):
            kind, trained = getattr(self, role).kind, getattr(self, f"train_{role}") is not None
            if trained != (kind == "mini"):
                raise ValueError(
                    f"{role}.kind={kind} {'is not trained here: remove' if trained else 'is trained here: set'} "
                    f"train_{role}"
                )
        return self
