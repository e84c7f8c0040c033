"""The record of a sound, `clip.json`: all that decides its samples, and how it is read to make them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import ConfigDict, Field, ValidationError

from specmaskfoley.foley.export import model_identity, versions
from specmaskfoley.settings import Params, Sampling, Settings, first_problem
from specmaskfoley.storage.files import sha256

_SECTIONS = ("audio", "video", "encoders", "codec", "backbone", "control", "vocoder")
"""Whole sections of params.yaml that decide a sound. Those that train the networks do not: the weights are recorded."""
_SINGLE = {"run": ("device", "threads", "precision"), "sample": ("int8",)}
"""Single settings of other sections that do; those of the sampling are recorded with every operation."""


class FileIdentity(Settings):
    """A file by its content; the name is for people."""

    name: str
    sha256: str

    @classmethod
    def of(cls, path: Path, **more: Any) -> Self:
        return cls(name=path.name, sha256=sha256(path), **more)

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


class Video(FileIdentity):
    duration_s: float


class Generate(Settings):
    """An operation: the method of `Foley` of the same name, and its arguments."""

    operation: Literal["generate"] = "generate"
    text: str
    sampling: Sampling


class Listen(Settings):
    operation: Literal["listen"] = "listen"
    audio: FileIdentity


class Regenerate(Settings):
    operation: Literal["regenerate"] = "regenerate"
    only: tuple[tuple[float, float], ...]
    text: str
    sampling: Sampling


class ExtendBand(Settings):
    operation: Literal["extend_band"] = "extend_band"
    hz: float
    text: str
    sampling: Sampling


Operation = Annotated[Generate | Listen | Regenerate | ExtendBand, Field(discriminator="operation")]


class Record(Settings):
    """What decides a sound.

    model: file of the pipeline, or name of official weights -> SHA-256.
    settings: section of params.yaml -> setting -> value.
    history: a sound that was made or read, and then edits.
    """

    model_config = ConfigDict(extra="ignore")

    video: Video
    model: dict[str, str]
    settings: dict[str, dict[str, Any]]
    versions: dict[str, str]
    history: tuple[Operation, ...]

    @classmethod
    def read(cls, path: str | Path) -> Record:
        """
        Raises:
            ValueError: the file is missing, or not the record of a sound.
        """
        try:
            record = cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file") from None
        except ValidationError as error:
            raise ValueError(f"{path}: not the record of a sound: {first_problem(error)}") from None
        first = [isinstance(one, Generate | Listen) for one in record.history]
        if first != [True] + [False] * (len(first) - 1):
            raise ValueError(
                f"{path}: not the record of a sound: history must begin with generate or listen, then edit"
            )
        known = {**dict.fromkeys(_SECTIONS), **_SINGLE}
        for name in known.keys() ^ record.settings.keys():
            raise ValueError(f"{path}: not the record of a sound: settings.{name} is missing, or decides nothing")
        for name, keys in _SINGLE.items():
            if record.settings[name].keys() != set(keys):
                raise ValueError(f"{path}: not the record of a sound: settings.{name} must hold {', '.join(keys)}")
        return record

    def apply(self, params: Params) -> Params:
        """`params` with the recorded settings in place of its own.

        Raises:
            ValueError: a recorded value is none, or does not fit.
        """
        raw = params.to_dict()
        raw |= {name: {**(raw[name] if name in _SINGLE else {}), **values} for name, values in self.settings.items()}
        try:
            return Params.model_validate_json(json.dumps(raw))
        except ValidationError as error:
            raise ValueError(f"the record's settings do not fit this model: {first_problem(error)}") from None

    def check_model(self, params: Params) -> None:
        """Compare the weights that `params` names, after `apply`, with the recorded ones.

        Raises:
            ValueError: naming the first that is missing or another one.
        """
        found = model_identity(params)
        for name in self.model | found:
            if self.model.get(name) != found.get(name):
                was, now = (model.get(name, "none")[:12] for model in (self.model, found))
                raise ValueError(
                    f"{name} has the SHA-256 {now}, but {was} in the record; name the model that made the sound"
                )

    def other_versions(self) -> list[str]:
        """Libraries of which another version is installed than the one that made the sound."""
        now = versions()
        return [f"{name} {was}, here {now.get(name)}" for name, was in self.versions.items() if now.get(name) != was]

    @property
    def given_audio(self) -> FileIdentity | None:
        """The sound that was edited, unless it is the video's own."""
        first = self.history[0]
        return first.audio if isinstance(first, Listen) and first.audio.sha256 != self.video.sha256 else None


def describe(
    video: Video, model: dict[str, str], params: Params, device: torch.device, first: Generate | Listen
) -> dict[str, Any]:
    """A record, as it is written."""
    whole = params.to_dict()
    run = {"device": device.type, "threads": torch.get_num_threads(), "precision": params.run.precision}
    settings = {"run": run, "sample": {"int8": params.sample.int8}, **{name: whole[name] for name in _SECTIONS}}
    record = Record(video=video, model=model, settings=settings, versions=versions(), history=(first,))
    return record.model_dump(mode="json")


def edited(record: dict[str, Any], step: Regenerate | ExtendBand) -> dict[str, Any]:
    """The record of a sound after an edit."""
    return {**record, "history": [*record["history"], step.model_dump(mode="json")]}
