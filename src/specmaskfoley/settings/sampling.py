"""Guidance and iterative decoding."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from specmaskfoley.settings.base import Fraction, NonNegative, Positive, Settings, first_problem

GUIDANCE_MODES = ("multi", "no_text_video", "no_video", "text", "audio")
GuidanceMode = Literal["multi", "no_text_video", "no_video", "text", "audio"]
Schedule = Literal["cosine", "linear"]
Ramp = Literal["rising", "falling"]


def _steps(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Takes the lists of JSON and of callers as well; and says one thing that is wrong, not one of each alternative."""
    try:
        return check(tuple(value) if isinstance(value, list) else value)
    except ValidationError:
        raise ValueError("expected an integer greater than 0, or a list of them, one a level") from None


Steps = Annotated[
    Positive | Annotated[tuple[Positive, ...], Field(min_length=1)],
    WrapValidator(_steps),
]


class Guidance(Settings):
    """Multi-CFG, eq. 1 of the paper; `mode` picks a row of its Table 2, `start` is `sampling.guidance_plan`'s.

    `ramp`: the scale rises from 0 (eq. 1), or falls to 1 as the tokens get settled (MAGNeT's own); with every codebook
    anew.
    """

    scale: NonNegative
    mode: GuidanceMode
    start: Fraction = 0.0
    ramp: Ramp = "rising"


class Decoding(Settings):
    """Iterative decoding; a backbone reads those of these settings that its `decides_by` names.

    steps: of a sound; of a backbone with several levels those of each, or of the first, the others then taking half.
    gumbel_temperature, schedule: MaskGIT's (section 3.3): noise on the confidences at the first step, and how the share
        of masked tokens falls.
    temperature, top_p: MAGNeT's: divisor of the logits at the first step, falling to 0, and the share of the
        probability that is drawn from.
    """

    steps: Steps
    gumbel_temperature: NonNegative | None = None
    schedule: Schedule | None = None
    temperature: NonNegative | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None

    @property
    def first_steps(self) -> int:
        """Of the first level."""
        return self.steps if isinstance(self.steps, int) else self.steps[0]

    def steps_of(self, levels: int) -> tuple[int, ...]:
        """Of each level.

        Raises:
            ValueError: `steps` names another number of levels.
        """
        if isinstance(self.steps, int):
            return (self.steps, *[max(1, self.steps // 2)] * (levels - 1))
        if len(self.steps) != levels:
            raise ValueError(
                f"steps={list(self.steps)} has {len(self.steps)} numbers, and the backbone decides its tokens in "
                f"{levels} {'levels' if levels > 1 else 'level'}"
            )
        return self.steps


class Sample(Decoding):
    """How the test clips' sounds are made."""

    batch_size: Positive
    videos: Annotated[int, Field(ge=0)]
    int8: bool = False


class Sampling(Decoding):
    """How the tokens of a sound are drawn, whatever it is drawn for; `Params.sampling` makes it.

    scale, mode, start, ramp: the fields of `Guidance`.
    negative_scale: weight of what is not to be heard, where something is; see `sampling.guidance_weights`.
    """

    seed: Annotated[int, Field(ge=0)]
    scale: NonNegative
    mode: GuidanceMode
    start: Fraction
    ramp: Ramp = "rising"
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
