"""The record of a sound, `clip.json`: all that decides its samples, and how it is read to make them again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator

from specmaskfoley.foley.prompts import Part, Prompt
from specmaskfoley.settings import (
    Audio,
    Backbone,
    Codec,
    Control,
    Encoders,
    Params,
    Positive,
    Sampling,
    Settings,
    Video,
    Vocoder,
    first_problem,
)
from specmaskfoley.storage.files import sha256
from specmaskfoley.storage.results import text_name

if TYPE_CHECKING:
    import torch


class FileIdentity(Settings):
    """A file by its content; the name is for people."""

    name: str
    sha256: str

    @classmethod
    def of(cls, path: Path, **more: Any) -> Self:
        return cls(name=text_name(path), sha256=sha256(path), **more)

    def check(self, path: Path, role: str) -> None:
        """
        Raises:
            ValueError: the file is another one.
        """
        found = sha256(path)
        if found != self.sha256:
            raise ValueError(
                f"{path}: not the {role} of the record, which is {self.name} with SHA-256 {self.sha256[:12]}; found "
                f"{found[:12]}"
            )


class VideoIdentity(FileIdentity):
    duration_s: float


class Machine(Settings):
    """The settings of `run` that decide a sound."""

    device: str
    threads: Positive
    precision: str


class Deciding(Settings):
    """All settings that decide a sound, besides its sampling: sections of params.yaml, and parts of two others.

    Those that train the networks do not: the weights are recorded.
    """

    run: Machine
    int8: bool
    audio: Audio
    video: Video
    encoders: Encoders
    codec: Codec
    backbone: Backbone
    control: Control
    vocoder: Vocoder | None

    @classmethod
    def of(cls, params: Params, device: torch.device) -> Deciding:
        """What is in use now; `device` is the one that run.device chose."""
        import torch

        run = Machine(device=device.type, threads=torch.get_num_threads(), precision=params.run.precision)
        return cls(run=run, int8=params.sample.int8, **{name: getattr(params, name) for name in cls._sections()})

    def apply(self, params: Params) -> Params:
        """`params` with these in place of its own."""
        changes: dict[str, Any] = {name: getattr(self, name) for name in self._sections()}
        changes["run"] = params.run.model_copy(update=dict(self.run))
        changes["sample"] = params.sample.model_copy(update={"int8": self.int8})
        return params.model_copy(update=changes)

    def fits(self, params: Params) -> bool:
        """Whether `params` has the same, whatever the device and the threads."""
        same = self.apply(params).model_copy(update={"run": params.run})
        return same == params and self.run.precision == params.run.precision

    @classmethod
    def _sections(cls) -> list[str]:
        return [name for name in cls.model_fields if name not in ("run", "int8")]


class Listen(Settings):
    """An operation: the method of `Foley` of the same name, and its arguments."""

    operation: Literal["listen"] = "listen"
    audio: FileIdentity
    track: int | None = None


class _Drawing(Settings):
    """text: words for all of the sound, or for parts of it."""

    text: str | tuple[Part, ...]
    negative: str = ""
    like: FileIdentity | None = None
    sampling: Sampling

    @staticmethod
    def said(prompt: Prompt) -> dict[str, Any]:
        """The fields of a prompt."""
        like = None if prompt.like is None else FileIdentity.of(prompt.like)
        return {"text": prompt.parts or prompt.text, "negative": prompt.negative, "like": like}


class Generate(_Drawing):
    """duration_s: of a sound without video."""

    operation: Literal["generate"] = "generate"
    duration_s: float | None = None


class Regenerate(_Drawing):
    operation: Literal["regenerate"] = "regenerate"
    only: tuple[tuple[float, float], ...]


class ExtendBand(_Drawing):
    operation: Literal["extend_band"] = "extend_band"
    hz: float


class Record(Settings):
    """What decides a sound.

    video: what it was made for; None: nothing but words, or a reference sound.
    model: file of the pipeline, or name of official weights -> SHA-256.
    made_on: device, and the precisions that the settings meant on it; for people.
    history: a sound that was made or read, and then edits.
    knowledge: what the model knows, and what it knows of the last text; for people, see `knowledge.Knowledge.facts`.
    """

    model_config = ConfigDict(extra="ignore")

    video: VideoIdentity | None
    model: dict[str, str]
    settings: Deciding
    versions: dict[str, str]
    made_on: dict[str, str] = Field(default_factory=dict)
    history: tuple[Annotated[Generate | Listen | Regenerate | ExtendBand, Field(discriminator="operation")], ...]
    knowledge: dict[str, Any] = Field(default_factory=dict)

    @field_validator("history")
    @classmethod
    def _check_order(cls, history: tuple[Settings, ...]) -> tuple[Settings, ...]:
        begins = [isinstance(one, Generate | Listen) for one in history]
        if not history or begins != [True, *[False] * (len(history) - 1)]:
            raise ValueError("must begin with generate or listen, and go on with edits")
        return history

    @classmethod
    def read(cls, path: str | Path) -> Record:
        """
        Raises:
            ValueError: the file is missing, or not the record of a sound.
        """
        try:
            return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file") from None
        except ValidationError as error:
            raise ValueError(f"{path}: not the record of a sound: {first_problem(error)}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not the record of a sound") from None

    def check_model(self, params: Params) -> None:
        """Compare the weights that `params` names with the recorded ones.

        Raises:
            ValueError: naming the first that is missing or another one.
        """
        from specmaskfoley.foley.export import model_identity

        found = model_identity(params)
        for name in self.model | found:
            if self.model.get(name) != found.get(name):
                was, now = (model.get(name, "none")[:12] for model in (self.model, found))
                raise ValueError(
                    f"{name} has the SHA-256 {now}, but {was} in the record; name the model that made the sound"
                )

    def check_inputs(self, video: Path | None, audio: Path | None, like: Sequence[Path]) -> None:
        """
        Args:
            like: the reference sounds, in any order.

        Raises:
            ValueError: a file is another one than the record's, or missing.
        """
        if self.video is None and video is not None:
            raise ValueError(f"{video}: the record is of a sound without video; leave it out")
        files = (
            (self.video, video, "video", "of a sound for a video; give that, {}"),
            (self.given_audio, audio, "sound", "of an edited sound; give its file, {} (--from-audio)"),
        )
        for identity, path, role, what in files:
            if identity is None:
                continue
            if path is None:
                raise ValueError(f"the record is {what.format(identity.name)}")
            identity.check(path, role)
        given = {sha256(path) for path in like}
        for one in self.history:
            wanted = one.like if isinstance(one, _Drawing) else None
            if wanted is not None and wanted.sha256 not in given:
                raise ValueError(
                    f"the record is of a sound like {wanted.name} with SHA-256 {wanted.sha256[:12]}; give it (--like)"
                )

    @property
    def given_audio(self) -> FileIdentity | None:
        """The sound that was edited, unless it is the video's own."""
        first, own = self.history[0], self.video.sha256 if self.video is not None else None
        return first.audio if isinstance(first, Listen) and first.audio.sha256 != own else None


def edited(record: dict[str, Any], step: Regenerate | ExtendBand, knowledge: dict[str, Any]) -> dict[str, Any]:
    """The record of a sound after an edit."""
    return {**record, "history": [*record["history"], step.model_dump(mode="json")], "knowledge": knowledge}
