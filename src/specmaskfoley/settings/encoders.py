"""The feature encoders."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from specmaskfoley.settings.base import Positive, Settings
from specmaskfoley.settings.run import Training


class MiniVideoEncoder(Settings):
    """A small video encoder that the pipeline trains."""

    kind: Literal["mini"]
    width: Positive
    channels: Annotated[tuple[Positive, ...], Field(min_length=1)]


class MiniPromptEncoder(Settings):
    """A small encoder of sounds and texts that the pipeline trains; `blocks` of convolution over time."""

    kind: Literal["mini"]
    width: Positive
    blocks: Positive


class Synchformer(Settings):
    """Synchformer's visual features: 8 vectors for each 0.64 s of 25 fps video, every 0.32 s."""

    kind: Literal["synchformer"]
    weights: str

    @property
    def width(self) -> int:
        return 768


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

    @property
    def width(self) -> int:
        return 512


SyncEncoder = Annotated[MiniVideoEncoder | Synchformer, Field(discriminator="kind")]
SemanticEncoder = Annotated[MiniVideoEncoder | DFN5BClip, Field(discriminator="kind")]
PromptEncoder = Annotated[MiniPromptEncoder | Clap, Field(discriminator="kind")]


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
