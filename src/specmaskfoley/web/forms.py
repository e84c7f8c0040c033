"""The form of a job, as `specmaskfoley serve` takes it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from starlette.datastructures import FormData, UploadFile

from specmaskfoley.foley.editing import Span
from specmaskfoley.foley.prompts import Prompt, parse_texts
from specmaskfoley.settings import Sampling
from specmaskfoley.settings.base import Finite
from specmaskfoley.web.studio import LONGEST_TEXT, MOST_CANDIDATES, MOST_SCALE, MOST_STEPS, SHORTEST_S, Choices

_MOST_SEED = 2**31 - 1
FILES = ("video", "like", "from_audio")


def _file(value: Any) -> UploadFile:
    if not isinstance(value, UploadFile):
        raise ValueError("expected a file, as curl sends it with @")
    return value


def _ordered(span: Span) -> Span:
    if not 0 <= span[0] < span[1]:
        raise ValueError("expected seconds from and to, such as 3.2-5.0")
    return span


File = Annotated[Any, AfterValidator(_file), WithJsonSchema({"type": "string", "format": "binary"})]
Words = Annotated[str, StringConstraints(strip_whitespace=True, max_length=LONGEST_TEXT)]
Seconds = Annotated[
    tuple[Finite, Finite],
    BeforeValidator(lambda text: str(text).split("-")),
    AfterValidator(_ordered),
    WithJsonSchema({"type": "string", "examples": ["3.2-5.0"]}),
]


class Order(BaseModel):
    """What is to be made: a sound for a video, or one of `duration_s` without a video."""

    model_config = ConfigDict(extra="forbid")

    video: File | None = Field(None, description="A video; its sound is replaced.")
    text: list[Words] = Field([], description="What is heard; of a part: `0-3: footsteps`. May be repeated.")
    negative: Words = Field("", description="What is not to be heard.")
    negative_scale: float = Field(1.0, ge=0, le=MOST_SCALE, description="Weight of `negative`, times `scale`.")
    like: File | None = Field(None, description="A sound to be like, in place of a text.")
    duration_s: float | None = Field(None, ge=SHORTEST_S, description="Length in seconds, where there is no video.")
    seed: int = Field(0, ge=0, le=_MOST_SEED, description="Another seed gives another sound.")
    candidates: int = Field(1, ge=1, le=MOST_CANDIDATES, description="Takes, which judges rank: the best is number 1.")
    steps: int | None = Field(
        None,
        ge=1,
        le=MOST_STEPS,
        description="Decoding steps, of several codebooks those of the first; by default the model's.",
    )
    scale: float | None = Field(None, ge=0, le=MOST_SCALE, description="Guidance; by default the model's.")
    keep_original_audio: Literal["mix", "replace"] = Field(
        "replace", description="What becomes of the video's own sound, in the new video."
    )
    only: list[Seconds] = Field(
        [], description="Seconds of the video's own sound to make anew; all else stays. May be repeated."
    )
    from_audio: File | None = Field(
        None, description="A sound that is edited in place of the video's own; without `only` its silent holes are."
    )

    @classmethod
    def of(cls, form: FormData) -> Self:
        """
        Raises:
            ValueError: naming the field that is wrong.
        """
        fields = {name: form.getlist(name) for name in form}
        lists = ("text", "only")
        given = {name: all_ if name in lists or len(all_) > 1 else all_[0] for name, all_ in fields.items()}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "extra_forbidden":
                raise ValueError(f"no such field; known: {', '.join(cls.model_fields)}") from None
            said = first["msg"].removeprefix("Value error, ").removeprefix("--")
            raise ValueError(": ".join([*map(str, first["loc"][:1]), said])) from None

    @property
    def prompt(self) -> Prompt:
        """
        Raises:
            ValueError: naming what is wrong with it.
        """
        return Prompt.of(parse_texts([text for text in self.text if text]), self.negative)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.prompt.given and self.like is not None:
            raise ValueError("text and like: say what is heard, or give a sound to be like, not both")
        if self.video is not None and self.duration_s is not None:
            raise ValueError("duration_s is for sounds without video; leave it out, or the video")
        if self.video is None and (self.duration_s is None or not (self.prompt.given or self.like)):
            raise ValueError("video is missing; or, for a sound without one, duration_s, and text or like")
        if self.video is None and (self.only or self.from_audio or self.keep_original_audio == "mix"):
            raise ValueError("only, from_audio and keep_original_audio need a video")
        return self

    def store(self, folder: Path) -> dict[str, Path]:
        """Write the files into the folder, under names of ours: field to path."""
        stored = {}
        for field in FILES:
            if (given := getattr(self, field)) is not None:
                stored[field] = folder / f"given-{field}"
                with stored[field].open("wb") as target:
                    shutil.copyfileobj(given.file, target)
        return stored

    def choices(self, defaults: Sampling, stored: dict[str, Path]) -> Choices:
        prompt, like = self.prompt, stored.get("like")
        given = {"seed": self.seed, "steps": self.steps, "scale": self.scale, "negative_scale": self.negative_scale}
        return Choices(
            prompt=prompt if like is None else Prompt.of(negative=self.negative, like=like),
            duration_s=self.duration_s,
            candidates=self.candidates,
            sampling=defaults.changed(**{name: value for name, value in given.items() if value is not None}),
            keep_original_audio=self.keep_original_audio,
            only=tuple(self.only),
            from_audio=stored.get("from_audio"),
        )
