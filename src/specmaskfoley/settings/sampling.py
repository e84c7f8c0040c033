"""Guidance and iterative decoding."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from specmaskfoley.settings.base import Fraction, NonNegative, Positive, Settings, first_problem

GUIDANCE_MODES = ("multi", "no_text_video", "no_video", "text", "audio")
GuidanceMode = Literal["multi", "no_text_video", "no_video", "text", "audio"]
Schedule = Literal["cosine", "linear"]


class Guidance(Settings):
    """Multi-CFG, eq. 1 of the paper; `mode` picks a row of its Table 2, `start` is `sampling.guidance_plan`'s."""

    scale: NonNegative
    mode: GuidanceMode
    start: Fraction = 0.0


class Sample(Settings):
    """MaskGIT iterative decoding (section 3.3)."""

    steps: Positive
    gumbel_temperature: NonNegative
    schedule: Schedule = "cosine"
    batch_size: Positive
    videos: Annotated[int, Field(ge=0)]
    int8: bool = False


class Sampling(Settings):
    """How the tokens of a sound are drawn, whatever it is drawn for; `Params.sampling` makes it.

    seed, steps, gumbel_temperature, schedule: as `Params.seed` and the fields of `Sample`.
    scale, mode, start: the fields of `Guidance`.
    negative_scale: weight of what is not to be heard, where something is; see `sampling.guidance_weights`.
    """

    seed: Annotated[int, Field(ge=0)]
    steps: Positive
    scale: NonNegative
    mode: GuidanceMode
    start: Fraction
    gumbel_temperature: NonNegative
    schedule: Schedule
    negative_scale: NonNegative = 1.0

    def changed(self, **values: Any) -> Self:
        """The same with other values, which are checked.

        Raises:
            ValueError: naming the setting and its value.
        """
        try:
            return self.model_validate({**dict(self), **values})
        except ValidationError as error:
            raise ValueError(f"{first_problem(error)} (of the sampling: {', '.join(dict(self))})") from None
