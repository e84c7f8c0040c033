"""Guidance and iterative decoding."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from specmaskfoley.settings.base import Fraction, NonNegative, Positive, Settings

GUIDANCE_MODES = ("multi", "no_text_video", "no_video", "text", "audio")
GuidanceMode = Literal["multi", "no_text_video", "no_video", "text", "audio"]


class Guidance(Settings):
    """Multi-CFG, eq. 1 of the paper; `mode` picks a row of its Table 2, `start` is `sampling.guidance_plan`'s."""

    scale: NonNegative
    mode: GuidanceMode
    start: Fraction = 0.0


class Sample(Settings):
    """MaskGIT iterative decoding (section 3.3)."""

    steps: Positive
    gumbel_temperature: NonNegative
    schedule: Literal["cosine", "linear"] = "cosine"
    batch_size: Positive
    videos: Annotated[int, Field(ge=0)]
    int8: bool = False
